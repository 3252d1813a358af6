"""Speech → text while it is spoken: samples in, events out. There is no microphone and no clock in here.

Sound is read into the model as it comes, so that what is left when somebody stops speaking does not grow with how long
they spoke.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ..device_errors import device_errors
from ..errors import InputError
from ..generation.should_stop import StopAsked
from ..log_mel import SAMPLE_RATE, FloatArray
from ..processing.audio import as_float, checked_rate
from ..processing.resampling import Resampler
from .clip_transcriber import ClipTranscriber
from .decoding import Draft
from .local_agreement import LocalAgreement
from .prefill import ClipInProgress
from .segmenter import LIVE, Closed, Opened, Segmenter, Sound, Step
from .vad import Voice

if TYPE_CHECKING:
    from ..model import Gemma4
    from ..processing import Processor

# With less speech than this there is nothing to write down yet.
_SPEECH_FOR_A_PARTIAL = 0.3
# After this pause the tail of a segment has been read. If the segment ends here, its final has been written already.
_PAUSE_FOR_A_PARTIAL = 0.4
# If more seconds of sound than this are waiting, no partial is written.
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

    One thread at a time may use it; with others that use the model it takes turns. `feed` reads the sound into the
    model and returns the events it led to; `finish` ends the segment under way, and the transcriber can be fed again,
    its times going on. So it can after a `DeviceError`: the segment under way is lost, and the next one is heard.

    Args:
        model, processor: from `load`, of a size that hears (e2b, e4b, 12b).
        language: what is spoken, by English name or ISO 639-1 code; None leaves it to the model.
        translate_to: translate every segment into this language as well.
        rate: samples per second of what is fed.
        partial_every: seconds of sound between partials; None for finals only.
        threshold: probability from which the detector takes sound for speech.
        silence: seconds without speech that end a segment.
        max_utterance: seconds after which a segment is cut, at its quietest moment; 1 to 28.
        backlog: seconds of sound that wait to be fed. A partial under way gives way to them, and goes on later.
        voice: another detector than Silero: probability of speech in a float32 `[512]` window, asked in order.
        should_stop: asked between blocks of sound and between tokens; once it says yes, nothing more is written down,
            and `feed` and `finish` return what they have.
        words: names and terms that may be said, as for `transcribe`.

    Raises:
        InputError: a model that takes no sound, or a rate that is no number of samples per second.
        ValueError: a language that is not one, words that cannot be used, or a setting out of its range.
    """

    def __init__(
        self,
        model: Gemma4,
        processor: Processor,
        language: str | None = None,
        translate_to: str | None = None,
        *,
        rate: float = SAMPLE_RATE,
        partial_every: float | None = 1.0,
        threshold: float = LIVE.threshold,
        silence: float = LIVE.silence,
        max_utterance: float = LIVE.longest,
        backlog: Callable[[], float] | None = None,
        voice: Voice | None = None,
        should_stop: Callable[[], bool] | None = None,
        words: Iterable[str] | None = None,
    ) -> None:
        if partial_every is not None and not partial_every > 0:
            raise ValueError(f"partial_every is a number of seconds above 0, or None, not {partial_every}")
        self._rate = checked_rate(rate, "the sound")
        self._resampler = Resampler(self._rate)
        cutting = replace(LIVE, threshold=threshold, silence=silence, longest=max_utterance)
        self._segmenter = Segmenter(cutting, voice)
        self._should_stop = StopAsked(should_stop)
        with device_errors():
            self._transcriber = ClipTranscriber(model, processor, language, translate_to, self._should_stop, words)
        self._translate_to = translate_to
        self._partial_every = partial_every
        self._backlog = backlog
        self._clip: ClipInProgress | None = None
        self._start = 0  # of the clip, in samples
        self._agreement = LocalAgreement(self._transcriber.text_of)
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
        """How many seconds of sound have been fed so far."""
        return self._segmenter.seconds

    @property
    def speaking(self) -> bool:
        """Whether somebody is speaking."""
        return self._segmenter.speaking

    def feed(self, samples: npt.ArrayLike) -> list[Event]:
        """Listen to `[n]` more samples, one channel: float in [-1, 1], int16, int32 or uint8; any n.

        Finals come with the call that completes their silence. A call that brings none may bring one partial.

        Raises:
            ValueError: samples of another shape or kind, NaN or infinite ones.
            OutOfMemoryError, DeviceError: memory ran out, or the GPU failed.
        """
        samples = self._resampler.feed(_one_channel(samples))
        with device_errors(self._lose_clip):
            finals = self._follow_all(self._segmenter.push(samples))
            return finals or self._partial()

    def finish(self) -> list[Event]:
        """End the segment under way, if there is one, and return its final. Raises as `feed`."""
        rest, self._resampler = self._resampler.finish(), Resampler(self._rate)
        with device_errors(self._lose_clip):
            return self._follow_all([*self._segmenter.push(rest), *self._segmenter.finish()])

    def _lose_clip(self) -> None:
        self._clip = None

    def _follow_all(self, steps: Iterable[Step]) -> list[Event]:
        events: list[Event] = []
        for step in steps:
            if self._should_stop():
                break
            events += self._follow(step)
        return events

    def _follow(self, step: Step) -> list[Event]:
        match step:
            case Opened(start):
                self._clip, self._start = self._transcriber.new_clip(), start
                self._agreement = LocalAgreement(self._transcriber.text_of)
                self._partial_at, self._partial_shown = 0.0, False
            case Sound(samples) if self._clip is not None:
                self._clip.feed(samples)
            case Closed(end, spoken) if self._clip is not None:
                clip, self._clip = self._clip, None
                return self._final(clip, end) if spoken else self._nothing(end)
            case _:  # the rest of an utterance that was lost
                pass
        return []

    def _nothing(self, end: int) -> list[Event]:
        """A final only if there is a partial to be taken back."""
        return [self._event("final", "", None, end, certain="")] if self._partial_shown else []

    def _final(self, clip: ClipInProgress, end: int) -> list[Event]:
        length = end - self._start
        answer = self._transcriber.answer(clip.end(length), length / SAMPLE_RATE, draft=Draft(self._agreement.tokens))
        if answer is None:
            return []
        if not answer.text and not answer.translation:
            return self._nothing(end)
        return [self._event("final", answer.text, answer.translation, end, answer.text, answer.doubtful)]

    def _partial(self) -> list[Event]:
        if self._clip is None or not self._partial_is_due(self._clip) or self._is_behind() or self._should_stop():
            return []
        known = self._clip.seconds
        agreement = self._agreement
        decoded = self._transcriber.answer_so_far(self._clip.so_far(), known, agreement.draft, self._is_behind)
        if decoded.ended == "stopped":
            agreement.replace_draft(decoded.tokens)
            return []
        agreement.add(decoded.tokens)
        self._partial_at = known
        text, translation = self._transcriber.read(decoded.tokens)
        if not text and not translation:
            return []
        certain, _ = self._transcriber.read(decoded.tokens[: agreement.certain])
        certain = certain if text.startswith(certain) else ""  # half of a translation's marker reads as text
        self._partial_shown = True
        end = self._start + round(known * SAMPLE_RATE)
        return [self._event("partial", text, translation, end, certain=certain)]

    def _partial_is_due(self, clip: ClipInProgress) -> bool:
        if self._partial_every is None or self._segmenter.spoken < _SPEECH_FOR_A_PARTIAL:
            return False
        new = clip.seconds - self._partial_at
        return new >= self._partial_every or (new > 0 and self._segmenter.pause >= _PAUSE_FOR_A_PARTIAL)

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


def _one_channel(samples: npt.ArrayLike) -> FloatArray:
    """Samples as they come → float32 `[n]` in [-1, 1]. Raises ValueError."""
    array = np.asarray(samples)
    if array.ndim != 1:
        raise ValueError(
            f"samples must be [n], one channel, not {list(array.shape)}: "
            "mix several channels first, as samples.mean(axis=1) does to [n, channels]"
        )
    try:
        array = as_float(array, "the samples")
    except InputError as error:
        raise ValueError(str(error)) from error
    if not np.isfinite(array).all():
        raise ValueError("the samples have NaN or infinite values among them")
    return array
