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
        last_piece: tokens of the prompt's last piece at most; None: any number will do.
        with_kept_soft_tokens: a piece of the prompt → the same, with soft tokens in place of pictures known before.
    """

    inputs: ModelInputs
    cache: Caches
    tokens: list[int] = field(default_factory=list)
    at_boundary: Callable[[], None] = lambda: None
    last_piece: int | None = None
    with_kept_soft_tokens: Callable[[ModelInputs], ModelInputs] = lambda piece: piece
