"""Channels → one: their mean, but for channels that cancel each other out in it.

A microphone wired the wrong way round, or a balanced line plugged into a stereo jack, gives a right channel that is the
left one upside down: the mean of the two is silence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..log_mel import FloatArray

# Unrelated channels, and one that speaks beside silent ones, leave a mean whose power is an n-th of that of one channel
# on average; equal ones leave n times as much, opposite ones nothing. Under a fifth of what unrelated ones leave is
# taken for opposite, until it is more than half of it.
_CANCELS = 1 / 5
_CANCELS_NO_MORE = 1 / 2
_HALF_LIFE_SECONDS = 0.25
"""How long what was heard counts: the power of that long ago has half the weight."""


class Downmix:
    """Mixes one stream of sound down to mono, block by block, by what has been heard so far.

    Sound whose channels do not cancel comes out as the plain mean, to the bit.
    """

    def __init__(self) -> None:
        self._covariance: npt.NDArray[np.float64] | None = None
        self._signs: npt.NDArray[np.float32] | None = None  # of the channels, while they cancel

    def mono(self, samples: npt.NDArray[np.floating], rate: float) -> FloatArray:
        """Samples `[n, channels]` → float32 `[n]`."""
        mean = samples.mean(axis=1).astype(np.float32, copy=False)
        length, channels = samples.shape
        if channels == 1 or not length:
            return mean
        before, self._signs = self._signs, self._signs_after(samples, rate)
        if before is None and self._signs is None:
            return mean
        # From one sign to another over the whole block, so that no click is heard.
        plain = np.ones(channels, np.float32)
        begin, end = (plain if signs is None else signs for signs in (before, self._signs))
        if len(begin) != channels:  # the file went on with other channels
            begin = end
        slope = np.linspace(0, 1, length, dtype=np.float32)[:, None]
        mixed: FloatArray = (samples * (begin + (end - begin) * slope)).mean(axis=1).astype(np.float32)
        return mixed

    def _signs_after(self, samples: npt.NDArray[np.floating], rate: float) -> npt.NDArray[np.float32] | None:
        length, channels = samples.shape
        wide = samples.astype(np.float64)
        with np.errstate(all="ignore"):
            covariance = wide.T @ wide  # [channels, channels]
            if not np.isfinite(covariance).all():  # whoever asked for the mix finds out
                return self._signs
            if self._covariance is not None and len(self._covariance) == channels:
                covariance += self._covariance * 0.5 ** (length / rate / _HALF_LIFE_SECONDS)
            self._covariance = covariance
            left_of_mean = covariance.sum() / channels
            unrelated = float(np.trace(covariance)) / channels
            if not left_of_mean < unrelated * (_CANCELS if self._signs is None else _CANCELS_NO_MORE):
                return None
        loudest = int(np.argmax(np.diag(covariance)))
        signs = np.where(covariance[loudest] < 0, -1, 1).astype(np.float32)
        # Which of two is the louder may change all the time. The way from one sign to the other leads through silence.
        turned = self._signs is not None and len(self._signs) == channels and float(signs @ self._signs) < 0
        return -signs if turned else signs
