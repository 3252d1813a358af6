"""The latest windows of a stream of sound, and whether somebody speaks in each.

What is kept and where to cut is decided by whoever reads them: `segmenter` for files, `utterances` for live sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from gemma4_mlx.log_mel import SAMPLE_RATE, FloatArray

WINDOW = 512
"""Samples the detector looks at in one go."""
# Silero's own distance between the probabilities at which speech begins and ends.
_HYSTERESIS = 0.15


def check_settings(threshold: float, silence: float, longest: float) -> None:
    """What speech is to be cut up by, in files and live.

    Args:
        threshold: probability from which a window is speech.
        silence: seconds without speech that end an utterance.
        longest: seconds an utterance may last; the model takes 30.

    Raises:
        ValueError: one of them is out of its range.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold is a probability between 0 and 1, not {threshold}")
    if not 0.1 <= silence <= 10:
        raise ValueError(f"the silence that ends an utterance is 0.1 to 10 seconds, not {silence}")
    if not 1 <= longest <= 28:
        raise ValueError(f"an utterance lasts at most 1 to 28 seconds, not {longest}")


def windows(seconds: float) -> int:
    """So many windows are the nearest to so many seconds."""
    return round(seconds * SAMPLE_RATE / WINDOW)


class HeardWindows:
    """Cuts sound into windows, asks the detector about each, and keeps them until they are forgotten.

    Windows are numbered from the beginning of the sound.

    Args:
        voice: probability of speech in a float32 `[512]` window at 16 kHz, called for each window in order.
        threshold: probability from which a window after silence is speech. After speech a little less is enough.

    Attributes:
        total: samples pushed so far.
    """

    def __init__(self, voice: Callable[[FloatArray], float], threshold: float) -> None:
        self._voice = voice
        self._on, self._off = threshold, max(threshold - _HYSTERESIS, threshold / 2)
        self._pending = np.zeros(0, np.float32)  # less than a window
        self._first = 0  # number of the first window kept
        self._kept: list[FloatArray] = []
        self._speech: list[bool] = []
        self.total = 0

    @property
    def now(self) -> int:
        """Windows known so far."""
        return self._first + len(self._kept)

    def push(self, samples: FloatArray) -> Iterator[None]:
        """Take float32 `[n]` more samples; stops after every window they complete, so that it can be looked at."""
        self.total += len(samples)
        samples = np.concatenate([self._pending, samples])
        whole = len(samples) - len(samples) % WINDOW
        self._pending = samples[whole:].copy()
        for at in range(0, whole, WINDOW):
            self._hear(samples[at : at + WINDOW].copy())
            yield

    def push_rest(self) -> Iterator[None]:
        """Fill what is left of less than a window up with silence; stops after that window, if there is one."""
        if len(self._pending):
            self._hear(np.pad(self._pending, (0, WINDOW - len(self._pending))))
            self._pending = np.zeros(0, np.float32)
            yield

    def _hear(self, window: FloatArray) -> None:
        threshold = self._off if self._speech and self._speech[-1] else self._on
        self._speech.append(self._voice(window) >= threshold)
        self._kept.append(window)

    def is_speech(self, window: int) -> bool:
        return self._speech[window - self._first]

    def speech(self, start: int, end: int) -> int:
        """How many windows from `start` to before `end` are speech."""
        return sum(self._speech[start - self._first : end - self._first])

    def last_speech(self, since: int | None = None) -> int | None:
        """One past the last window of speech, from window `since` on or of all that are kept; None if there is none."""
        first = self._first if since is None else since
        return next((end for end in range(self.now, first, -1) if self.is_speech(end - 1)), None)

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
