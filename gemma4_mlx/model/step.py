"""Decoding one token through a compiled graph.

Building the graph of one step takes Python longer than small models take to run it: thousands of calls for E2B's 35
layers. Every step does the same with arrays of the same shapes, so the graph is traced once and then replayed. What
changes from step to step, the position above all, goes in as arrays; caches are written at a slot that is an array too,
and read whole, under a mask. Graphs are traced anew when a cache's buffer has grown (once in 256 tokens at the most).

With `MLX_DISABLE_COMPILE=1` in the environment MLX runs the same function uncompiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .cache import KeysValues, KVCache, Mask, SlidingCache, as_keys_values, packed_or_plain

if TYPE_CHECKING:
    from .gemma4 import Gemma4


# Called with ids int `[B]`: reads their rows of a table on disk into a graph that waits for them.
ReadRows = Callable[[np.ndarray], None]


class _SlotCache:
    """One layer's cache inside the traced graph: writes its token at a slot, shows the whole buffer under a mask.

    `offset` is where in the cache the token goes; the attribute of that name is where RoPE is to put it, which in rows
    with padding before them is earlier.
    """

    def __init__(
        self, kind: _Kind, buffers: tuple[mx.array, ...], offset: mx.array, padding: mx.array | None, mask: Mask
    ):
        window, _, self._bits = kind
        self.buffers = buffers
        self.offset = offset if padding is None else offset - padding
        self._slot = (offset if window is None else offset % window).reshape(1)
        self._mask = mask

    def make_mask(self, *_: int, **__: object) -> Mask:
        return self._mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KeysValues:
        pairs = zip(self.buffers, packed_or_plain(keys, values, self._bits), strict=True)
        self.buffers = tuple(mx.slice_update(buffer, new, self._slot, axes=(2,)) for buffer, new in pairs)
        return as_keys_values(self.buffers, self._bits)


class DecodeStep:
    """`model(ids, cache=cache)` for one token a sequence, without the cost of building its graph.

    The logits are those of the uncompiled call up to the order in which kernels sum.
    """

    def __init__(self, model: Gemma4):
        self._model = model
        # A table on disk is no module: its rows are looked up outside the graph and handed in.
        table = getattr(model.language_model, "embed_tokens_per_layer", None)
        self._table_on_disk: Any = None if isinstance(table, nn.Module) else table
        # The weights are inputs, not constants: who changes them changes the next step.
        self._traced = mx.compile(self._trace, inputs=[model.language_model.state])

    def __call__(self, ids: mx.array, cache: Sequence[KVCache]) -> mx.array:
        """Read one token.

        Args:
            ids: int `[B, 1]`.
            cache: what came before, at least one token; the new one is added to it.

        Returns:
            float32 `[B, 1, vocab]`.
        """
        logits, read_rows = self.ahead(ids, cache)
        if read_rows is not None:
            read_rows(np.array(ids)[:, 0])
        return logits

    def ahead(
        self, ids: mx.array, cache: Sequence[KVCache], padding: mx.array | None = None
    ) -> tuple[mx.array, ReadRows | None]:
        """Build the step for ids that are still being computed.

        Args:
            ids, cache: as for a call.
            padding: int `[B]`, what `join` returned with the cache; None: the rows are equally long.

        Returns:
            The logits of a call, and, where the per-layer table is on disk, what must be called with the ids, int
            `[B]`, before the logits or the cache are evaluated (None elsewhere). So only the lookup itself waits for
            the ids; the graph, which takes ten times as long, does not.
        """
        rows, read_rows = self._rows_to_come(len(ids))
        for layer_cache in cache:
            layer_cache.make_room()
        buffers = [layer_cache.buffers for layer_cache in cache]
        kinds = [_kind(layer_cache) for layer_cache in cache]
        logits, buffers = self._traced(ids, rows, mx.array(cache[0].offset), padding, buffers, kinds)
        for layer_cache, new in zip(cache, buffers, strict=True):
            layer_cache.buffers = tuple(new)
            layer_cache.offset += 1
        return logits, read_rows

    def _rows_to_come(self, count: int) -> tuple[mx.array | None, ReadRows | None]:
        """Rows of a table on disk, and what reads them; neither where there is no such table."""
        if self._table_on_disk is None:
            return None, None
        rows, read = self._table_on_disk.rows_to_come(count)
        config = self._model.config
        return rows, lambda ids: read(np.where(np.isin(ids, config.placeholder_ids), config.pad_token_id, ids))

    def _trace(
        self,
        ids: mx.array,
        rows: mx.array | None,
        offset: mx.array,
        padding: mx.array | None,
        buffers: list[tuple[mx.array, ...]],
        kinds: list[_Kind],
    ) -> tuple[mx.array, list[tuple[mx.array, ...]]]:
        model, decoder = self._model, self._model.language_model
        masks: dict[tuple[int, bool], Mask] = {}
        cache: list[Any] = []  # of _SlotCache, a cache as far as the decoder asks
        for kind, layer_buffers in zip(kinds, buffers, strict=True):
            capacity, ring_is_full = layer_buffers[0].shape[2], kind[1]
            if (capacity, ring_is_full) not in masks:
                masks[capacity, ring_is_full] = _visible(capacity, ring_is_full, offset, padding)
            cache.append(_SlotCache(kind, tuple(layer_buffers), offset, padding, masks[capacity, ring_is_full]))
        ids = model.placeholders_as_pad(ids[:, 0])  # from here on nothing has a length
        embeddings = decoder.embed(ids)
        if rows is None:
            rows = decoder.per_layer_rows(ids)
        hidden = decoder(embeddings, decoder.per_layer_inputs(rows, embeddings), cache)
        return decoder.logits(hidden)[:, None], [layer_cache.buffers for layer_cache in cache]


def _visible(capacity: int, ring_is_full: bool, offset: mx.array, padding: mx.array | None) -> Mask:
    """Which slots the token at `offset` sees, once it is written.

    Returns:
        bool `[capacity]`; with padding `[B, 1, 1, capacity]`; None for all of them.
    """
    slots = mx.arange(capacity)
    if padding is None:
        return None if ring_is_full else slots <= offset
    # A full ring holds the last `capacity` tokens.
    places = offset - (offset - slots) % capacity if ring_is_full else slots
    return ((places >= padding[:, None]) & (places <= offset))[:, None, None]


# What of a layer's cache shapes the graph: its window (None: full attention), whether its ring is full and so needs no
# mask, and the bits it is packed to (None: not packed).
_Kind = tuple[int | None, bool, int | None]


def _kind(cache: KVCache) -> _Kind:
    if isinstance(cache, SlidingCache):
        return cache.window, cache.offset >= cache.window, None
    return None, False, cache.bits
