"""The cache of a full-attention layer: every token, in order, packed to fewer bits on request."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from .attention_mask import Mask, attention_mask
from .layer_cache import STEP, KVCache, slots_with_room
from .packed_attention import KeysValues, as_keys_values, packed_or_plain


class FullCache(KVCache):
    """Every token, in order.

    Args:
        bits: 8 or 4 pack keys and values; None keeps them as they come.
    """

    def __init__(self, bits: int | None = None) -> None:
        super().__init__()
        self.bits = bits

    @classmethod
    def of_tokens(cls, offset: int, buffers: tuple[mx.array, ...], bits: int | None = None) -> FullCache:
        """The cache that holds the first `offset` tokens in `buffers`."""
        cache = cls(bits)
        cache.buffers, cache.offset = buffers, offset
        return cache

    @property
    def state(self) -> tuple[Any, ...]:
        return *self.buffers, self.offset

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        *buffers, self.offset = value
        self.buffers = tuple(buffers)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KeysValues:
        """Append `[B, kv_heads, L, head_dim]`; return all keys and values so far, oldest first, packed if they are."""
        new = packed_or_plain(keys, values, self.bits)
        end = self.offset + keys.shape[2]
        if end > self.capacity:
            self._grow(new, by=-(-(end - self.capacity) // STEP) * STEP)
        self._write(self.offset, new)
        self.offset = end
        return as_keys_values(self._used(), self.bits)

    def make_mask(self, length: int, window_size: int | None = None, return_array: bool = False) -> Mask:
        return attention_mask(length, self.offset, window_size, as_array=return_array)

    def size(self) -> int:
        return self.offset

    def make_room(self) -> None:
        wanted = slots_with_room(self.offset)
        if self.capacity < wanted:
            self._grow(self.buffers, by=wanted - self.capacity)

    def ordered(self) -> tuple[mx.array, ...]:
        return self._used()

    def can_rewind(self, offset: int) -> bool:
        return 0 <= offset <= self.offset
