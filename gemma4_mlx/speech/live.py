"""Speech → text while it is spoken: samples in, events out. There is no microphone and no clock in here.

Sound is read into the model as it comes, so that what is left when somebody stops speaking does not grow with how long
they spoke.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from gemma4_mlx.log_mel import SAMPLE_RATE, FloatArray
from gemma4_mlx.speech.agreement import Agreement
from gemma4_mlx.speech.hearing import ClipInProgress
from gemma4_mlx.speech.scribe import Scribe
from gemma4_mlx.speech.utterances import Closed, Opened, Sound, Step, Utterances

if TYPE_CHECKING:
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor

# Before so much speech there is nothing to guess at.
_SPEECH_FOR_A_PARTIAL = 0.3
# By then the tail of an utterance has been read: if it ends here, its final has been written already.
_PAUSE_FOR_A_PARTIAL = 0.4
# More sound than this waiting, and a partial gives way to it.
_BACKLOG = 0.3


@dataclass(frozen=True)
class Event:
    """What has been heard.

    Attributes:
        kind: "partial" while it is being spoken, to be replaced by the next event; "final" once, at its end. A final is
            empty when partials turned out to be nothing.
        text: the transcription, on one line.
        translation: on one line; None if none was asked for, empty if the model gave none.
        start, end: seconds from the beginning of the sound.
        certain: the beginning of a partial's `text` that no later partial changes; a final's whole text.
        doubtful: a final that looks like something else than what was said, also when asked for a second time.
    """

    kind: Literal["partial", "final"]
    text: str
    translation: str | None
    start: float
    end: float
    certain: str
    doubtful: bool = False


class LiveTranscriber:
    """Writes down, and translates, what is being said.

    Use it in one thread. `feed` reads the sound into the model and returns the events it led to; `finish` ends the
    utterance under way, and the transcriber can be fed again, its times going on.

    Args:
        model, processor: from `load`, of a size that hears (e2b, e4b, 12b).
        language: what is spoken, by English name or ISO 639-1 code; None leaves it to the model.
        translate_to: translate every utterance into this language as well.
        partial_every: seconds of sound between partials; None for finals only.
        threshold: probability from which the detector takes sound for speech.
        silence: seconds without speech that end an utterance.
        max_utterance: seconds after which one is cut, at its quietest moment; 1 to 28.
        backlog: seconds of sound that wait to be fed. A partial under way gives way to them, and goes on later.
        voice: another detector, as for `Utterances`.

    Raises:
        InputError: a model without ears.
        ValueError: a language that is not one, or a setting out of its range.
    """

    def __init__(
        self,
        model: Gemma4,
        processor: Processor,
        language: str | None = None,
        translate_to: str | None = None,
        *,
        partial_every: float | None = 1.0,
        threshold: float = 0.5,
        silence: float = 0.7,
        max_utterance: float = 20.0,
        backlog: Callable[[], float] | None = None,
        voice: Callable[[FloatArray], float] | None = None,
    ) -> None:
        if partial_every is not None and not partial_every > 0:
            raise ValueError(f"partial_every is a number of seconds above 0, or None, not {partial_every}")
        self._utterances = Utterances(threshold, silence, max_utterance, voice)
        self._scribe = Scribe(model, processor, language, translate_to)
        self._translate_to = translate_to
        self._partial_every = partial_every
        self._backlog = backlog
        self._clip: ClipInProgress | None = None
        self._start = 0  # of the clip, in samples
        self._agreement = Agreement(self._scribe.text_of)
        self._partial_at = 0.0  # seconds of the clip known to the last partial
        self._partial_shown = False

    def __enter__(self) -> LiveTranscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clip = None  # and with it the memory of its cache

    @property
    def seconds(self) -> float:
        """Of sound fed so far."""
        return self._utterances.seconds

    @property
    def speaking(self) -> bool:
        """Somebody is speaking."""
        return self._utterances.speaking

    def feed(self, samples: npt.ArrayLike) -> list[Event]:
        """Listen to float `[n]` more samples, mono, 16 kHz, in [-1, 1]; any n.

        Finals come with the call that completes their silence. A call that brings none may bring one partial.

        Raises:
            ValueError: samples of another shape, NaN or infinite ones.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1:
            raise ValueError(f"samples must be [n], one channel, not {list(samples.shape)}")
        if not np.isfinite(samples).all():
            raise ValueError("the samples have NaN or infinite values among them")
        finals = [event for step in self._utterances.push(samples) for event in self._follow(step)]
        return finals or self._partial()

    def finish(self) -> list[Event]:
        """End the utterance under way, if there is one, and return its final."""
        return [event for step in self._utterances.finish() for event in self._follow(step)]

    def _follow(self, step: Step) -> list[Event]:
        match step:
            case Opened(start):
                self._clip, self._start = self._scribe.new_clip(), start
                self._agreement = Agreement(self._scribe.text_of)
                self._partial_at, self._partial_shown = 0.0, False
            case Sound(samples):
                assert self._clip is not None
                self._clip.hear(samples)
            case Closed(end, spoken):
                assert self._clip is not None
                clip, self._clip = self._clip, None
                return self._final(clip, end) if spoken else self._nothing(end)
        return []

    def _nothing(self, end: int) -> list[Event]:
        """A final only if there is a partial to be taken back."""
        return [self._event("final", "", None, end, certain="")] if self._partial_shown else []

    def _final(self, clip: ClipInProgress, end: int) -> list[Event]:
        length = end - self._start
        answer = self._scribe.answer(clip.end(length), length / SAMPLE_RATE, guess=self._agreement.tokens)
        if not answer.text and not answer.translation:
            return self._nothing(end)
        return [self._event("final", answer.text, answer.translation, end, answer.text, answer.doubtful)]

    def _partial(self) -> list[Event]:
        if self._clip is None or not self._partial_is_due(self._clip) or self._is_behind():
            return []
        known = self._clip.seconds
        agreement = self._agreement
        written = self._scribe.guess(
            self._clip.so_far(), known, agreement.tokens, agreement.certain, should_yield=self._is_behind
        )
        if written.ended == "yielded":
            agreement.replace_guess(written.tokens)
            return []
        agreement.add(written.tokens)
        self._partial_at = known
        text, translation = self._scribe.read(written.tokens)
        if not text and not translation:
            return []
        certain, _ = self._scribe.read(written.tokens[: agreement.certain])
        certain = certain if text.startswith(certain) else ""  # half of a translation's marker reads as text
        self._partial_shown = True
        end = self._start + round(known * SAMPLE_RATE)
        return [self._event("partial", text, translation, end, certain=certain)]

    def _partial_is_due(self, clip: ClipInProgress) -> bool:
        if self._partial_every is None or self._utterances.spoken < _SPEECH_FOR_A_PARTIAL:
            return False
        new = clip.seconds - self._partial_at
        return new >= self._partial_every or (new > 0 and self._utterances.pause >= _PAUSE_FOR_A_PARTIAL)

    def _is_behind(self) -> bool:
        return self._backlog is not None and self._backlog() > _BACKLOG

    def _event(
        self,
        kind: Literal["partial", "final"],
        text: str,
        translation: str | None,
        end: int,
        certain: str,
        doubtful: bool = False,
    ) -> Event:
        if self._translate_to is not None and translation is None:
            translation = ""
        return Event(kind, text, translation, self._start / SAMPLE_RATE, end / SAMPLE_RATE, certain, doubtful)
