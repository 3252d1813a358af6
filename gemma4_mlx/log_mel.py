"""Samples → log-mel frames, the front end of Gemma 4's audio encoder. NumPy only; no files, no resampling.

The framing is plain arithmetic on sample counts, so that a stream can be cut anywhere: frame t covers the samples
160 t - 160 … 160 t + 159 of a clip (zeros before its start) and exists once sample 160 t + 160 does.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
WINDOW = 320  # 20 ms
HOP = 160  # 10 ms
LEAD = WINDOW // 2  # zeros in front of a clip, once
# The reference cuts frames of 321 samples and drops the last one (room for a pre-emphasis it does not use), so a
# frame exists only when the sample after its window does.
SPAN = WINDOW + 1
FFT = 512
MEL_BINS = 128
MEL_FLOOR = 1e-3
# Two convolutions of stride 2 turn four mel frames into one soft token of 40 ms.
FRAMES_PER_TOKEN = 4

FloatArray = npt.NDArray[np.float32]


def frame_count(samples: int) -> int:
    """How many log-mel frames a clip of `samples` at 16 kHz has: (samples - 1) // 160, none if it is empty."""
    return max(0, samples - 1) // HOP


def soft_token_count(samples: int) -> int:
    """How many soft tokens a clip of `samples` at 16 kHz has: one for every four frames, rounded up."""
    return -(-frame_count(samples) // FRAMES_PER_TOKEN)


def log_mel(samples: FloatArray) -> FloatArray:
    """Log-mel frames of a whole clip.

    Args:
        samples: float32 `[n]`, mono, 16 kHz, in [-1, 1].

    Returns:
        float32 `[(n - 1) // 160, 128]`.
    """
    return log_mel_frames(np.concatenate([np.zeros(LEAD, np.float32), samples.astype(np.float32, copy=False)]))


def log_mel_frames(padded: FloatArray) -> FloatArray:
    """Log-mel frames of a part of a clip. The clip's 160 leading zeros are in its first part.

    Frame t reads `padded[160 t : 160 t + 320]`. A stream calls this again and again: it drops the first
    `frames * 160` samples after each call and puts new ones behind the rest. The frames are those of the whole clip.

    Each frame: periodic Hann window, 512-point FFT, magnitude (not power), mel filters, ln(mel + 0.001). Nothing is
    normalised over the clip.

    Args:
        padded: float32 `[m]`.

    Returns:
        float32 `[max(0, (m - 321) // 160 + 1), 128]`.
    """
    if len(padded) < SPAN:
        return np.zeros((0, MEL_BINS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, SPAN)[::HOP, :WINDOW]  # [frames, 320]
    # A float32 FFT is what the reference runs; float64 here would move the quiet bins of loud frames away from it.
    spectrum = np.abs(np.fft.rfft(frames * _hann(), n=FFT, axis=-1))  # [frames, 257]
    return np.log(spectrum @ mel_filters() + MEL_FLOOR).astype(np.float32)


@lru_cache(maxsize=1)
def mel_filters() -> npt.NDArray[np.float64]:
    """`[257, 128]` triangular filters on the HTK mel scale, 0 to 8000 Hz, peak 1, no area normalisation.

    The recipe (Young et al., The HTK Book, section 5.6): mel(f) = 2595 log10(1 + f / 700). Take 130 points evenly
    spaced in mel from mel(0) to mel(8000) and turn them back to Hz; filter i rises from point i to point i + 1 and
    falls to point i + 2, linearly in Hz, and is sampled at the 257 FFT bins, 31.25 Hz apart.
    The lowest filters are narrower than a bin and some hold no bin at all: they stay zero, as in the reference.
    """
    top = 2595.0 * np.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    points = 700.0 * (10.0 ** (np.linspace(0.0, top, MEL_BINS + 2) / 2595.0) - 1.0)  # Hz
    bins = np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1)[:, None]  # Hz
    width = np.diff(points)
    rising = (bins - points[:-2]) / width[:-1]
    falling = (points[2:] - bins) / width[1:]
    return np.maximum(0.0, np.minimum(rising, falling))


@lru_cache(maxsize=1)
def _hann() -> FloatArray:
    """Periodic Hann: the window of a 321-point symmetric one without its last point."""
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
