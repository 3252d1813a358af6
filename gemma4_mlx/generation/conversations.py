"""Several conversations remembered, each found again by the beginning that a new prompt has in common with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..model import Gemma4
from ..model.cache import Caches
from .conversation_cache import ConversationCache

# A prompt ends by opening the model's turn, and in the next one that turn may begin otherwise.
_OPENING_OF_A_TURN = 32
# Each new prompt is compared with every one.
_MOST = 64


class Conversations:
    """Caches of the prompts read last. The least used leave first.

    Args:
        model: the model that reads.
        most_bytes: all caches together.
    """

    def __init__(self, model: Gemma4, most_bytes: int) -> None:
        self._model = model
        self._most_bytes = most_bytes
        self._kept: list[ConversationCache] = []  # the latest last

    @property
    def nbytes(self) -> int:
        return sum(cache.nbytes for cache in self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, keys: np.ndarray) -> ConversationCache:
        """A cache that holds as much as any of the beginning of a prompt, for this prompt alone.

        Args:
            keys: the prompt's, see `conversation_cache.prompt_keys`.
        """
        best = max(self._kept, key=lambda cache: cache.common(keys), default=None)
        if best is None or not best.common(keys):
            return ConversationCache(self._model)
        if 2 * best.common(keys) >= best.tokens:  # all prompts have their first few tokens in common
            self._kept.remove(best)
            self._kept.append(best)
        return best.copy()

    def go_on(self, keys: np.ndarray, written: Callable[[], Caches], tokens: Sequence[int]) -> None:
        """A prompt has been answered: remember the answer with it, if the prompt still is.

        Args:
            keys: the prompt's.
            written: makes a cache that holds the prompt and the answer.
            tokens: the answer's.
        """
        for cache in self._kept:
            if cache.tokens == len(keys) == cache.common(keys):
                cache.go_on(written(), tokens)
                break
        self._forget()

    def keep(self, cache: ConversationCache, keys: np.ndarray) -> None:
        """Remember a prompt that has been read, in place of those that it continues."""
        self._kept = [old for old in self._kept if old.tokens - old.common(keys[: cache.tokens]) > _OPENING_OF_A_TURN]
        self._kept.append(cache)
        self._forget()

    def _forget(self) -> None:
        while self._kept and (len(self._kept) > _MOST or self.nbytes > self._most_bytes):
            del self._kept[0]
