"""Decoding one token through a compiled graph.

Building the graph of one step takes Python longer than small models take to run it: thousands of calls for E2B's 35
layers. Every step does the same with arrays of the same shapes, so the graph is traced once and then replayed. What
changes from step to step, the position above all, goes in as arrays; caches are written at a slot that is an array too,
and read whole, under a mask. Graphs are traced anew when a cache's buffer has grown (once in 256 tokens at the most).

With `MLX_DISABLE_COMPILE=1` in the environment MLX runs the same function uncompiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn

from .cache import KVCache, Mask, SlidingCache

if TYPE_CHECKING:
    from .gemma4 import Gemma4


class _SlotCache:
    """One layer's cache inside the traced graph: writes its token at a slot, shows the whole buffer under a mask."""

    def __init__(self, keys: mx.array, values: mx.array, offset: mx.array, slot: mx.array, mask: Mask):
        self.keys, self.values = keys, values
        self.offset = offset
        self._slot = slot
        self._mask = mask

    def make_mask(self, _length: int) -> Mask:
        return self._mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.keys = mx.slice_update(self.keys, keys, self._slot, axes=(2,))
        self.values = mx.slice_update(self.values, values, self._slot, axes=(2,))
        return self.keys, self.values


class DecodeStep:
    """`model(ids, cache=cache)` for one token a sequence, without the cost of building its graph.

    The logits are those of the uncompiled call up to the order in which kernels sum.
    """

    def __init__(self, model: Gemma4):
        self._model = model
        # A table on disk is no module: its rows are looked up outside the graph and handed in.
        self._table_in_memory = isinstance(getattr(model.language_model, "embed_tokens_per_layer", None), nn.Module)
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
        rows = None
        if not self._table_in_memory:
            ids = self._model.placeholders_as_pad(ids)
            rows = self._model.language_model.per_layer_rows(ids)
        for layer_cache in cache:
            layer_cache.make_room()
        offset = cache[0].offset
        windows = [layer_cache.window if isinstance(layer_cache, SlidingCache) else None for layer_cache in cache]
        # Constants of a trace: which rings are full, and so need no mask.
        full = [window is not None and offset >= window for window in windows]
        buffers = [(layer_cache.keys, layer_cache.values) for layer_cache in cache]
        logits, buffers = self._traced(ids, rows, mx.array(offset), buffers, windows, full)
        for layer_cache, (keys, values) in zip(cache, buffers, strict=True):
            layer_cache.keys, layer_cache.values = keys, values
            layer_cache.offset += 1
        return logits

    def _trace(
        self,
        ids: mx.array,
        rows: mx.array | None,
        offset: mx.array,
        buffers: list[tuple[mx.array, mx.array]],
        windows: list[int | None],
        full: list[bool],
    ) -> tuple[mx.array, list[tuple[mx.array, mx.array]]]:
        model, decoder = self._model, self._model.language_model
        masks: dict[Any, Mask] = {}
        cache = []
        for (keys, values), window, ring_is_full in zip(buffers, windows, full, strict=True):
            capacity = keys.shape[2]
            if (capacity, window) not in masks:
                masks[capacity, window] = None if ring_is_full else mx.arange(capacity) <= offset
            slot = (offset if window is None else offset % window).reshape(1)
            cache.append(_SlotCache(keys, values, offset, slot, masks[capacity, window]))
        ids = model.placeholders_as_pad(ids)
        embeddings = decoder.embed(ids)
        if rows is None:
            rows = decoder.per_layer_rows(ids)
        hidden = decoder(embeddings, decoder.per_layer_inputs(rows, embeddings), cache)
        return decoder.logits(hidden), [(layer_cache.keys, layer_cache.values) for layer_cache in cache]
