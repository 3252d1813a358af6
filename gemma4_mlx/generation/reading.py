"""What a prompt and the answer after it do to a cache, step by step, for a cache that wants to know."""

from __future__ import annotations

from collections.abc import Sequence

from ..model.cache import KVCache


class Reading:
    """A prompt on its way into a cache, then the tokens that follow it. This one leaves no trace but in the cache.

    Attributes:
        cache: what is written to.
    """

    def __init__(self, cache: Sequence[KVCache]) -> None:
        self.cache = cache

    def held(self) -> int:
        """How many tokens the cache holds. Asked before every step."""
        return self.cache[0].offset

    def piece_length(self, prompt_length: int, longest: int) -> int:
        """Into pieces of how many tokens the prompt is to be cut; at most `longest`."""
        return longest

    def before_piece(self) -> None:
        """The next piece of the prompt is about to be added."""

    def prompt_read(self) -> None:
        """The whole prompt has been added; nothing of its last piece need have been evaluated."""

    def token_added(self, token: int) -> None:
        """`token` is about to be handed out; the cache holds it, unless it is the last one."""
