"""The cache of a whole model, and how it goes back.

KV-shared layers have no cache: they read the arrays that their source layer has just returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import mlx.core as mx

from .layer_cache import KVCache
from .sliding_cache import SlidingCache


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Where a cache stood: what its full layers will lose by themselves, and its rings as they were.

    A full-attention layer goes back by forgetting, because its tokens are all there. A sliding layer has written over
    some of them, so its whole ring is kept.

    Attributes:
        offset: how many tokens the cache held.
        rings: of the sliding layers, in order.
    """

    offset: int
    rings: tuple[SlidingCache, ...]

    @property
    def nbytes(self) -> int:
        return sum(ring.nbytes for ring in self.rings)

    def reaches(self, offset: int, earlier: Snapshot | None) -> bool:
        """Whether `at` can tell how the cache stood at position `offset`."""
        if not 0 <= offset <= self.offset:
            return False
        by_itself = all(ring.can_rewind(offset) for ring in self.rings)
        return by_itself or (
            earlier is not None
            and earlier.offset <= offset
            and all(earlier.offset >= ring.oldest for ring in self.rings)
        )

    def at(self, offset: int, earlier: Snapshot | None) -> Snapshot:
        """The snapshot of the position `offset` up to this one, bit for bit.

        Args:
            offset: the position.
            earlier: the last snapshot up to there. The tokens that this one has lost are in it.
        """
        rings = []
        for i, ring in enumerate(self.rings):
            if ring.can_rewind(offset):
                ring = ring.copy()
                ring.rewind(offset)
            else:
                assert earlier is not None
                ring = ring.between(earlier.rings[i], offset)
            rings.append(ring)
        return Snapshot(offset, tuple(rings))


class Caches(list[KVCache]):
    """One `KVCache` for each layer that has keys and values of its own: a model's cache, also to mlx-lm and mlx-vlm.

    Layers are written to by the model. Going back, copying and evaluating is done here and nowhere else, so that all
    layers always hold the same number of tokens.
    """

    @classmethod
    def of(cls, cache: Sequence[KVCache]) -> Caches:
        """`cache` itself, or where it is another kind of list the same layers in one of this kind."""
        return cache if isinstance(cache, Caches) else cls(cache)

    @property
    def offset(self) -> int:
        """How many tokens it holds, which is also the position of the next one."""
        return self[0].offset

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self)

    def copy(self) -> Self:
        """Another cache that holds the same tokens; either goes on without the other.

        It costs nothing until one of them is written to, and then one copy of the buffers.
        """
        return type(self)(layer.copy() for layer in self)

    def start(self) -> None:
        """Have all that has been added computed, and wait for nothing."""
        mx.async_eval([layer.state for layer in self])

    def evaluate(self) -> None:
        """Compute all that has been added, and wait for it."""
        mx.eval([layer.state for layer in self])

    def forget(self) -> None:
        """Hold nothing: what it holds is not to be trusted."""
        for layer in self:
            layer.forget()

    def rewind(self, offset: int) -> None:
        """Go back to position `offset`: by one token always, further if no sliding layer has lost what is needed there.

        Raises:
            ValueError: a sliding layer has lost it, or the cache does not hold that many tokens.
        """
        if not all(layer.can_rewind(offset) for layer in self):
            raise ValueError(f"a cache of {self.offset} tokens cannot go back to {offset}: take a snapshot there")
        for layer in self:
            layer.rewind(offset)

    def snapshot(self) -> Snapshot:
        """Where the cache stands, to come back to. It costs one copy of the sliding layers' rings.

        It is good for as long as the cache has not gone back beyond it: full layers then hold other tokens there.
        """
        return Snapshot(self.offset, tuple(layer.copy() for layer in self if isinstance(layer, SlidingCache)))

    def back_to(self, snapshot: Snapshot) -> None:
        """Go back to where `snapshot` was taken, of this cache or one that it is a copy of."""
        rings = iter(snapshot.rings)
        for layer in self:
            if isinstance(layer, SlidingCache):
                layer.become(next(rings).copy())
            else:
                layer.rewind(snapshot.offset)

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """Put every layer back as it was if the body does not finish, be it by an error or by Ctrl-C.

        Without it an interrupt between two layers leaves some of them ahead of the others. Leave the body before
        evaluating: the snapshot keeps old rings alive, and MLX updates a ring in place only when nothing else holds it.
        """
        before = self.snapshot()
        try:
            yield
        except BaseException:
            self.back_to(before)
            raise
