"""Speech of any length → text, with times and, if asked for, a translation.

The sound is cut at pauses into clips the model can hold and each clip is one question to it. Sound that arrives while
it is spoken is not this file's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemma4_mlx.errors import InputError
from gemma4_mlx.generation.stopping import StopAsked
from gemma4_mlx.log_mel import SAMPLE_RATE, FloatArray, frame_count
from gemma4_mlx.processing.audio import AudioSource, audio_duration, stream_audio
from gemma4_mlx.processing.loudness import levelled
from gemma4_mlx.processing.sources import FileSource, resolve_source, source_name
from gemma4_mlx.speech.endpoints import LONG_PAUSE, LONGEST, Clip, ClipCutter
from gemma4_mlx.speech.scribe import Answer, Scribe

if TYPE_CHECKING:
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.model.cache import Caches
    from gemma4_mlx.processing import Processor


# Segments in one decode. On a processor, writing four together takes 0.7 to 0.9 of the time it takes one by one, and
# eight hardly less (bench/segments.py). More would also lose more to an interrupt and hold more memory: what the model
# has read of a segment, 38 MB for the longest in E4B, and about as much again while it is written down.
_TOGETHER = 4
# A clip is read ten seconds at a time, as much as the tower encodes in one go; in between one can stop.
_BLOCK = 10 * SAMPLE_RATE

_Stretch = tuple[int, int]  # a clip's first sample and the one past its last


@dataclass(frozen=True)
class Segment:
    """What was said in one stretch of speech.

    Attributes:
        start, end: seconds from the beginning; from the voice detector, the model gives no times.
        text: the transcription, on one line.
        translation: on one line; None if none was asked for, empty if the model gave none.
        doubtful: it looks like something else than what was said, and did so when asked for a second time.
    """

    start: float
    end: float
    text: str
    translation: str | None
    doubtful: bool = False


@dataclass(frozen=True)
class Transcription:
    """What was said in a recording.

    Attributes:
        text: all segments' texts, with a space between.
        segments: in order, not overlapping. Stretches without speech have none.
        language: as the caller gave it; None if the model was left to hear which it is.
        duration: seconds of sound that were listened to, on the file's clock: silence where the file has none.
        translation: all segments' translations, with a space between; None if none was asked for.
        stopped: `should_stop` said yes: these are the segments until then, and `duration` is the end of the last one.
            `after` goes on from them.
    """

    text: str
    segments: tuple[Segment, ...]
    language: str | None
    duration: float
    translation: str | None
    stopped: bool = False


class TranscriptionError(InputError):
    """A recording turned out to be damaged part of the way through.

    Attributes:
        partial: the transcription of everything before the damage.
    """

    def __init__(self, message: str, partial: Transcription) -> None:
        super().__init__(message)
        self.partial = partial


Progress = Callable[[float, float | None, Segment | None], None]


def transcribe(
    model: Gemma4,
    processor: Processor,
    source: AudioSource,
    language: str | None = None,
    translate_to: str | None = None,
    on_progress: Progress | None = None,
    after: Sequence[Segment] = (),
    *,
    threshold: float = 0.5,
    silence: float = LONG_PAUSE,
    max_utterance: float = LONGEST,
    should_stop: Callable[[], bool] | None = None,
) -> Transcription:
    """Write down what is said in a recording of any length.

    Memory does not grow with the length: the file is decoded as it is listened to, at most 28 s of it are held, and
    what the model has read of four segments. Segments are written down together, the first alone, then two, then four
    at a time: so stopping, or an interrupt such as Ctrl-C, loses up to four of them.

    Args:
        model, processor: from `load`, of a size that hears (e2b, e4b).
        source: a path, URL or bytes of anything PyAV opens, `(samples, rate)`, or float samples at 16 kHz.
        language: what is spoken, by English name or ISO 639-1 code; None leaves it to the model.
        translate_to: translate every segment into this language as well.
        on_progress: called with (seconds done, seconds in all or None if the file does not say, the segment just
            finished or None) after every block of sound and after every segment.
        after: the segments of an earlier, interrupted run over the same source: it goes on behind the last one.
        threshold: probability from which the detector takes sound for speech.
        silence: seconds without speech that end a segment, whatever its length.
        max_utterance: seconds after which a segment is cut, at a pause if there is one; 1 to 28.
        should_stop: asked between blocks of sound and between tokens; once it says yes, what has been transcribed so
            far is returned.

    What could not be decoded is left out, and said with `MediaWarning`.

    Raises:
        InputError: a model without ears, or a source that cannot be opened or is shorter than one token of sound.
        TranscriptionError: damage in the middle of the recording; what came before it is in its `partial`.
        ValueError: a language that is not one, or a setting out of its range.
    """
    cutter = ClipCutter(threshold=threshold, silence=silence, longest=max_utterance)
    stop_asked = StopAsked(should_stop)
    scribe = Scribe(model, processor, language, translate_to, stop_asked)
    name = source_name(source, "sound")
    if isinstance(source, FileSource):
        source = resolve_source(source, "sound")  # a URL is fetched once, not once more for its duration
    joints: list[float] = []
    blocks = stream_audio(source, joints=joints)
    total = _seconds_stated(source)

    heard = 0
    segments = list(after)
    skipped = round(segments[-1].end * SAMPLE_RATE) if segments else 0
    waiting = _WaitingClips(scribe, stop_asked)

    def keep(answered: Iterable[tuple[_Stretch, Answer]]) -> None:
        for (start, end), answer in answered:
            segment = Segment(
                (skipped + start) / SAMPLE_RATE,
                (skipped + end) / SAMPLE_RATE,
                answer.text,
                answer.translation,
                answer.doubtful,
            )
            if segment.text or segment.translation:
                segments.append(segment)
                if on_progress is not None:
                    on_progress(segment.end, total, segment)

    damage: InputError | None = None
    for block in _until_damage(blocks):
        if stop_asked():
            break
        if isinstance(block, InputError):
            damage = block
            break
        known, heard = heard, heard + len(block)
        if heard <= skipped:
            continue
        while joints:
            cutter.join(round(joints.pop(0) * SAMPLE_RATE) - skipped)
        for clip in cutter.push(block[max(0, skipped - known) :]):
            keep(waiting.add(clip))
        if on_progress is not None:
            done = cutter.settled if waiting.start is None else waiting.start
            on_progress((skipped + done) / SAMPLE_RATE, total, None)
    if frame_count(heard) == 0 and not stop_asked.said_yes:
        raise InputError(f"{name} is too short to say anything ({heard} samples at 16 kHz): check the recording")
    for clip in () if stop_asked() else cutter.finish():
        keep(waiting.add(clip))
    if not stop_asked():
        keep(waiting.answers())
    if stop_asked.said_yes:
        heard = round(segments[-1].end * SAMPLE_RATE) if segments else 0
    elif on_progress is not None:
        on_progress(heard / SAMPLE_RATE, total, None)

    result = Transcription(
        text=_joined(segment.text for segment in segments),
        segments=tuple(segments),
        language=language,
        duration=heard / SAMPLE_RATE,
        translation=None if translate_to is None else _joined(segment.translation or "" for segment in segments),
        stopped=stop_asked.said_yes,
    )
    if damage is not None and not result.stopped:
        raise TranscriptionError(f"{damage} (the first {result.duration:.1f} s were transcribed)", result) from damage
    return result


def _seconds_stated(source: AudioSource) -> float | None:
    """How long the sound is to be, before it is listened to."""
    if isinstance(source, FileSource):
        return audio_duration(source)
    samples, rate = source if isinstance(source, tuple) else (source, SAMPLE_RATE)
    return max(np.shape(samples), default=0) / rate  # the longer axis counts samples, the other one channels


def _until_damage(blocks: Iterator[FloatArray]) -> Iterator[FloatArray | InputError]:
    """The blocks; where they break off half-way, the reason in place of the next one."""
    heard = False
    while True:
        try:
            block = next(blocks)
        except StopIteration:
            return
        except InputError as error:
            if not heard:
                raise
            yield error
            return
        heard = True
        yield block


class _WaitingClips:
    """Clips that have been read, and are written down once there are enough of them for one decode.

    The first one is written down at once, and then twice as many as before, up to `_TOGETHER`: of a short recording
    something is soon to be seen, a long one goes as fast as it can.
    """

    def __init__(self, scribe: Scribe, should_stop: Callable[[], bool]) -> None:
        self._scribe = scribe
        self._should_stop = should_stop
        self._stretches: list[_Stretch] = []
        self._read: list[tuple[Caches, float]] = []  # what `answer_all` takes
        self._enough = 1

    @property
    def start(self) -> int | None:
        """The first sample of the first clip that waits."""
        return self._stretches[0][0] if self._stretches else None

    def add(self, clip: Clip) -> Iterable[tuple[_Stretch, Answer]]:
        """Read a clip; if there are enough now, the answers."""
        hearing = self._scribe.new_clip()
        samples, length = levelled(clip.samples), len(clip.samples)
        for start in range(0, length, _BLOCK):
            if self._should_stop():
                return ()
            hearing.hear(samples[start : start + _BLOCK])
        self._stretches.append((clip.start, clip.end))
        self._read.append((hearing.end(length), length / SAMPLE_RATE))
        if len(self._read) < self._enough:
            return ()
        self._enough = min(2 * self._enough, _TOGETHER)
        return self.answers()

    def answers(self) -> Iterable[tuple[_Stretch, Answer]]:
        """The answers to all clips that wait, in order, as far as it was not stopped; none waits any more."""
        stretches, read = self._stretches, self._read
        self._stretches, self._read = [], []
        return zip(stretches, self._scribe.answer_all(read), strict=False) if read else ()


def _joined(texts: Iterable[str]) -> str:
    return " ".join(text for text in texts if text)
