"""The caches of several sequences as one, so that one step decodes them all. Rows come and go between steps."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from .cache import Caches
from .full_cache import FullCache
from .layer_cache import KVCache
from .sliding_cache import SlidingCache


class Rows:
    """Sequences of any lengths in one cache, for `Gemma4.step_ahead`.

    All rows end where the longest does, and row r begins with `padding[r]` slots that no query may see. Keys keep
    the rotation of their own positions: the next token of row r stands at position `cache.offset - padding[r]`. Only
    the compiled step heeds the padding.

    When rows come or go, the cache is written anew, and is then as long as its longest row. So it does not grow with
    the age of a batch.

    Attributes:
        cache: of all rows; empty while there are none.
        padding: int32 `[B]`.
    """

    def __init__(self) -> None:
        self.cache = Caches()
        self.padding = mx.zeros(0, mx.int32)
        self._padding: list[int] = []

    @property
    def lengths(self) -> list[int]:
        """How many tokens each row holds."""
        return [self.cache.offset - padding for padding in self._padding]

    def add(self, caches: Sequence[Sequence[KVCache]]) -> None:
        """Append a row for each of `caches`, which are left as they are.

        Args:
            caches: of one sequence each, of one model, none of them empty.

        Raises:
            ValueError: an empty cache, or one that packs its keys and values.
        """
        added = [Caches.of(cache) for cache in caches]
        for layer in (layer for cache in added for layer in cache):
            if layer.empty():
                raise ValueError("an empty cache cannot join a batch: read a prompt into it first")
            if isinstance(layer, FullCache) and layer.bits is not None:
                raise ValueError("packed caches cannot join a batch: make them without kv_bits")
        lengths = [*self.lengths, *(cache.offset for cache in added)]
        parts = [self.cache, *added] if self.cache else added
        self._rebuild([[layer.ordered() for layer in layers] for layers in zip(*parts, strict=True)], parts[0], lengths)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep `rows`, in that order, and forget the others."""
        lengths = self.lengths
        if not rows:
            self.cache, self._padding, self.padding = Caches(), [], mx.zeros(0, mx.int32)
            return
        chosen = mx.array([*rows])
        kept = [[tuple(array[chosen] for array in layer.ordered())] for layer in self.cache]
        self._rebuild(kept, self.cache, [lengths[row] for row in rows])

    def alone(self, row: int) -> Caches:
        """A cache of its own that holds what a row holds."""
        length, cache = self.lengths[row], Caches()
        for layer in self.cache:
            # Rows end together, and what stands before a shorter one is nothing.
            arrays = tuple(array[row : row + 1, :, -length:] for array in layer.ordered())
            if isinstance(layer, SlidingCache):
                cache.append(SlidingCache.of_tokens(layer.window, length, arrays))
            else:
                cache.append(FullCache.of_tokens(length, arrays))
        return cache

    def _rebuild(
        self, layers: Sequence[Sequence[tuple[mx.array, ...]]], like: Sequence[KVCache], lengths: list[int]
    ) -> None:
        """Write the cache anew, for rows of `lengths` tokens.

        Args:
            layers: for each layer, keys and values in groups of rows, oldest first. The last token is at the end.
            like: a cache of each layer, which tells its kind.
            lengths: how many tokens each row holds.
        """
        end = max(lengths)
        cache = Caches()
        for parts, layer in zip(layers, like, strict=True):
            arrays = tuple(_right_aligned(rows)[..., -end:, :] for rows in zip(*parts, strict=True))
            if isinstance(layer, SlidingCache):
                cache.append(SlidingCache.of_tokens(layer.window, end, arrays))
            else:
                cache.append(FullCache.of_tokens(end, arrays))
        padding = [end - length for length in lengths]
        self.cache, self._padding, self.padding = cache, padding, mx.array(padding, mx.int32)


def _right_aligned(arrays: Sequence[mx.array]) -> mx.array:
    """Arrays `[b, kv_heads, S, head_dim]` → one `[B, kv_heads, longest S, head_dim]`, zeros before the shorter ones."""
    longest = max(array.shape[2] for array in arrays)
    return mx.concatenate([mx.pad(array, [(0, 0), (0, 0), (longest - array.shape[2], 0), (0, 0)]) for array in arrays])
