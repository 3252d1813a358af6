"""Where a conversation's sliding layers can be put back to.

A full-attention layer goes back by forgetting: its tokens are all there. A sliding layer's ring holds only the last
ones, so some of what it is about to lose is kept beside it, as spans of consecutive tokens. A position is in reach when
the spans and the ring together hold the `window - 1` tokens before it, which is all that a query there may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from ..model.cache import SlidingCache

# Of one part: for every sliding layer the keys and values `[1, kv_heads, tokens, head_dim]`.
_Part = list[tuple[mx.array, ...]]


@dataclass(frozen=True)
class Ring:
    """The tokens from position `start` to `end` as the sliding layers' own rings hold them."""

    start: int
    end: int
    layers: Sequence[SlidingCache]

    @classmethod
    def at(cls, end: int, layers: Sequence[SlidingCache]) -> Ring:
        """What `layers` hold of the tokens before position `end`, where they stand or one token before."""
        return cls(max(0, end - layers[0].window + 1), end, layers)

    def part(self, start: int, end: int) -> _Part:
        return [layer.tokens(start, end) for layer in self.layers]


@dataclass(frozen=True)
class Span:
    """The same, kept beside the rings. The arrays begin at `start`; what they hold past `end` is void."""

    start: int
    end: int
    layers: _Part

    @classmethod
    def of(cls, sources: Sequence[Ring | Span], start: int, end: int) -> Span:
        """Gathered from `sources`, and on its way to be evaluated."""
        span = cls(start, end, gather(sources, start, end))
        # Unevaluated it would hold the ring it is made from, and MLX could not update that in place.
        mx.async_eval(span.layers)
        return span

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for arrays in self.layers for array in arrays)

    def part(self, start: int, end: int) -> _Part:
        begin, stop = start - self.start, end - self.start
        return [tuple(array[..., begin:stop, :] for array in arrays) for arrays in self.layers]


def gather(sources: Sequence[Ring | Span], start: int, end: int) -> _Part:
    """Keys and values of the positions from `start` to `end`, which `sources` hold together."""
    parts = []
    while start < end:
        source = max((s for s in sources if s.start <= start < s.end), key=lambda s: s.end)
        parts.append(source.part(start, min(end, source.end)))
        start = source.end
    return [
        tuple(mx.concatenate([*arrays], axis=2) for arrays in zip(*layer, strict=True))
        for layer in zip(*parts, strict=True)
    ]


def furthest_in_reach(sources: Sequence[Ring | Span], limit: int, window: int) -> int:
    """The largest position up to `limit` that the sliding layers can be put back to; 0, the very start, always is."""
    within = [min(limit, end) for start, end in _joined(sources) if start == 0 or min(limit, end) - start >= window - 1]
    return max(within, default=0)


def cut(spans: Sequence[Span], end: int) -> list[Span]:
    """What of `spans` lies before position `end`."""
    return [replace(span, end=min(span.end, end)) for span in spans if span.start < end]


def with_span(spans: Sequence[Span], new: Span, most_bytes: int) -> list[Span]:
    """`spans` and a new one, without those that the others hold between them.

    The oldest are given up until all together are no larger than `most_bytes`, but the two newest stay.
    """
    kept = [*spans, new]
    for span in spans:
        others = [other for other in kept if other is not span]
        if any(start <= span.start and span.end <= end for start, end in _joined(others)):
            kept = others
    while len(kept) > 2 and sum(span.nbytes for span in kept) > most_bytes:
        del kept[0]
    return kept


def _joined(sources: Sequence[Ring | Span]) -> list[tuple[int, int]]:
    """Start and end of every stretch of positions that `sources` hold without a gap."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted((source.start, source.end) for source in sources):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
