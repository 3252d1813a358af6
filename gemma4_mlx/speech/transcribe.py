"""Speech of any length → text, with times and, if asked for, a translation.

The sound is cut at pauses into clips the model can hold, and each clip is one question to it. Sound that arrives while
it is spoken goes through `live`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..device_errors import device_errors
from ..errors import InputError
from ..generation.should_stop import StopAsked
from ..log_mel import SAMPLE_RATE, FloatArray, frame_count
from ..processing.audio import AudioSource, audio_duration, stream_audio
from ..processing.loudness import levelled
from ..processing.sources import FileSource, resolve_source, source_name
from .clip_transcriber import Answer, ClipTranscriber
from .segmenter import FILE, Clip, ClipCollector, Segmenter
from .subtitles import to_srt, to_vtt

if TYPE_CHECKING:
    from ..model import Gemma4
    from ..model.cache import Caches
    from ..processing import Processor


# Segments in one decode. On a processor, writing four together takes 0.7 to 0.9 of the time it takes one by one, and
# eight hardly less (bench/segments.py). More would also lose more to an interrupt and hold more memory: what the model
# has read of a segment, 38 MB for the longest in E4B, and about as much again while it is written down.
_TOGETHER = 4
# A clip is read ten seconds at a time, as much as the tower encodes in one go; in between one can stop.
_PIECE = 10 * SAMPLE_RATE


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

    def srt(self) -> str:
        """The segments as an .srt file."""
        return to_srt(self.segments)

    def vtt(self) -> str:
        """The segments as a .vtt file."""
        return to_vtt(self.segments)


class TranscriptionError(InputError):
    """A recording turned out to be damaged part of the way through.

    Attributes:
        partial: the transcription of everything before the damage.
    """

    def __init__(self, message: str, partial: Transcription) -> None:
        super().__init__(message, partial)
        self.partial = partial

    def __str__(self) -> str:
        return str(self.args[0])


Progress = Callable[[float, float | None, Segment | None], None]


@device_errors()
def transcribe(
    model: Gemma4,
    processor: Processor,
    source: AudioSource,
    language: str | None = None,
    translate_to: str | None = None,
    on_progress: Progress | None = None,
    after: Sequence[Segment] = (),
    *,
    threshold: float = FILE.threshold,
    silence: float = FILE.silence,
    max_utterance: float = FILE.longest,
    should_stop: Callable[[], bool] | None = None,
    words: Iterable[str] | None = None,
) -> Transcription:
    """Write down what is said in a recording of any length.

    Memory does not grow with the length: the file is decoded as it is listened to, at most 28 s of it are held, and
    what the model has read of four segments. Segments are written down together, the first alone, then two, then four
    at a time: so stopping, or an interrupt such as Ctrl-C, loses up to four of them.

    Args:
        model, processor: from `load`, of a size that hears (e2b, e4b, 12b).
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
        words: names and terms that may be said, as they are to be spelled; at most 100. They are put into the prompt,
            so they are a hint: a model may miss one, or write one that nobody said.

    What could not be decoded is left out, and said with `MediaWarning`.

    Raises:
        InputError: a model that takes no sound, or a source that cannot be opened or is shorter than one token of
            sound.
        TranscriptionError: damage in the middle of the recording; what came before it is in its `partial`.
        OutOfMemoryError, DeviceError: memory ran out, or the GPU failed. `on_progress` has been given the segments
            until then, and `after` goes on from them.
        ValueError: a language that is not one, words that cannot be used, or a setting out of its range.
    """
    segmenter = Segmenter(replace(FILE, threshold=threshold, silence=silence, longest=max_utterance))
    stop_asked = StopAsked(should_stop)
    transcriber = ClipTranscriber(model, processor, language, translate_to, stop_asked, words)
    recording = _Recording(source, begin=round(after[-1].end * SAMPLE_RATE) if after else 0)
    segments = _Segments(transcriber, recording, after, on_progress, stop_asked)
    clips = ClipCollector()
    for block in recording:
        if stop_asked():
            break
        for joint in recording.new_joints():
            segmenter.join(joint)
        segments.add(clips.add(segmenter.push(block)))
        segments.tell_progress(segmenter.settled)
    if not stop_asked():
        recording.check_length()
        segments.add(clips.add(segmenter.finish()))
        segments.write_waiting()
    if stop_asked.said_yes:
        duration = segments.done[-1].end if segments.done else 0.0
    else:
        duration = recording.heard / SAMPLE_RATE
        segments.tell_progress(recording.heard - recording.begin)

    result = Transcription(
        text=_joined(segment.text for segment in segments.done),
        segments=tuple(segments.done),
        language=language,
        duration=duration,
        translation=None if translate_to is None else _joined(segment.translation or "" for segment in segments.done),
        stopped=stop_asked.said_yes,
    )
    if recording.damage is not None and not result.stopped:
        message = f"{recording.damage} (the first {duration:.1f} s were transcribed)"
        raise TranscriptionError(message, result) from recording.damage
    return result


class _Recording:
    """The blocks of a recording behind its first `begin` samples, with what becomes known of it on the way.

    Attributes:
        begin: samples that are left out.
        heard: samples decoded so far, those left out included.
        total: its length in seconds as the file states it; None if it states none.
        damage: why it broke off half-way; None if it has not.
    """

    def __init__(self, source: AudioSource, begin: int) -> None:
        self.begin = begin
        self.heard = 0
        self.damage: InputError | None = None
        self._name = source_name(source, "sound")
        if isinstance(source, FileSource):
            source = resolve_source(source, "sound")  # a URL is fetched once, not once more for its duration
        self._joints: list[float] = []
        self._blocks = stream_audio(source, joints=self._joints)
        self.total = _seconds_stated(source)

    def __iter__(self) -> Iterator[FloatArray]:
        try:
            for block in self._blocks:
                known, self.heard = self.heard, self.heard + len(block)
                if self.heard > self.begin:
                    yield block[max(0, self.begin - known) :]
        except InputError as error:
            if not self.heard:
                raise
            self.damage = error

    def new_joints(self) -> list[int]:
        """Where other recordings begin in what has been decoded since the last call, in samples behind `begin`."""
        joints = [round(joint * SAMPLE_RATE) - self.begin for joint in self._joints]
        self._joints.clear()
        return joints

    def check_length(self) -> None:
        """Raises InputError if all of it was shorter than one token of sound."""
        if frame_count(self.heard) == 0:
            raise InputError(
                f"{self._name} is too short to say anything ({self.heard} samples at 16 kHz): check the recording"
            )


def _seconds_stated(source: AudioSource) -> float | None:
    """How long the sound is, as its file states it."""
    if isinstance(source, FileSource):
        return audio_duration(source)
    samples, rate = source if isinstance(source, tuple) else (source, SAMPLE_RATE)
    return max(np.shape(samples), default=0) / rate  # the longer axis counts samples, the other one channels


class _Segments:
    """What has been written down of a recording, and the clips that wait until there are enough of them to decode.

    The first clip is written down at once, and then twice as many as before, up to `_TOGETHER`: of a short recording
    something is soon to be seen, a long one goes as fast as it can.

    Attributes:
        done: the segments so far, in order.
    """

    def __init__(
        self,
        transcriber: ClipTranscriber,
        recording: _Recording,
        done: Sequence[Segment],
        on_progress: Progress | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self.done = list(done)
        self._transcriber = transcriber
        self._recording = recording
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._waiting: list[Clip] = []
        self._read: list[tuple[Caches, float]] = []  # the same clips, as `answer_all` takes them
        self._enough = 1

    def add(self, clips: Iterable[Clip]) -> None:
        """Read clips, and write down all that wait whenever there are enough."""
        for clip in clips:
            in_progress, length = self._transcriber.new_clip(), len(clip.samples)
            samples = levelled(clip.samples)
            for at in range(0, length, _PIECE):
                if self._should_stop():
                    return
                in_progress.feed(samples[at : at + _PIECE])
            self._waiting.append(clip)
            self._read.append((in_progress.end(length), length / SAMPLE_RATE))
            if len(self._waiting) >= self._enough:
                self._enough = min(2 * self._enough, _TOGETHER)
                self.write_waiting()

    def write_waiting(self) -> None:
        """Write down all clips that wait; once stopped, no more."""
        waiting, read = self._waiting, self._read
        self._waiting, self._read = [], []
        if not waiting or self._should_stop():
            return
        for clip, answer in zip(waiting, self._transcriber.answer_all(read), strict=False):  # fewer if it is stopped
            if answer.text or answer.translation:
                self._keep(clip, answer)

    def tell_progress(self, samples: int) -> None:
        """Report what is done: `samples` of the recording are cut into clips, without the clips that wait."""
        if self._on_progress is not None:
            done = self._waiting[0].start if self._waiting else samples
            self._on_progress(self._seconds(done), self._recording.total, None)

    def _keep(self, clip: Clip, answer: Answer) -> None:
        start, end = self._seconds(clip.start), self._seconds(clip.end)
        segment = Segment(start, end, answer.text, answer.translation, answer.doubtful)
        self.done.append(segment)
        if self._on_progress is not None:
            self._on_progress(end, self._recording.total, segment)

    def _seconds(self, sample: int) -> float:
        """A sample's time in the whole recording."""
        return (self._recording.begin + sample) / SAMPLE_RATE


def _joined(texts: Iterable[str]) -> str:
    return " ".join(text for text in texts if text)
