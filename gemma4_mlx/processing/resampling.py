"""Sound at any rate → 16 kHz, as one continuous stream."""

from __future__ import annotations

import numpy as np

from ..log_mel import SAMPLE_RATE, FloatArray


class Resampler:
    """A stream of mono sound at `rate` samples per second, which comes out at 16 kHz a little later than it goes in."""

    def __init__(self, rate: float) -> None:
        self._stream = None
        if rate != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def feed(self, samples: FloatArray) -> FloatArray:
        """Float32 `[n]` more samples → what they complete."""
        return samples if self._stream is None else self._stream.resample_chunk(samples)

    def finish(self) -> FloatArray:
        """The last samples, still inside the filter; nothing may be fed after them."""
        nothing = np.zeros(0, np.float32)
        return nothing if self._stream is None else self._stream.resample_chunk(nothing, last=True)
