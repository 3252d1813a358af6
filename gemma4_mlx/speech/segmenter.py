"""Where speech begins and ends: sound in, segments short enough for the model out, while they are being spoken.

Files and live sound are cut by the same segmenter. Where they differ is a `Cutting`: how much is kept around
speech, how long a silence ends a segment, and where one that grows too long is cut. Everything is counted in the
detector's windows of 32 ms; no model, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..log_mel import SAMPLE_RATE, FloatArray
from .vad import WINDOW, Voice, VoiceActivity, silero, windows

# Less speech than this in a whole segment is a click or a cough.
_LEAST_SPEECH = windows(0.16)
# A place to cut is judged with the windows beside it.
_SMOOTHING = 3

# Of a file: between two phrases people pause 0.3 s or more; a shorter gap may be the closed lips of a "p".
_PAUSE = windows(0.3)
# A pause this long is as good as any longer one.
_PAUSE_WORTH = windows(1.0)
# Of 28 s, cuts near five sevenths (20 s) still lie within the 512 tokens (20.5 s) that the small sizes' sliding layers
# see; under five twenty-eighths (5 s) there is too little context to recognise words by.
_TARGET = 5 / 7
_SHORTEST = 5 / 28
# Live: a segment that grows too long is cut in the later part of its length.
_CUT_FROM = 0.6


@dataclass(frozen=True)
class OpenSegment:
    """A segment that has become too long, window by window.

    Attributes:
        speech: whether each window is speech, bool `[n]`.
        power: mean square of each window, float64 `[n]`.
        tail: windows that are kept after speech.
    """

    speech: npt.NDArray[np.bool_]
    power: npt.NDArray[np.float64]
    tail: int


def best_pause(segment: OpenSegment) -> int:
    """Where to cut a segment whose end has been recorded already: at a long pause near five sevenths of it.

    Returns the window before which to cut. Without a pause it is the quietest moment of the later half.
    """
    length = len(segment.speech)
    target = _TARGET * length
    best, best_score = 0, -np.inf
    for begin, end in _pauses(segment.speech):
        cut = min((begin + end) // 2, begin + segment.tail)
        score = min(end - begin, _PAUSE_WORTH) / _PAUSE_WORTH - abs(cut - target) / target
        if cut < _SHORTEST * length:
            score -= 2.0  # still better than the middle of a word
        if score > best_score:
            best, best_score = cut, score
    if best:
        return best
    low = length // 2
    return low + 1 + int(np.argmin(_smooth(segment.power[low:])))


def quietest_moment(segment: OpenSegment) -> int:
    """Where to cut a segment that is still being spoken: after its last word, or at its quietest moment.

    Returns the window before which to cut.
    """
    length = len(segment.speech)
    last = int(np.flatnonzero(segment.speech)[-1]) + 1
    if length - last > segment.tail:
        return last + segment.tail
    low = round(length * _CUT_FROM)
    smooth = _smooth(segment.power[low - 1 :])
    # The latest of equals: the longer the segment, the more the model has to go by.
    return low + len(smooth) - 1 - int(np.argmin(smooth[::-1]))


def _pauses(speech: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Stretches without speech, as (first window, one past the last); not the one the segment begins with."""
    edges = np.flatnonzero(np.diff(speech, prepend=True, append=True))
    for begin, end in edges.reshape(-1, 2).tolist():
        if begin > 0 and end - begin >= _PAUSE:
            yield begin, end


def _smooth(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.convolve(power, np.ones(_SMOOTHING), mode="valid")


@dataclass(frozen=True)
class Cutting:
    """How sound is cut into segments.

    Attributes:
        silence: seconds without speech that end a segment, whatever its length.
        longest: seconds a segment may last, 1 to 28; the model takes 30.
        pre_roll: seconds kept before speech: the detector fires late, and a soft first sound is later still.
        choose_cut: where to cut a segment that has reached `longest`.
        threshold: probability from which the detector takes a window for speech.
        tail: seconds kept after speech: the last sound of a word is soft. What follows is held back until somebody
            speaks again, because a model writes words nobody said into a long silence.

    Raises:
        ValueError: a setting out of its range.
    """

    silence: float
    longest: float
    pre_roll: float
    choose_cut: Callable[[OpenSegment], int]
    threshold: float = 0.5
    tail: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"the threshold is a probability between 0 and 1, not {self.threshold}")
        if not 0.1 <= self.silence <= 10:
            raise ValueError(f"the silence that ends a segment is 0.1 to 10 seconds, not {self.silence}")
        if not 1 <= self.longest <= 28:
            raise ValueError(f"a segment may last 1 to 28 seconds (max_utterance), not {self.longest}")


FILE = Cutting(silence=2.0, longest=28.0, pre_roll=0.4, choose_cut=best_pause)
"""For sound that is there already: segments as long as the model reads well."""
LIVE = Cutting(silence=0.7, longest=20.0, pre_roll=0.5, choose_cut=quietest_moment)
"""For somebody who waits for the words: segments that end soon after a sentence does."""


@dataclass(frozen=True)
class Opened:
    """A segment begins at sample `start` (16 kHz, from the beginning of the sound)."""

    start: int


@dataclass(frozen=True)
class Sound:
    """The next samples of the open segment, float32 `[n]`, without a gap."""

    samples: FloatArray


@dataclass(frozen=True)
class Closed:
    """The open segment ends at sample `end`, which may lie before the end of its `Sound`.

    `spoken` is False when it turned out to be a click: nothing in it is worth writing down.
    """

    end: int
    spoken: bool


Step = Opened | Sound | Closed


class Segmenter:
    """Finds segments in a stream of sound. Holds no more than one of them.

    Segments do not overlap, and every window the detector takes for speech is in exactly one, clicks aside. Where
    speech goes on across a cut, the next segment starts at the very sample the last one ended at.

    Args:
        cutting: `FILE`, `LIVE`, or one of them with other settings.
        voice: another detector than Silero.
    """

    def __init__(self, cutting: Cutting, voice: Voice | None = None) -> None:
        self._voice = silero() if voice is None else voice
        self._threshold = cutting.threshold
        self._choose_cut = cutting.choose_cut
        self._silence, self._longest = windows(cutting.silence), windows(cutting.longest)
        self._pre_roll = windows(cutting.pre_roll)
        self._tail = min(windows(cutting.tail), self._silence)
        self._begin(origin=0)

    def _begin(self, origin: int) -> None:
        self._origin = origin  # sample at which window 0 begins
        self._activity = VoiceActivity(self._voice, self._threshold)
        self._joints: deque[int] = deque()  # windows at which another recording begins
        self._start: int | None = None  # of the open segment
        self._handed_on = 0  # windows before this one have been handed on
        self._last_end = 0
        self._last_cut = -1  # where a segment ended only because it was long enough

    @property
    def seconds(self) -> float:
        """How many seconds of sound have been pushed so far."""
        return (self._origin + self._activity.total) / SAMPLE_RATE

    @property
    def settled(self) -> int:
        """Samples, from the beginning, that no future segment will hold."""
        start = self._activity.now - self._pre_roll if self._start is None else self._start
        return self._sample(max(0, start, self._last_end))

    @property
    def speaking(self) -> bool:
        """Whether a segment is open."""
        return self._start is not None

    @property
    def spoken(self) -> float:
        """Seconds of speech in the open segment."""
        if self._start is None:
            return 0.0
        return int(self._activity.speech(self._start, self._activity.now).sum()) * WINDOW / SAMPLE_RATE

    @property
    def pause(self) -> float:
        """Seconds since the last speech in the open segment."""
        if self._start is None:
            return 0.0
        return (self._activity.now - self._last_speech(self._start)) * WINDOW / SAMPLE_RATE

    def join(self, sample: int) -> None:
        """Another recording begins at `sample`, after those named before. No segment holds sound of two recordings."""
        self._joints.append(round((sample - self._origin) / WINDOW))

    def push(self, samples: FloatArray) -> list[Step]:
        """Take float32 `[n]` more samples, and return the steps they lead to."""
        return self._hear(self._activity.split(samples))

    def finish(self) -> list[Step]:
        """The sound ends here: end the open segment, if there is one.

        More may be pushed afterwards, and its times go on.
        """
        steps = self._hear(self._activity.split_rest())
        if self._start is not None:
            steps += self._close(min(self._last_speech(self._start) + self._tail, self._activity.now))
        self._begin(self._origin + self._activity.total)
        return steps

    def _hear(self, new: Iterable[FloatArray]) -> list[Step]:
        steps: list[Step] = []
        for window in new:
            self._activity.hear(window)
            steps += self._next_window()
        return steps

    def _next_window(self) -> Iterator[Step]:
        now = self._activity.now
        joint = self._joint()
        if self._start is None:
            yield from self._open()
            return
        yield from self._hand_on()
        last = self._last_speech(self._start)
        if joint > self._start:
            last = self._activity.last_speech(self._start, joint) or joint
            yield from self._close(min(last + self._tail, joint))
        elif now - last >= self._silence:
            yield from self._close(last + self._tail)
        elif now - self._start >= self._longest:
            speech, power = self._activity.speech(self._start, now), self._activity.power(self._start, now)
            cut = self._start + self._choose_cut(OpenSegment(speech, power, self._tail))
            yield from self._close(cut, is_cut=True)

    def _joint(self) -> int:
        """The window at which the last recording told by now begins; 0 if none does."""
        joint = 0
        while self._joints and self._joints[0] <= self._activity.now:
            joint = self._joints.popleft()
        return joint

    def _open(self) -> Iterator[Step]:
        """Open a segment if speech is known that is in none."""
        speech = self._activity.next_speech(max(self._last_end, self._activity.first))
        if speech is None:
            self._activity.forget(max(self._last_end, self._activity.now - self._pre_roll))
            return
        start = max(self._last_end, speech - self._pre_roll)
        self._activity.forget(start)
        self._start = self._handed_on = start
        yield Opened(self._sample(start))
        yield from self._hand_on()

    def _hand_on(self) -> Iterator[Step]:
        """Hand on the sound that is sure to belong to the open segment: up to the tail after the last speech."""
        assert self._start is not None
        end = min(self._activity.now, self._last_speech(self._start) + self._tail)
        if end > self._handed_on:
            yield Sound(self._activity.samples(self._handed_on, end))
            self._handed_on = end

    def _close(self, end: int, is_cut: bool = False) -> Iterator[Step]:
        """End the open segment before window `end`; open the next one if speech is already known to follow.

        Args:
            is_cut: it ends because it is long enough, not because nobody speaks.
        """
        assert self._start is not None
        speech = int(self._activity.speech(self._start, end).sum())
        # Before and behind a cut without a gap is a part of something said, however short.
        is_part = is_cut or self._start == self._last_cut
        yield Closed(self._sample(end), speech >= _LEAST_SPEECH or (is_part and speech > 0))
        self._start, self._last_end = None, end
        self._last_cut = end if is_cut else -1
        yield from self._open()

    def _last_speech(self, start: int) -> int:
        """One past the last window of speech since `start`; an open segment has some."""
        end = self._activity.last_speech(start, self._activity.now)
        assert end is not None
        return end

    def _sample(self, window: int) -> int:
        """The sample, from the beginning, at which a window begins; at most all there are."""
        return self._origin + min(window * WINDOW, self._activity.total)


@dataclass(frozen=True)
class Clip:
    """The sound of a whole segment, as the model is given it.

    Attributes:
        start: first sample, counted at 16 kHz from the beginning of the sound.
        end: one past the last sample.
        samples: float32 `[end - start]`.
    """

    start: int
    end: int
    samples: FloatArray


class ClipCollector:
    """Joins a segmenter's steps to clips, where only whole segments are wanted."""

    def __init__(self) -> None:
        self._start = 0
        self._sound: list[FloatArray] = []

    def add(self, steps: Iterable[Step]) -> list[Clip]:
        """The clips that are complete with these steps; usually none."""
        clips: list[Clip] = []
        for step in steps:
            match step:
                case Opened(start):
                    self._start, self._sound = start, []
                case Sound(samples):
                    self._sound.append(samples)
                case Closed(end, spoken):
                    if spoken:
                        clips.append(Clip(self._start, end, np.concatenate(self._sound)[: end - self._start]))
                    self._sound = []
        return clips


def cut(blocks: Iterable[FloatArray], cutting: Cutting = FILE, voice: Voice | None = None) -> Iterator[Clip]:
    """Clips of a sound that comes in float32 blocks at 16 kHz, as soon as each is complete."""
    segmenter, clips = Segmenter(cutting, voice), ClipCollector()
    for block in blocks:
        yield from clips.add(segmenter.push(block))
    yield from clips.add(segmenter.finish())
