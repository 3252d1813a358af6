"""The cache of a sliding-window layer: a ring that holds the last `window` tokens."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from .attention_mask import Mask, attention_mask
from .layer_cache import STEP, KVCache, slots_with_room


class SlidingCache(KVCache):
    """A ring in which the token at position p lies in slot `p % window`.

    It never holds more than `window` tokens; while a piece of L tokens is read, attention sees `window - 1 + L`.

    Attributes:
        oldest: position of the oldest token it holds. It stays where it is when the ring goes back: what has been
            written over does not return.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.oldest = 0

    @classmethod
    def of_tokens(cls, window: int, offset: int, ordered: tuple[mx.array, ...]) -> SlidingCache:
        """The cache that has seen `offset` tokens, from the last of them, oldest first."""
        ring = cls(window)
        ring.offset, ring.oldest = offset, offset - min(ordered[0].shape[2], window)
        missing = min(offset, window) - (offset - ring.oldest)
        if missing:
            ordered = tuple(mx.pad(array, [(0, 0), (0, 0), (missing, 0), (0, 0)]) for array in ordered)
        ring.buffers = tuple(ring._as_ring(array) for array in ordered)
        return ring

    @property
    def state(self) -> tuple[Any, ...]:
        return *self.buffers, self.offset, self.window

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        *buffers, self.offset, self.window = value
        self.buffers, self.oldest = tuple(buffers), max(0, self.offset - self.window)

    def forget(self) -> None:
        super().forget()
        self.oldest = 0

    def size(self) -> int:
        return min(self.offset, self.window)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, ...]:
        """Add `[B, kv_heads, L, head_dim]`; return the keys and values these L queries may need.

        One token: the whole ring, in no particular order (RoPE is in the keys already, order does not matter).
        More: the `window - 1` tokens before the piece and the piece itself, oldest first.
        """
        new: tuple[mx.array, ...] = (keys, values)
        if keys.shape[2] == 1:
            slot = self.offset % self.window
            if slot >= self.capacity:
                self._grow(new, by=min(STEP, self.window - self.capacity))
            self._write(slot, new)
            self._move_on(1)
            return self._used()
        if self.buffers:
            pairs = zip(self.buffers, new, strict=True)
            new = tuple(mx.concatenate([*self._past(ring), array], axis=2) for ring, array in pairs)
        self._move_on(keys.shape[2])
        self.buffers = tuple(self._as_ring(array) for array in new)
        return new

    def _move_on(self, length: int) -> None:
        super()._move_on(length)
        self.oldest = max(self.oldest, self.offset - self.window)

    def _past_length(self) -> int:
        """How many tokens before the next piece its queries can see."""
        return min(self.offset, self.window - 1)

    def _past(self, ring: mx.array) -> list[mx.array]:
        """The last `window - 1` tokens, oldest first, as one or two parts of the ring."""
        if self.offset < self.window:
            return [ring[..., : self.offset, :]]
        oldest = self.offset % self.window
        pieces = [ring[..., oldest + 1 :, :], ring[..., :oldest, :]]
        return [piece for piece in pieces if piece.shape[2]]

    def _as_ring(self, ordered: mx.array) -> mx.array:
        """Tokens that end at `offset`, oldest first → the last `window` of them, each in its slot."""
        if self.offset <= self.window:
            return ordered
        ordered = ordered[..., -self.window :, :]
        first_slot = self.offset % self.window
        split = self.window - first_slot
        return mx.concatenate([ordered[..., split:, :], ordered[..., :split, :]], axis=2)

    def tokens(self, start: int, end: int) -> tuple[mx.array, ...]:
        """Copies of the keys and values at positions `start` to `end` of those it holds, oldest first."""
        slots = mx.arange(start, end) % self.window
        # A slice would share the ring's memory, and MLX could no longer update the ring in place.
        return tuple(mx.take(buffer, slots, axis=2) for buffer in self.buffers)

    def ordered(self) -> tuple[mx.array, ...]:
        return self.tokens(max(self.oldest, self.offset - self.window), self.offset)

    def make_room(self) -> None:
        wanted = min(self.window, slots_with_room(self.offset))
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

    def can_rewind(self, offset: int) -> bool:
        return 0 <= offset <= self.offset and max(0, offset - self.window + 1) >= self.oldest

    def between(self, earlier: SlidingCache, offset: int) -> SlidingCache:
        """The ring as it was at position `offset`, from how it was at an earlier one and how it is now.

        A slot holds the latest token before `offset` that belongs into it. Those before `earlier.offset` are taken from
        there, the others from here.

        Args:
            earlier: the same ring, at most `window` tokens ago.
            offset: from `earlier.offset` to here.
        """
        now = self.copy()
        now.offset, now.oldest = offset, max(earlier.oldest, offset - self.window)
        slots = np.arange(min(offset, self.window))
        positions = offset - 1 - (offset - 1 - slots) % self.window
        from_earlier = np.flatnonzero(positions < earlier.offset)
        if len(from_earlier) == len(slots):
            now.buffers = tuple(mx.array(buffer) for buffer in earlier.buffers)
        elif len(from_earlier):
            rows = mx.array(from_earlier)
            for mine, theirs in zip(now.buffers, earlier.buffers, strict=True):
                mine[..., rows, :] = mx.take(theirs, rows, axis=2)
        return now
