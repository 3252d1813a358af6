"""Writes tokens step by step, for one sequence or several. All other ways of generating use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx
import numpy as np

from ..model import Gemma4
from ..model.cache import Caches


class Choose(Protocol):
    """Takes the next token of one sequence.

    Attributes:
        waits: whether it needs the tokens before. If so, it is called only when the next token is asked for.
    """

    waits: bool

    def __call__(self, logits: mx.array) -> mx.array:
        """float32 `[1, vocab]` → int `[1]`, perhaps not yet evaluated."""


class Greedy:
    """Takes the most likely token."""

    waits = False

    def __call__(self, logits: mx.array) -> mx.array:
        """float32 `[B, vocab]` → int `[B]`, for any number of sequences at once."""
        return mx.argmax(logits, axis=-1)


@dataclass(frozen=True)
class Row:
    """A sequence that is being written.

    Attributes:
        choose: takes its next token.
        tokens: its tokens so far; every step adds one.
    """

    choose: Choose
    tokens: list[int] = field(default_factory=list)


class Decode:
    """Writes a token of every row at each step.

    The next step is built, and as a rule queued, before its token is known, so that the device never waits for Python.
    When a token is handed out, the cache already holds it.

    Args:
        model: the model.
        cache: holds the tokens before; new ones are written to it.
        rows: one for each sequence in `cache`.
        logits: for the first token of each row, `[B, 1, vocab]`.

    Attributes:
        cache: the cache it was given.
        padding: int `[B]`, see `model.rows`; None: the rows are equally long.
        rows: the rows it was given.
    """

    def __init__(self, model: Gemma4, cache: Caches, rows: Sequence[Row], logits: mx.array) -> None:
        self.cache = cache
        self.padding: mx.array | None = None
        self.rows = [*rows]
        self._model = model
        # The next tokens, int `[B]`; None while they are still to be chosen from `_logits`, `[B, 1, vocab]`.
        self._chosen: mx.array | None = None
        self._logits = logits
        if rows and not self._waits():
            self._chosen = self._choose(logits)
            mx.async_eval(self._chosen)

    def step(self, last: bool = False) -> list[int]:
        """The next token of every row.

        If an error or Ctrl-C ends it, the cache and the rows' tokens are put back as they were, and it can be called
        again.

        Args:
            last: these are the last tokens. They are not added to the cache.
        """
        held, written = self.cache.offset, [len(row.tokens) for row in self.rows]
        try:
            if self._chosen is None:
                self._chosen = self._choose(self._logits)
            chosen = None
            if not last:
                pending = self._model.step_ahead(self._chosen[:, None], self.cache, self.padding)
                if not self._waits():
                    chosen = self._choose(pending.logits)
                pending.queue(pending.logits if chosen is None else chosen)
            tokens = np.array(self._chosen)
            if not last:
                pending.known(tokens)
                self._chosen, self._logits = chosen, pending.logits
            taken = tokens.tolist()
            for row, token in zip(self.rows, taken, strict=True):
                row.tokens.append(token)
            # Still inside: a `with` statement, or a line after this one, would leave a moment in which Ctrl-C could
            # come between the protection and the caller.
            return taken
        except BaseException:
            self.cache.rewind(held)
            for row, count in zip(self.rows, written, strict=True):
                del row.tokens[count:]
            raise

    def _waits(self) -> bool:
        return any(row.choose.waits for row in self.rows)

    def _choose(self, logits: mx.array) -> mx.array:
        """`[B, 1, vocab]` → int `[B]`."""
        if len(self.rows) == 1 or all(isinstance(row.choose, Greedy) for row in self.rows):
            return self.rows[0].choose(logits[:, -1])
        return mx.concatenate([row.choose(logits[i]) for i, row in enumerate(self.rows)])
