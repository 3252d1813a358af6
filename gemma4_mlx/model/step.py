"""Decoding one token through a compiled graph.

Building the graph of one step takes Python longer than small models take to run it: thousands of calls for E2B's 35
layers. Every step does the same with arrays of the same shapes, so the graph is traced once and then replayed. What
changes from step to step, the position above all, goes in as arrays; caches are written at a slot that is an array too,
and read whole, under a mask. Graphs are traced anew when a cache's buffer has grown (once in 256 tokens at the most).

With `MLX_DISABLE_COMPILE=1` in the environment MLX runs the same function uncompiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .attention_mask import Mask
from .cache import Caches
from .decoder import Decoder
from .full_cache import FullCache
from .layer_cache import KVCache
from .packed_attention import KeysValues, as_keys_values, packed_or_plain
from .sliding_cache import SlidingCache
from .traced import Traced

# A graph is kept for each size of batch and of buffer that occurs. A server meets many, and goes back to few.
_MOST_GRAPHS = 32


class Pending:
    """A step that has been built for ids which may still be being computed.

    Args:
        logits: float32 `[B, 1, vocab]`. They must not be evaluated before `known` has been called.
        read_rows: reads the ids' rows of a per-layer table on disk; None where there is none.

    Attributes:
        logits: the same array.
    """

    def __init__(self, logits: mx.array, read_rows: Callable[[np.ndarray], None] | None = None) -> None:
        self.logits = logits
        self._read_rows = read_rows
        self._waiting: list[mx.array] = []

    def queue(self, array: mx.array) -> None:
        """Have the device compute `array`, which is made from the logits, as soon as it can.

        That is at once, so that the device never waits for Python; or, where rows of a table on disk are missing, when
        the ids are `known`.
        """
        if self._read_rows is None:
            mx.async_eval(array)
        else:
            self._waiting.append(array)

    def known(self, ids: np.ndarray) -> None:
        """Say what the step's ids, int `[B]`, turned out to be. Only now may anything made of the step be evaluated."""
        if self._read_rows is not None:
            self._read_rows(ids)
            mx.async_eval(self._waiting)


class DecodeStep:
    """`model(ids, cache=cache)` for one token a sequence, without the cost of building its graph.

    The logits are those of the uncompiled call up to the order in which kernels sum.

    Args:
        decoder: the decoder.
        as_pad: ids, an `mx.array` or a NumPy one → the same with the pad id in place of every placeholder.
    """

    def __init__(self, decoder: Decoder, as_pad: Callable[[Any], Any]):
        self._decoder = decoder
        self._as_pad = as_pad
        # A table on disk is no module: its rows are looked up outside the graph and handed in.
        table = getattr(decoder, "embed_tokens_per_layer", None)
        self._table_on_disk: Any = None if isinstance(table, nn.Module) else table
        self._graphs: dict[tuple[bool, mx.Dtype, tuple[_LayerKind, ...]], Traced] = {}

    def __call__(self, ids: mx.array, cache: Sequence[KVCache]) -> mx.array:
        """Read one token.

        Args:
            ids: int `[B, 1]`.
            cache: what came before, at least one token; the new one is added to it.

        Returns:
            float32 `[B, 1, vocab]`.

        Raises:
            ValueError: the cache is empty.
        """
        pending = self.ahead(ids, cache)
        pending.known(np.array(ids)[:, 0])
        return pending.logits

    def ahead(self, ids: mx.array, cache: Sequence[KVCache], padding: mx.array | None = None) -> Pending:
        """Build the step for ids that are still being computed.

        Where the per-layer table is on disk, only the look-up waits for the ids; building the graph, which takes ten
        times as long, does not.

        Args:
            ids, cache: as for a call.
            padding: int `[B]`, from `Rows`; None: the rows are equally long.

        Raises:
            ValueError: the cache is empty.
        """
        if any(layer_cache.empty() for layer_cache in cache):
            raise ValueError("a step goes on from a prompt, and the cache is empty: call model(ids, cache=cache) first")
        rows, read_rows = self._rows_to_come(len(ids))
        for layer_cache in cache:
            layer_cache.make_room()
        buffers = [layer_cache.buffers for layer_cache in cache]
        kinds = tuple(_kind(layer_cache) for layer_cache in cache)
        offset = mx.array(Caches.of(cache).offset)
        # Weights of another dtype are traced anew, and what protects them while that is done is in `_run`.
        key = (padding is None, self._decoder.norm.weight.dtype, kinds)
        logits, buffers = self._run(key, ids, rows, offset, padding, buffers)
        for layer_cache, new in zip(cache, buffers, strict=True):
            layer_cache.add_written(new)
        return Pending(logits, read_rows)

    def _run(self, key: tuple[bool, mx.Dtype, tuple[_LayerKind, ...]], *arrays: Any) -> Any:
        graph = self._graphs.get(key)
        if graph is not None:
            return graph(*arrays)
        graph = Traced(partial(_trace, self._decoder, self._as_pad, key[2]), self._decoder)
        result = graph(*arrays)
        self._graphs[key] = graph
        if len(self._graphs) > _MOST_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        return result

    def _rows_to_come(self, count: int) -> tuple[mx.array | None, Callable[[np.ndarray], None] | None]:
        """Rows of a table on disk, and what reads them; neither where there is no such table."""
        if self._table_on_disk is None:
            return None, None
        rows, read = self._table_on_disk.rows_to_come(count)
        return rows, lambda ids: read(self._as_pad(ids))


@dataclass(frozen=True)
class _LayerKind:
    """All about a layer's cache that shapes the graph.

    Attributes:
        window: None: full attention.
        ring_is_full: every slot is in use, so that no mask is needed.
        bits: that keys and values are packed to; None: they are not.
        shape, dtype: of its buffers' first.
    """

    window: int | None
    ring_is_full: bool
    bits: int | None
    shape: tuple[int, ...]
    dtype: mx.Dtype


def _kind(cache: KVCache) -> _LayerKind:
    like = cache.buffers[0]
    if isinstance(cache, SlidingCache):
        return _LayerKind(cache.window, cache.offset >= cache.window, None, like.shape, like.dtype)
    assert isinstance(cache, FullCache)
    return _LayerKind(None, False, cache.bits, like.shape, like.dtype)


class _Slot:
    """One layer's cache inside the traced graph: writes its token into one slot, shows the whole buffer."""

    def __init__(self, kind: _LayerKind, buffers: tuple[mx.array, ...], slot_position: mx.array):
        self.buffers = buffers
        self._bits = kind.bits
        self._slot = (slot_position if kind.window is None else slot_position % kind.window).reshape(1)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KeysValues:
        pairs = zip(self.buffers, packed_or_plain(keys, values, self._bits), strict=True)
        self.buffers = tuple(mx.slice_update(buffer, new, self._slot, axes=(2,)) for buffer, new in pairs)
        return as_keys_values(self.buffers, self._bits)


def _trace(
    decoder: Decoder,
    as_pad: Callable[[Any], Any],
    kinds: Sequence[_LayerKind],
    ids: mx.array,
    rows: mx.array | None,
    slot_position: mx.array,
    padding: mx.array | None,
    buffers: list[tuple[mx.array, ...]],
) -> tuple[mx.array, list[tuple[mx.array, ...]]]:
    """The step as a function of arrays alone.

    Args:
        decoder, as_pad: of `DecodeStep`.
        kinds: of the layers' caches.
        ids: int `[B, 1]`.
        rows: of the per-layer table, where it is on disk.
        slot_position: where in the caches the tokens go.
        padding: int `[B]` or None. In a row with padding RoPE puts the token that much earlier.
        buffers: of the layers' caches.

    Returns:
        float32 `[B, 1, vocab]`, and the new buffers.
    """
    rope_position = slot_position if padding is None else slot_position - padding
    cache = [_Slot(kind, tuple(arrays), slot_position) for kind, arrays in zip(kinds, buffers, strict=True)]
    masks: dict[str, Mask] = {}
    for name, kind in zip(decoder.layer_types, kinds, strict=False):
        if name not in masks:
            masks[name] = _visible(kind, slot_position, padding)
    ids = as_pad(ids[:, 0])  # from here to the logits arrays have no L: [B, …]
    embeddings = decoder.embed(ids)
    if rows is None:
        rows = decoder.per_layer_rows(ids)
    hidden = decoder.run_layers(embeddings, decoder.per_layer_inputs(rows, embeddings), cache, masks, rope_position)
    return decoder.logits(hidden)[:, None], [slot.buffers for slot in cache]


def _visible(kind: _LayerKind, slot_position: mx.array, padding: mx.array | None) -> Mask:
    """Which slots the token at `slot_position` sees, once it is written.

    Returns:
        bool `[capacity]`; with padding `[B, 1, 1, capacity]`; None for all of them.
    """
    capacity = kind.shape[2]
    slots = mx.arange(capacity)
    if padding is None:
        return None if kind.ring_is_full else slots <= slot_position
    # A full ring holds the last `capacity` tokens.
    positions = slot_position - (slot_position - slots) % capacity if kind.ring_is_full else slots
    return ((positions >= padding[:, None]) & (positions <= slot_position))[:, None, None]
