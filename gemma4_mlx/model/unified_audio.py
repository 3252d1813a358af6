"""The 12B's ears: 640 samples (40 ms) → one soft token, through a norm and one linear. No frame hears another.

So sound that is still coming in gives bit for bit the tokens of the whole clip.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from ..log_mel import FloatArray
from .audio_stream import AudioStream

# Frames are projected 16 at a time, the last ones filled up with zeros. MLX chooses a kernel by the number of rows (on
# a GPU, one row has a kernel of its own), and each kernel sums in its own order. With a fixed number of rows, a frame's
# result does not depend on how many come with it.
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
    """

    def __init__(self, project: Callable[[mx.array], mx.array], samples_per_token: int, dtype: mx.Dtype) -> None:
        super().__init__()
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
        mx.eval(tokens)
        return tokens
