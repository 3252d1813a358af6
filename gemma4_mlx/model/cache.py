"""Keys and values of the tokens already read, one cache per layer that owns keys and values.

Both kinds speak mlx-lm's cache interface (`update_and_fetch`, `offset`, `state`, `trim`, `make_mask`, …), so that
`mlx_lm.generate` runs the model; they are not mlx-lm's classes because importing any part of it imports transformers
(1–3 s). KV-shared layers have no cache: they read the arrays their source layer just returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Self

import mlx.core as mx
import numpy as np

from .packed_attention import PackedKeysValues, pack

_STEP = 256  # buffers grow by this many tokens: few reallocations, little waste

Mask = mx.array | str | None
KeysValues = tuple[mx.array, ...] | PackedKeysValues  # a pair of `[B, kv_heads, S, head_dim]`, or both packed


def attention_mask(
    length: int, past: int, window: int | None = None, image_blocks: np.ndarray | None = None, as_array: bool = False
) -> Mask:
    """Which of `past + length` keys each of the `length` new queries may see.

    Args:
        length: new tokens; their keys are the last `length`.
        past: keys before them, oldest first.
        window: a query sees itself and `window - 1` keys before it; None: all of them.
        image_blocks: int `[length]`, equal numbers for tokens of one image, -1 elsewhere: a query also sees the later
            tokens of its own image, never beyond the window to the left.
        as_array: always a boolean array, never the short forms.

    Returns:
        bool `[length, past + length]`, or the short forms that attention kernels take: `"causal"`, or None for one
        query that sees every key.
    """
    bounded = window is not None and past + length > window
    if image_blocks is None and not bounded and not as_array:
        return "causal" if length > 1 else None
    query = np.arange(past, past + length)[:, None]
    key = np.arange(past + length)[None, :]
    allowed = key <= query
    if image_blocks is not None:
        blocks = np.concatenate([np.full(past, -1), image_blocks])
        allowed |= (blocks[past:, None] == blocks[None, :]) & (blocks[None, :] >= 0)
    if window is not None:
        allowed &= key > query - window
    return mx.array(allowed)


class _Cache:
    """What both kinds share: buffers `[B, kv_heads, capacity, …]`, of which `size()` tokens are in use."""

    def __init__(self) -> None:
        self.buffers: tuple[mx.array, ...] = ()  # keys and values; none before the first token
        self.offset = 0  # tokens seen so far, also the position of the next one

    @property
    def capacity(self) -> int:
        """Tokens the buffers have slots for."""
        return self.buffers[0].shape[2] if self.buffers else 0

    def size(self) -> int:
        return self.offset

    def empty(self) -> bool:
        return not self.buffers

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers)

    def forget_step(self, offset: int) -> None:
        """Go back by at most one token that was added by itself, to `offset`.

        Its slot held nothing that a later query can see (in a ring, the token that just left the window), and the next
        token is written over it.
        """
        self.offset = offset

    def copy(self) -> Self:
        """Another cache that holds the same tokens; either goes on without the other.

        It costs nothing until one of them is written to, and then one copy of its buffers.
        """
        twin = copy(self)
        # The very same array objects would show what the other writes into them.
        twin.buffers = tuple(mx.array(buffer) for buffer in self.buffers)
        return twin

    def keep_rows(self, rows: mx.array) -> None:
        """Keep the sequences `rows` int `[n]`, in that order, and forget the others."""
        self.buffers = tuple(buffer[rows] for buffer in self.buffers)

    def _write(self, start: int, new: tuple[mx.array, ...]) -> None:
        for buffer, array in zip(self.buffers, new, strict=True):
            buffer[..., start : start + array.shape[2], :] = array

    def _used(self) -> tuple[mx.array, ...]:
        used = self.size()
        if used == self.capacity:
            return self.buffers
        return tuple(buffer[..., :used, :] for buffer in self.buffers)

    def _grow(self, like: tuple[mx.array, ...], by: int) -> None:
        """Make room for `by` more tokens shaped like `like`."""
        room = tuple(mx.zeros((*array.shape[:2], by, array.shape[3]), array.dtype) for array in like)
        pairs = zip(self.buffers, room, strict=True)
        self.buffers = tuple(mx.concatenate([*pair], axis=2) for pair in pairs) if self.buffers else room


class FullCache(_Cache):
    """Cache of a full-attention layer: every token, in order.

    Args:
        bits: 8 or 4 pack keys and values; None keeps them as they come.
    """

    def __init__(self, bits: int | None = None) -> None:
        super().__init__()
        self.bits = bits

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
            self._grow(new, by=-(-(end - self.capacity) // _STEP) * _STEP)
        self._write(self.offset, new)
        self.offset = end
        return as_keys_values(self._used(), self.bits)

    def make_mask(self, length: int, window_size: int | None = None, return_array: bool = False) -> Mask:
        return attention_mask(length, self.offset, window_size, as_array=return_array)

    def make_room(self) -> None:
        """Let the buffers have a slot for one more token, and one of few sizes. The cache must not be empty."""
        wanted = _with_room(self.offset)
        if self.capacity < wanted:
            self._grow(self.buffers, by=wanted - self.capacity)

    def ordered(self) -> tuple[mx.array, ...]:
        """Keys and values of all tokens, oldest first."""
        return self._used()

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        """Forget the last `n` tokens; returns how many were forgotten."""
        n = min(self.offset, n)
        self.offset -= n
        return n

    def mark(self) -> tuple[Any, ...]:
        # Rows past `offset` are never read, so the offset alone undoes an update.
        return (self.offset,)

    def restore(self, mark: tuple[Any, ...]) -> None:
        (self.offset,) = mark


class SlidingCache(_Cache):
    """Cache of a sliding-window layer: a ring in which the token at position p lies in slot `p % window`.

    It never holds more than `window` tokens; while a chunk of L tokens is in work attention reads `window - 1 + L`.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    @property
    def state(self) -> tuple[Any, ...]:
        return *self.buffers, self.offset, self.window

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        *buffers, self.offset, self.window = value
        self.buffers = tuple(buffers)

    def size(self) -> int:
        return min(self.offset, self.window)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, ...]:
        """Add `[B, kv_heads, L, head_dim]`; return the keys and values these L queries may need.

        One token: the whole ring, in no particular order (RoPE is in the keys already, order does not matter).
        More: the `window - 1` tokens before the chunk and the chunk itself, oldest first.
        """
        new: tuple[mx.array, ...] = (keys, values)
        if keys.shape[2] == 1:
            slot = self.offset % self.window
            if slot >= self.capacity:
                self._grow(new, by=min(_STEP, self.window - self.capacity))
            self._write(slot, new)
            self.offset += 1
            return self._used()
        if self.buffers:
            pairs = zip(self.buffers, new, strict=True)
            new = tuple(mx.concatenate([*self._past(ring), array], axis=2) for ring, array in pairs)
        self.offset += keys.shape[2]
        self.buffers = tuple(self.as_ring(array) for array in new)
        return new

    def _past_length(self) -> int:
        """How many tokens before the next chunk its queries can see."""
        return min(self.offset, self.window - 1)

    def _past(self, ring: mx.array) -> list[mx.array]:
        """The last `window - 1` tokens, oldest first, as one or two pieces of the ring."""
        if self.offset < self.window:
            return [ring[..., : self.offset, :]]
        oldest = self.offset % self.window
        pieces = [ring[..., oldest + 1 :, :], ring[..., :oldest, :]]
        return [piece for piece in pieces if piece.shape[2]]

    def as_ring(self, ordered: mx.array) -> mx.array:
        """Tokens that end at `offset`, oldest first → the last `window` of them, each in its slot."""
        if self.offset <= self.window:
            return ordered
        ordered = ordered[..., -self.window :, :]
        first_slot = self.offset % self.window
        split = self.window - first_slot
        return mx.concatenate([ordered[..., split:, :], ordered[..., :split, :]], axis=2)

    def tokens(self, start: int, end: int) -> tuple[mx.array, ...]:
        """Copies of the keys and values at positions `start` to `end` of the last `window - 1`, oldest first."""
        slots = mx.arange(start, end) % self.window
        # A slice would share the ring's memory, and MLX could no longer update the ring in place.
        return tuple(mx.take(buffer, slots, axis=2) for buffer in self.buffers)

    def ordered(self) -> tuple[mx.array, ...]:
        """Keys and values of the last `min(offset, window - 1)` tokens, which later ones can see, oldest first."""
        return self.tokens(self.offset - self._past_length(), self.offset)

    @classmethod
    def of_tokens(cls, window: int, offset: int, ordered: tuple[mx.array, ...]) -> SlidingCache:
        """The cache that holds `offset` tokens, from the last `min(offset, window - 1)` of them, oldest first."""
        ring = cls(window)
        ring.offset = offset
        if offset >= window:
            # The token that is leaving the window: nobody sees it, and the next one takes its slot.
            ordered = tuple(mx.pad(array, [(0, 0), (0, 0), (1, 0), (0, 0)]) for array in ordered)
        ring.buffers = tuple(ring.as_ring(array) for array in ordered)
        return ring

    def make_room(self) -> None:
        """Let the buffers have a slot for one more token, and one of few sizes. The cache must not be empty."""
        wanted = min(self.window, _with_room(self.offset))
        if self.capacity < wanted:
            self._grow(self.buffers, by=wanted - self.capacity)

    def make_mask(
        self,
        length: int,
        window_size: int | None = None,
        return_array: bool = False,
        image_blocks: np.ndarray | None = None,
    ) -> Mask:
        if length == 1 and window_size is None and not return_array:
            return None
        return attention_mask(length, self._past_length(), window_size or self.window, image_blocks, return_array)

    def is_trimmable(self) -> bool:
        # Once the ring has wrapped, tokens that a shorter history would need are gone.
        return self.offset < self.window

    def trim(self, n: int) -> int:
        """Forget the last `n` tokens; returns how many were forgotten, 0 once the ring has wrapped."""
        n = min(self.offset, n) if self.is_trimmable() else 0
        self.offset -= n
        return n

    def mark(self) -> tuple[Any, ...]:
        return self.buffers, self.offset

    def restore(self, mark: tuple[Any, ...]) -> None:
        # A single token written in between overwrote one slot of these same arrays: see `forget_step`.
        self.buffers, self.offset = mark


def _with_room(offset: int) -> int:
    """Slots for `offset` tokens and at least one more."""
    return (offset // _STEP + 1) * _STEP


def packed_or_plain(keys: mx.array, values: mx.array, bits: int | None) -> tuple[mx.array, ...]:
    """Keys and values as a cache's buffers hold them."""
    return (keys, values) if bits is None else (*pack(keys, bits), *pack(values, bits))


def as_keys_values(buffers: tuple[mx.array, ...], bits: int | None) -> KeysValues:
    """What is in a cache's buffers, as attention takes it."""
    return buffers if bits is None else PackedKeysValues(buffers, bits)


KVCache = FullCache | SlidingCache


def join(caches: Sequence[Sequence[KVCache]]) -> tuple[list[KVCache], mx.array]:
    """Caches of one sequence each → one cache of them all, for `Gemma4.step_ahead` with the padding returned.

    All rows end where the longest does, and before row r stand `padding[r]` slots that nobody may look at. Keys keep
    the rotation of their own positions: what comes next in row r stands at position `offset - padding[r]`. Nothing but
    the step heeds the padding.

    Args:
        caches: of one model, none of them empty; they are left as they are.

    Returns:
        The cache, and the padding, int32 `[B]`.

    Raises:
        ValueError: packed caches.
    """
    offsets = [cache[0].offset for cache in caches]
    end = max(offsets)
    return [_join_layer(rows, end) for rows in zip(*caches, strict=True)], mx.array([end - start for start in offsets])


def _join_layer(rows: Sequence[KVCache], end: int) -> KVCache:
    """One layer of all rows, that end at `end`."""
    if any(isinstance(row, FullCache) and row.bits is not None for row in rows):
        raise ValueError("packed caches cannot be joined: make them without kv_bits")
    buffers = tuple(_right_aligned(arrays) for arrays in zip(*(row.ordered() for row in rows), strict=True))
    if isinstance(rows[0], SlidingCache):
        return SlidingCache.of_tokens(rows[0].window, end, buffers)
    layer = FullCache()
    layer.state = (*buffers, end)
    return layer


def _right_aligned(arrays: Sequence[mx.array]) -> mx.array:
    """Of `[1, kv_heads, S, head_dim]` each → `[B, kv_heads, longest S, head_dim]`, zeros before the shorter ones."""
    longest = max(array.shape[2] for array in arrays)
    return mx.concatenate([mx.pad(array, [(0, 0), (0, 0), (longest - array.shape[2], 0), (0, 0)]) for array in arrays])


@contextmanager
def restoring(cache: Sequence[KVCache]) -> Iterator[None]:
    """Put every layer's cache back as it was if the body does not finish, be it by an error or by Ctrl-C.

    Without it an interrupt between two layers leaves some of them a token ahead of the others. Leave the body before
    evaluating: the marks keep old buffers alive, and MLX updates a buffer in place only when nothing else holds it.
    """
    marks = [layer_cache.mark() for layer_cache in cache]
    try:
        yield
    except BaseException:
        for layer_cache, mark in zip(cache, marks, strict=True):
            layer_cache.restore(mark)
        raise
