"""Whether there is memory for a prompt's keys and values, before any of it is read.

Only what plainly cannot fit is refused: the cache alone, without what computing takes, beside the decoder's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ..byte_sizes import byte_size, physical_memory
from ..errors import OutOfMemoryError
from ..model import Gemma4
from ..model.full_cache import FullCache
from ..model.layer_cache import KVCache
from ..model.packed_attention import GROUP_SIZE
from ..model.sliding_cache import SlidingCache


def check_room(model: Gemma4, cache: Sequence[KVCache], tokens: int) -> None:
    """Make sure that a cache of so many tokens is not larger than all the memory there is for it.

    Args:
        model: whose cache it is.
        cache: as it is now.
        tokens: that it will hold in all.

    Raises:
        OutOfMemoryError: it is.
    """
    memory = device_memory()
    if memory is None:
        return
    needed, weights = cache_bytes(model, cache, tokens), weight_bytes(model)
    room = max(0, memory - weights)
    # A model that is itself too large may run from swap all the same: then it is not the cache that cannot fit.
    if needed <= (room or memory):
        return
    on_gpu = mx.default_device() != mx.Device(mx.cpu)
    whose = "the GPU may use" if on_gpu else "this machine has"
    raised = "; sudo sysctl iogpu.wired_limit_mb=… lets the GPU have more" if on_gpu else ""
    raise OutOfMemoryError(
        f"the keys and values of {tokens:,} tokens take {byte_size(needed)}, and {byte_size(room)} are left for them "
        f"(of {byte_size(memory)} that {whose}, the weights take {byte_size(weights)}): "
        f"shorten the prompt, or take a smaller model or one of fewer bits{raised}",
        needed,
        room,
    )


def device_memory() -> int | None:
    """Bytes that the device may use in all; None where nothing says so.

    Of a Mac's GPU it is what macOS recommends, which `iogpu.wired_limit_mb` changes: beyond it work fails.
    """
    if mx.default_device() == mx.Device(mx.cpu):
        try:
            memory = physical_memory()
        except (OSError, ValueError):
            return None
        return memory if memory > 0 else None
    recommended = mx.device_info().get("max_recommended_working_set_size")
    return recommended if isinstance(recommended, int) and recommended > 0 else None


def cache_bytes(model: Gemma4, cache: Sequence[KVCache], tokens: int) -> int:
    """What a cache takes when it holds so many tokens of one sequence.

    Layers with full attention grow with every token, the others as far as their window.
    """
    text, size = model.config.text, model.language_model.norm.weight.dtype.size
    total = 0
    for i, layer in enumerate(cache):
        held = min(tokens, layer.window) if isinstance(layer, SlidingCache) else tokens
        channels = text.layer_head_dim(i)
        width = channels * size
        if isinstance(layer, FullCache) and layer.bits is not None:
            width = channels * layer.bits // 8 + 2 * size * (channels // GROUP_SIZE)  # with a scale and a bias a group
        total += 2 * held * text.layer_kv_heads(i) * width
    return total


def weight_bytes(model: Gemma4) -> int:
    """What the decoder's weights take in memory."""
    named: Any = tree_flatten(model.language_model.parameters())
    return sum(array.nbytes for _, array in named)
