"""What the caches of both kinds of layer share: buffers of keys and values, and how a layer goes back.

They speak mlx-lm's cache interface (`update_and_fetch`, `offset`, `state`, `trim`, `make_mask`, …), so that
`mlx_lm.generate` runs the model; they are not mlx-lm's classes because importing any part of it imports transformers
(1–3 s).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import mlx.core as mx

from .attention_mask import Mask
from .packed_attention import KeysValues

STEP = 256  # buffers grow by this many tokens: few reallocations, little waste


class KVCache(ABC):
    """Keys and values of one layer: buffers `[B, kv_heads, capacity, …]`, of which `size()` tokens are in use."""

    def __init__(self) -> None:
        self.buffers: tuple[mx.array, ...] = ()  # keys and values; none before the first token
        self.offset = 0  # tokens seen so far, also the position of the next one

    @abstractmethod
    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KeysValues:
        """Add `[B, kv_heads, L, head_dim]`; returns what these L queries may need."""

    @abstractmethod
    def make_mask(self, length: int, window_size: int | None = None, return_array: bool = False) -> Mask:
        """Which of the keys that `update_and_fetch` is going to return each of `length` new queries may see."""

    @abstractmethod
    def size(self) -> int:
        """How many tokens it holds."""

    @abstractmethod
    def make_room(self) -> None:
        """Let the buffers have a slot for one more token, and one of few sizes. The cache must not be empty."""

    @abstractmethod
    def can_rewind(self, offset: int) -> bool:
        """Whether everything that a token at position `offset` may see is still there."""

    @abstractmethod
    def ordered(self) -> tuple[mx.array, ...]:
        """Keys and values of the tokens it holds, oldest first."""

    @property
    def capacity(self) -> int:
        """Tokens the buffers have slots for."""
        return self.buffers[0].shape[2] if self.buffers else 0

    def empty(self) -> bool:
        return not self.buffers

    @property
    @abstractmethod
    def state(self) -> tuple[Any, ...]:
        """mlx-lm's name for all that a cache is made of: its buffers, its offset, and what its kind has besides."""

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers)

    def copy(self) -> Self:
        """Another cache that holds the same tokens; either goes on without the other.

        It costs nothing until one of them is written to, and then one copy of its buffers.
        """
        twin = copy(self)
        # The very same array objects would show what the other writes into them.
        twin.buffers = tuple(mx.array(buffer) for buffer in self.buffers)
        return twin

    def forget(self) -> None:
        """Hold nothing, and no buffers."""
        self.buffers, self.offset = (), 0

    def become(self, other: Self) -> None:
        """Hold what `other` of the same kind holds; `other` is not to be used any more."""
        self.__dict__.update(other.__dict__)

    def add_written(self, buffers: Sequence[mx.array]) -> None:
        """Take buffers into which somebody else has written the next token."""
        self.buffers = tuple(buffers)
        self._move_on(1)

    def _move_on(self, length: int) -> None:
        self.offset += length

    def rewind(self, offset: int) -> None:
        """Go back to position `offset`, which `can_rewind`."""
        self.offset = offset

    def trim(self, n: int) -> int:
        """Forget the last `n` tokens; returns how many were forgotten, 0 if it is not trimmable."""
        n = min(self.offset, n) if self.is_trimmable() else 0
        self.rewind(self.offset - n)
        return n

    def is_trimmable(self) -> bool:
        """Whether any number of tokens can be forgotten."""
        return self.can_rewind(0)

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


def slots_with_room(offset: int) -> int:
    """Slots for `offset` tokens and at least one more."""
    return (offset // STEP + 1) * STEP
