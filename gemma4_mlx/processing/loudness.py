"""Speech far quieter than any the models were trained on is made louder; everything else stays as it is, to the bit.

The features are logarithms with a floor (`log_mel.py`), and very quiet speech lies below it. Measured with the built-
in model on its eight recordings (36 words; they are as loud as -8 to -18 dB), made quieter step by step: 0 words
were wrong at 20 dB less, 1 at 30, 5 at 35, 21 at 40, and all 36 from 45 on. With this file: 0 at 45 dB less, 1 with
noise in the recordings.

Live sound is not levelled: the model reads it while it is spoken, before anybody knows how loud the sentence will be,
and systems adjust their microphones themselves.
"""

from __future__ import annotations

import numpy as np

from ..log_mel import SAMPLE_RATE, FloatArray

_FRAME = SAMPLE_RATE // 40
# How loud a clip is, in dB of full scale: the level that one in twenty of its frames of 25 ms passes. Speech is
# recorded at -10 to -30.
_LOUD = 0.95
_TOO_QUIET = -45.0
_TARGET = -25.0
_MOST_GAIN = 60.0
# Speech is loud and soft by turns. Noise is as loud all the time, and stays what it is.
_SOFT = 0.1
_LEAST_CONTRAST = 10.0


def levelled(samples: FloatArray) -> FloatArray:
    """Mono float32 `[n]` at 16 kHz; louder if it is very quiet speech, or else the same array."""
    count = len(samples) // _FRAME
    if count == 0:
        return samples
    frames = samples[: count * _FRAME].reshape(count, _FRAME)
    power = np.sort(np.mean(np.square(frames, dtype=np.float64), axis=1))
    soft, loud = (10 * np.log10(power[int(share * (count - 1))] + 1e-12) for share in (_SOFT, _LOUD))
    if loud >= _TOO_QUIET or loud - soft < _LEAST_CONTRAST:
        return samples
    gain = 10 ** (min(_TARGET - loud, _MOST_GAIN) / 20)
    # A click in a quiet recording must not leave full scale.
    peak = float(np.abs(samples).max())
    louder: FloatArray = samples * np.float32(min(gain, 1 / peak))
    return louder
