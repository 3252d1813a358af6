"""The 12B's ears: 640 samples (40 ms) → one soft token, through a norm and one linear. No frame hears another.

So sound that is still coming in gives bit for bit the tokens of the whole clip.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from ..log_mel import FloatArray
from .audio_stream import AudioStream
from .turns import Turns

# How many frames are projected at a time; the last group is filled up with zeros. MLX chooses a matrix product's kernel
# by its number of rows, and every kernel adds up in another order. With the same number of rows each time, a frame's
# result does not depend on the frames beside it.
_TOGETHER = 16


def project_frames(frames: mx.array, project: Callable[[mx.array], mx.array]) -> mx.array:
    """Frames `[n, samples_per_token]` → soft tokens `[n, hidden]`; `project` works on each row by itself."""
    count = len(frames)
    batches = max(1, -(-count // _TOGETHER))
    filled = mx.pad(frames, [(0, batches * _TOGETHER - count), (0, 0)])
    return mx.concatenate([project(batch) for batch in mx.split(filled, batches)])[:count]


class FrameStream(AudioStream):
    """Soft tokens of sound as it arrives: token t comes out once sample 640 (t + 1) is known.

    Args:
        project: frames `[n, samples_per_token]`, any n, → soft tokens `[n, hidden]`.
        samples_per_token: samples of a frame.
        dtype: of frames.
        turns: of the model.
    """

    def __init__(
        self, project: Callable[[mx.array], mx.array], samples_per_token: int, dtype: mx.Dtype, turns: Turns
    ) -> None:
        super().__init__(turns)
        self._project = project
        self._samples_per_token = samples_per_token
        self._dtype = dtype
        self._unread: FloatArray = np.zeros(0, np.float32)  # less than a frame

    def _encode(self, samples: FloatArray) -> mx.array:
        unread = np.concatenate([self._unread, samples])
        whole = len(unread) - len(unread) % self._samples_per_token
        self._unread = unread[whole:]
        return self._tokens(unread[:whole])

    def _rest(self) -> mx.array:
        missing = -len(self._unread) % self._samples_per_token
        return self._tokens(np.pad(self._unread, (0, missing)))

    def _tokens(self, samples: FloatArray) -> mx.array:
        frames = mx.array(samples.reshape(-1, self._samples_per_token)).astype(self._dtype)
        tokens = project_frames(frames, self._project)
        mx.async_eval(tokens)
        return tokens
