"""A prompt on its way into a cache, and the answer after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..model import ModelInputs
from ..model.cache import Caches


@dataclass(frozen=True)
class Turn:
    """What is to be read, and into what.

    Attributes:
        inputs: the part of the prompt that the cache does not hold.
        cache: what is written to.
        tokens: the answer's are added to this list.
        at_boundary: called where the cache can be come back to: before every piece of the prompt, at its end, and
            before every token.
        longest_piece: of the prompt, in tokens; None: any length will do. With one, pieces are equally long.
        with_kept_soft_tokens: a piece of the prompt → the same, with soft tokens in place of pictures known before.
    """

    inputs: ModelInputs
    cache: Caches
    tokens: list[int] = field(default_factory=list)
    at_boundary: Callable[[], None] = lambda: None
    longest_piece: int | None = None
    with_kept_soft_tokens: Callable[[ModelInputs], ModelInputs] = lambda piece: piece

    def piece_length(self, longest: int) -> int:
        """Into pieces of how many tokens the prompt is to be cut; at most `longest`."""
        if self.longest_piece is None:
            return longest
        longest, length = min(longest, self.longest_piece), self.inputs.input_ids.shape[1]
        return -(-length // -(-length // longest))
