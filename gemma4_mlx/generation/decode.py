"""Writes tokens step by step, for one sequence or several. All other ways of generating use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx
import numpy as np

from ..device_errors import device_error
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
        cache: what it was given; it holds every token that was handed out.
        padding: int `[B]`, see `model.rows`; None: the rows are equally long.
        rows: the sequences that are still written, in the cache's order.
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
            with model.turns:
                self._chosen = self._choose(logits)
                mx.async_eval(self._chosen)

    def step(self, last: bool = False) -> list[int]:
        """The next token of every row.

        If it fails, be it by an error or by Ctrl-C, the cache and the rows' tokens are as they were: nobody has got
        the tokens. Then it can be called again; but not after a `DeviceError`, which everything is forgotten with.

        Args:
            last: these are the last tokens. They are not added to the cache.
        """
        held, written = self.cache.offset, [len(row.tokens) for row in self.rows]
        try:
            with self._model.turns:
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
            if not last:
                self._chosen, self._logits = chosen, pending.logits
            taken = tokens.tolist()
            for row, token in zip(self.rows, taken, strict=True):
                row.tokens.append(token)
            # Still inside: a `with` statement, or a line after this one, would leave a moment in which Ctrl-C could
            # come between the protection and the caller.
            return taken
        except BaseException as error:
            self.cache.rewind(held)
            for row, count in zip(self.rows, written, strict=True):
                del row.tokens[count:]
            if (failure := device_error(error)) is None:
                raise
            self.forget()
            raise failure from error

    def forget(self) -> None:
        """Hold nothing: what the cache and the next tokens are made of is not to be trusted."""
        self.cache.forget()

    def _waits(self) -> bool:
        return any(row.choose.waits for row in self.rows)

    def _choose(self, logits: mx.array) -> mx.array:
        """`[B, 1, vocab]` → int `[B]`."""
        if len(self.rows) == 1 or all(isinstance(row.choose, Greedy) for row in self.rows):
            return self.rows[0].choose(logits[:, -1])
        return mx.concatenate([row.choose(logits[i]) for i, row in enumerate(self.rows)])
