"""A cache on disk: read a long prompt once, go on from it in another process.

The file is mlx-lm's (`mlx_lm.models.cache.save_prompt_cache`, version 0.32): either program reads the other's, as long
as the model is the same. Ours also names the model it belongs to, and is refused by another.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from ..checkpoint.headers import read_header
from ..device_errors import device_error, device_errors
from ..errors import CheckpointError, InputError
from ..model import Gemma4
from ..model.cache import Caches
from ..model.full_cache import FullCache
from ..model.layer_cache import KVCache
from ..model.packed_attention import GROUP_SIZE
from ..model.sliding_cache import SlidingCache

_MODEL_KEY = "gemma4_mlx_model"
_SAMPLE = 16  # numbers of a weight
_DEEPEST_NAME = 4  # layer, keys or values, which of the packed ones; and one more for others' metadata


def save_prompt_cache(path: str | Path, cache: Sequence[KVCache], model: Gemma4) -> None:
    """Write a cache to a file, whole or not at all.

    Args:
        path: of the file, by custom `*.safetensors`.
        cache: of `model`, not empty.
        model: what it was made with.

    Raises:
        ValueError: the cache is empty.
        OSError: the file cannot be written.
        DeviceError: the GPU failed; the cache is empty then.
    """
    if any(layer_cache.empty() for layer_cache in cache):
        raise ValueError("an empty cache holds nothing to save: read a prompt into it first")
    path = Path(path)
    with model.turns:
        states = [_mlx_lm_state(layer_cache) for layer_cache in cache]
    scalars: list[Any] = [""]  # mlx-lm's list begins with one, so that it is never empty
    arrays = {}
    flattened: Any = tree_flatten(states)
    for name, value in flattened:
        if not isinstance(value, mx.array):
            scalars.append((name, "scalar"))
            value = mx.array(value)
        arrays[name] = value
    metadata = [{_MODEL_KEY: model_fingerprint(model)}, [_mlx_lm_class(layer_cache) for layer_cache in cache], scalars]
    with device_errors(Caches.of(cache).forget), model.turns:
        write_whole(path, arrays, dict(tree_flatten(metadata)))


def write_whole(path: Path, arrays: dict[str, mx.array], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    # A name that nobody can guess and plant a link under; and what was said to a model is for its owner's eyes.
    try:
        handle, temporary = tempfile.mkstemp(".safetensors", f".{path.name[:200]}.", path.parent)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
    os.close(handle)
    beside = Path(temporary)
    try:
        mx.save_safetensors(str(beside), arrays, metadata)
        beside.replace(path)
    except RuntimeError as error:  # MLX's word for a file that cannot be written
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def load_prompt_cache(path: str | Path, model: Gemma4) -> Caches:
    """Read a cache that `save_prompt_cache` or mlx-lm wrote.

    Raises:
        InputError: the file is missing or damaged, or belongs to another model.
        DeviceError: the GPU failed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no prompt cache {path}")
    try:
        read_header(path)
    except CheckpointError as error:  # truncated, or no such file at all
        raise InputError(f"{path} is damaged or not a prompt cache: make it again") from error
    try:
        with model.turns:
            loaded: Any = mx.load(str(path), format="safetensors", return_metadata=True)
            arrays, flat = loaded
            for names in (flat, arrays):
                _check_names(names)
            described: Any = tree_unflatten(list(flat.items()))
            metadata, classes, scalars = described
            for name, _ in scalars[1:]:
                arrays[name] = arrays[name].item()
            states: Any = tree_unflatten(list(arrays.items()))
            cache = Caches(_from_mlx_lm(kind, state) for kind, state in zip(classes, states, strict=True))
            fits = _fits(cache, model)
            if fits:
                cache.evaluate()  # the file may change, and the next thread could not read it
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        if (failure := device_error(error)) is not None:
            raise failure from error
        raise InputError(f"{path} is not a prompt cache of Gemma 4: make it again") from error
    made_with = metadata.get(_MODEL_KEY) if isinstance(metadata, dict) else None
    if made_with not in (None, model_fingerprint(model)) or not fits:
        raise InputError(f"{path} was made with another model: load that one, or make it again")
    return cache


@device_errors()
def model_fingerprint(model: Gemma4) -> str:
    """Tells models apart by shape, precision and a sample of every weight of their decoders."""
    digest = hashlib.sha256(repr(model.config.text).encode())
    with model.turns:
        named: Any = tree_flatten(model.language_model.parameters())
        # The per-layer table is left out: it may be on disk.
        sampled = [(name, array) for name, array in sorted(named) if not name.startswith("embed_tokens_per_layer")]
        samples = [array.reshape(-1)[:_SAMPLE] for _, array in sampled]
        mx.eval(samples)
        for (name, array), sample in zip(sampled, samples, strict=True):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.array(sample if sample.dtype == mx.uint32 else sample.astype(mx.float32)).tobytes())
    return digest.hexdigest()


def _check_names(names: Iterable[str]) -> None:
    """Make sure that `tree_unflatten` builds no longer lists than there are names, nor deeper ones than a cache has.

    It takes `2.300000000` for an item of a list and makes all the items before.

    Raises:
        ValueError: it would.
    """
    items: dict[str, set[str]] = {}  # by what the name has before it
    for name in names:
        parts = name.split(".", maxsplit=_DEEPEST_NAME)
        if len(parts) > _DEEPEST_NAME:
            raise ValueError("a name of too many parts")
        for depth, part in enumerate(parts):
            items.setdefault(".".join(parts[:depth]), set()).add(part)
    for found in items.values():
        # Empty items have no names; mlx-lm's empty metadata are one.
        if any(_is_integer(part) and not 0 <= int(part) < len(found) + 2 for part in found):
            raise ValueError("a list with holes")


def _is_integer(part: str) -> bool:
    try:
        int(part)
    except ValueError:
        return False
    return True


def _fits(cache: Sequence[KVCache], model: Gemma4) -> bool:
    expected = model.make_cache()
    if len(cache) != len(expected) or len({layer_cache.offset for layer_cache in cache}) != 1:
        return False
    text = model.config.text
    for i, (ours, theirs) in enumerate(zip(expected, cache, strict=True)):
        if type(ours) is not type(theirs):
            return False
        if isinstance(theirs, SlidingCache) and theirs.window != text.sliding_window:
            return False
        columns = text.layer_head_dim(i)
        if isinstance(theirs, FullCache) and theirs.bits is not None:
            columns = columns * theirs.bits // 32  # 32-bit words
        if any(buffer.ndim != 4 or buffer.shape[2] != theirs.size() for buffer in theirs.buffers):
            return False
        if theirs.buffers[0].shape[1] != text.layer_kv_heads(i) or theirs.buffers[0].shape[3] != columns:
            return False
    return True


def _mlx_lm_class(cache: KVCache) -> str:
    if isinstance(cache, SlidingCache):
        return "RotatingKVCache"
    assert isinstance(cache, FullCache)
    return "KVCache" if cache.bits is None else "QuantizedKVCache"


def _mlx_lm_state(cache: KVCache) -> tuple[Any, ...]:
    """The state of mlx-lm's cache of the same kind that holds the same tokens."""
    used = cache.size()
    buffers = tuple(buffer[..., :used, :] for buffer in cache.buffers)
    if isinstance(cache, SlidingCache):
        # keep (attention sinks, none here), max_size, and the slot written last plus one.
        return *buffers, cache.offset, 0, cache.window, (cache.offset - 1) % cache.window + 1
    assert isinstance(cache, FullCache)
    if cache.bits is None:
        return *buffers, cache.offset
    return buffers[:3], buffers[3:], cache.offset, GROUP_SIZE, cache.bits


def _from_mlx_lm(kind: str, state: Sequence[Any]) -> KVCache:
    if kind == "RotatingKVCache":
        keys, values, offset, keep, window, next_slot = state
        if keep:
            raise ValueError("a cache with attention sinks")
        ordered = tuple(_oldest_first(array, int(offset), int(next_slot)) for array in (keys, values))
        return SlidingCache.of_tokens(int(window), int(offset), ordered)
    bits = None
    if kind == "KVCache":
        *buffers, offset = state
    elif kind == "QuantizedKVCache":
        keys, values, offset, group_size, bits = state
        if group_size != GROUP_SIZE:
            raise ValueError(f"groups of {group_size}")
        buffers, bits = [*keys, *values], int(bits)
    else:
        raise ValueError(f"a cache of kind {kind}")
    return FullCache.of_tokens(int(offset), tuple(buffer[..., : int(offset), :] for buffer in buffers), bits)


def _oldest_first(array: mx.array, offset: int, next_slot: int) -> mx.array:
    """mlx-lm's ring, whose oldest token is at `next_slot` once it has wrapped → its tokens in order.

    After a long prompt mlx-lm's holds up to one piece more than the window, in order.
    """
    length = array.shape[2]
    if next_slot == length:
        return array
    before = array[..., :next_slot, :]
    return mx.concatenate([array[..., next_slot:, :], before], axis=2) if offset >= length else before
