"""A GPU that fails at a chosen moment, with MLX's own words, and leaves garbage in what it was writing.

Not a test itself. MLX's evaluations, and looks at its arrays, are counted; at
the chosen one the error comes in place of what was asked for, or after it. Then every cache there is in the process is
filled with noise: that is what a caller who goes on finds in the memory of kernels that did not finish.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from gemma4_mlx.model.audio_stream import ConformerStream
from gemma4_mlx.model.full_cache import FullCache
from gemma4_mlx.model.sliding_cache import SlidingCache

MESSAGES = (
    "[METAL] Command buffer execution failed: Insufficient Memory "
    "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "[metal::malloc] Attempting to allocate 9663676416 bytes which is greater than the maximum allowed buffer size of "
    "9534832640 bytes.",
    "[malloc] Unable to allocate 1073741824 bytes.",
    "[malloc_or_wait] Unable to allocate 1073741824 bytes.",
    "[metal::malloc] Resource limit (499000) exceeded.",
    "[METAL] Command buffer execution failed: Caused GPU Timeout Error "
    "(00000002:kIOGPUCommandBufferCallbackErrorTimeout)",
    "[METAL] Command buffer execution failed: Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)",
    "[METAL] Command buffer execution failed: Impacting Interactivity "
    "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)",
    "[METAL] Command buffer execution failed: Discarded (victim of GPU error/recovery) "
    "(00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)",
    "[METAL] Command buffer execution failed: Ignored (for causing prior/excessive GPU errors) "
    "(00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)",
    "[METAL] Command buffer execution failed: Invalid Resource "
    "(00000009:kIOGPUCommandBufferCallbackErrorInvalidResource)",
    "[metal::Device] Unable to load kernel sdpa_vector_bfloat16_t_256_256",
)


class Device:
    """What is asked of MLX, and where it fails.

    Args:
        fails_at: the number of the evaluation that does, from 1; None: none does.
        message: MLX's.
        late: the evaluation is done, and then the error comes.

    Attributes:
        count: evaluations so far.
        failed: whether it has.
    """

    def __init__(self, fails_at: int | None = None, message: str = MESSAGES[0], late: bool = False) -> None:
        self.count = 0
        self.failed = False
        self._fails_at = fails_at
        self._message = message
        self._late = late

    def asked(self, work: Callable[[], Any]) -> Any:
        """Do `work`, or fail."""
        self.count += 1
        if self.count != self._fails_at:
            return work()
        if self._late:
            work()
        self.failed = True
        fill_caches_with_noise()
        raise RuntimeError(self._message)


@contextmanager
def watched(device: Device) -> Iterator[Device]:
    """In the body everything that is asked of MLX is asked of `device`."""
    evaluate, evaluate_later, save, item, tolist = mx.eval, mx.async_eval, mx.save_safetensors, *_LOOKS
    array, asarray = np.array, np.asarray

    def look(numpy_function: Callable[..., Any]) -> Callable[..., Any]:
        def looked(value: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(value, mx.array):
                return device.asked(lambda: numpy_function(value, *arguments, **options))
            return numpy_function(value, *arguments, **options)

        return looked

    with (
        patch.object(mx, "eval", lambda *arrays: device.asked(lambda: evaluate(*arrays))),
        patch.object(mx, "async_eval", lambda *arrays: device.asked(lambda: evaluate_later(*arrays))),
        patch.object(mx, "save_safetensors", lambda *arguments: device.asked(lambda: save(*arguments))),
        patch.object(mx.array, "item", lambda self: device.asked(lambda: item(self))),
        patch.object(mx.array, "tolist", lambda self: device.asked(lambda: tolist(self))),
        patch.object(np, "array", look(array)),
        patch.object(np, "asarray", look(asarray)),
    ):
        yield device


_LOOKS = mx.array.item, mx.array.tolist
_LOOK = np.array
_EVALUATE = mx.eval


def fill_caches_with_noise() -> None:
    """Overwrite, in place, the keys and values of all caches in this process, and what streams of sound have heard."""
    for found in gc.get_objects():
        # By exact type: `isinstance` would wake up whatever is lazy among all the objects of torch.
        if type(found) in (FullCache, SlidingCache):
            _spoil(found.buffers)
        elif type(found) is ConformerStream:
            layers = [vars(layer).values() for layer in found._state.layers]
            _spoil([array for values in layers for array in values if isinstance(array, mx.array)])


def _spoil(arrays: Any) -> None:
    for _, array in tree_flatten(list(arrays)):
        try:
            _EVALUATE(array)
        except RuntimeError:  # not computed yet, and only another thread could
            continue
        noise = mx.random.normal(array.shape, scale=20.0, key=mx.random.key(array.size))
        word = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}[array.dtype.size]
        there, new = array.view(word), noise.astype(array.dtype).view(word)
        _EVALUATE(there, new)
        _LOOK(there, copy=False)[...] = _LOOK(new)
