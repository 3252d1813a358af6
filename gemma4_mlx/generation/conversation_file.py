"""A conversation's cache as a file: a safetensors file whose metadata name the model it belongs to.

What a layer holds is stored as it stands, rings as rings, with the snapshots to go back to: after loading, the
conversation goes on, and back, as it would have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..checkpoint.headers import read_header
from ..errors import CheckpointError, InputError
from ..model import Gemma4
from ..model.cache import Caches, Snapshot
from ..model.full_cache import FullCache
from ..model.layer_cache import KVCache
from ..model.packed_attention import GROUP_SIZE
from ..model.sliding_cache import SlidingCache
from .prompt_cache import model_fingerprint, write_whole

_FORMAT = "gemma4-mlx conversation 1"
_FLOATS = (mx.float32, mx.bfloat16, mx.float16)
_BUFFERS = ("keys", "values")
_PACKED_BUFFERS = tuple(f"{name}.{part}" for name in _BUFFERS for part in ("packed", "scales", "biases"))


@dataclass(eq=False)
class Held:
    """What a conversation holds.

    Attributes:
        cache: the layers' caches.
        known: keys of the tokens it holds, in order, and perhaps of some that it does not hold (yet).
        prompt_tokens: of the latest prompt.
        reused: how many of them were held before it.
        snapshots: to go back to, in order.
    """

    cache: Caches
    known: list[int]
    prompt_tokens: int
    reused: int
    snapshots: list[Snapshot] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """How many tokens it holds, whatever happened on the way."""
        return min(len(self.known), self.cache.offset)


def save_conversation(path: Path, held: Held, model: Gemma4, kv_bits: int | None) -> None:
    """Write what a conversation holds to a file, whole or not at all. Errors are `ConversationCache.save`'s."""
    if not held.tokens:
        raise ValueError("an empty cache holds nothing to save: read a prompt into it first")
    with model.turns:
        cache = held.cache.copy()
        cache.rewind(held.tokens)
        snapshots = [snapshot for snapshot in held.snapshots if snapshot.offset <= cache.offset]
        arrays = {"known": mx.array(np.array(held.known[: cache.offset], np.int64))}
        for name, layer in _named_layers(cache, snapshots):
            buffers = layer.buffers if isinstance(layer, SlidingCache) else layer.ordered()
            arrays |= zip([f"{name}.{buffer}" for buffer in _buffer_names(layer)], buffers, strict=True)
        layout = {
            "kv_bits": kv_bits,
            "offset": cache.offset,
            "oldest": [layer.oldest for layer in cache if isinstance(layer, SlidingCache)],
            "prompt_tokens": held.prompt_tokens,
            "reused": held.reused,
            "snapshots": [[snapshot.offset, [ring.oldest for ring in snapshot.rings]] for snapshot in snapshots],
        }
        metadata = {"format": _FORMAT, "model": model_fingerprint(model), "layout": json.dumps(layout)}
        write_whole(path, arrays, metadata)


def load_conversation(path: Path, model: Gemma4) -> tuple[Held, int | None]:
    """What a conversation held when it was saved, and its `kv_bits`. Errors are `ConversationCache.load`'s."""
    if not path.is_file():
        raise InputError(f"there is no conversation {path}")
    damaged = f"{path} is damaged or not a conversation: begin it anew"
    try:
        read_header(path)  # everything in it lies within the file
        with model.turns:
            loaded: Any = mx.load(str(path), format="safetensors", return_metadata=True)
            arrays, metadata = loaded
            if metadata.get("format") != _FORMAT:
                raise InputError(damaged)
            if metadata.get("model") != model_fingerprint(model):
                raise InputError(f"{path} was made with another model: load that one, or begin the conversation anew")
            held, kv_bits = _held(arrays, json.loads(metadata["layout"]), model)
            mx.eval(arrays)  # once they are known to be what they must be
    except (CheckpointError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
        raise InputError(damaged) from error
    return held, kv_bits


def _named_layers(cache: Caches, snapshots: Sequence[Snapshot]) -> Iterator[tuple[str, KVCache]]:
    yield from ((f"layers.{i}", layer) for i, layer in enumerate(cache))
    for number, snapshot in enumerate(snapshots):
        yield from ((f"snapshots.{number}.{i}", ring) for i, ring in enumerate(snapshot.rings))


def _buffer_names(layer: KVCache) -> tuple[str, ...]:
    return _PACKED_BUFFERS if isinstance(layer, FullCache) and layer.bits is not None else _BUFFERS


def _held(arrays: dict[str, mx.array], layout: dict[str, Any], model: Gemma4) -> tuple[Held, int | None]:
    """What a file holds, each number and shape checked.

    Raises:
        ValueError, KeyError, TypeError: something is not as `save_conversation` writes it.
    """
    kv_bits = layout["kv_bits"]
    cache = model.make_cache(kv_bits)
    offset = _count(layout["offset"], 1, model.context_length)
    prompt_tokens = _count(layout["prompt_tokens"], 0, model.context_length)
    reused = _count(layout["reused"], 0, prompt_tokens)
    rings = [layer for layer in cache if isinstance(layer, SlidingCache)]
    snapshots, last = [], 1
    for at, oldest in layout["snapshots"]:
        last = _count(at, last, offset)
        snapshots.append(Snapshot(at, tuple(_blank_rings(rings, at, oldest))))
    oldest_now = iter(_blank_rings(rings, offset, layout["oldest"]))
    cache = Caches(next(oldest_now) if isinstance(layer, SlidingCache) else layer for layer in cache)
    heads = [(model.config.text.layer_kv_heads(i), model.config.text.layer_head_dim(i)) for i in range(len(cache))]
    ring_heads = [heads[i] for i, layer in enumerate(cache) if isinstance(layer, SlidingCache)]
    named = zip(_named_layers(cache, snapshots), [*heads, *ring_heads * len(snapshots)], strict=True)
    taken = {"known"}
    for (name, layer), (kv_heads, head_dim) in named:
        if isinstance(layer, FullCache):
            layer.offset = offset
        names = [f"{name}.{buffer}" for buffer in _buffer_names(layer)]
        taken.update(names)
        layer.buffers = tuple(arrays[each] for each in names)
        for buffer, columns, kinds in zip(layer.buffers, *_columns(layer, head_dim), strict=True):
            slots = buffer.shape[2] if buffer.ndim == 4 else -1
            most = layer.window if isinstance(layer, SlidingCache) else layer.size()
            if buffer.shape != (1, kv_heads, slots, columns) or not layer.size() <= slots <= most:
                raise ValueError(f"{name} has another shape")
            if buffer.dtype not in kinds or slots != layer.capacity:
                raise ValueError(f"{name} has another type")
    known = np.array(arrays["known"])
    if taken != arrays.keys() or known.dtype != np.int64 or known.shape != (offset,):
        raise ValueError("other tensors")
    if known.max() >= model.config.text.vocab_size:
        raise ValueError("tokens outside the vocabulary")
    return Held(cache, known.tolist(), prompt_tokens, reused, snapshots), kv_bits


def _blank_rings(like: Sequence[SlidingCache], offset: int, oldest: Sequence[int]) -> Iterator[SlidingCache]:
    """Rings that stand at `offset`, still without buffers."""
    for ring, first in zip(like, oldest, strict=True):
        blank = SlidingCache(ring.window)
        blank.offset = offset
        blank.oldest = _count(first, max(0, offset - ring.window), max(0, offset - ring.window + 1))
        yield blank


def _columns(layer: KVCache, head_dim: int) -> tuple[list[int], list[tuple[mx.Dtype, ...]]]:
    """Columns and types of a layer's buffers."""
    if isinstance(layer, FullCache) and layer.bits is not None:
        packed, groups = head_dim * layer.bits // 32, head_dim // GROUP_SIZE  # in 32-bit words
        return [packed, groups, groups] * 2, [(mx.uint32,), _FLOATS, _FLOATS] * 2
    return [head_dim] * 2, [_FLOATS] * 2


def _count(value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{value!r} is not between {least} and {most}")
    return value
