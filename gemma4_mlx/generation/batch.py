"""Several answers written at once, by whoever serves more than one: they come and go between any two steps."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from ..device_errors import device_errors
from ..model import Gemma4
from ..model.cache import Caches
from ..model.layer_cache import KVCache
from ..model.rows import Rows
from .decode import Choose, Decode, Row


class Batch(Decode):
    """`Decode` for rows that join and leave.

    A step for several rows costs less than one for each: the weights are read once, and the operations are launched
    once. Every row's tokens are those that its prompt has alone, up to the order in which kernels sum. When a row joins
    or leaves, the caches of all are written anew, and the first step of a batch of another size traces a graph: rows
    that have ended may stay for a while if others are about to end too.

    The caller says when a row has ended: after a stop token, at its limit, or when `lengths` says that the context is
    full. A row with a constraint must leave at once. With a `DeviceError` all rows are gone, and the batch is empty.

    One thread at a time may use it; with others that use the model it takes turns, a step being one.

        batch = Batch(model)
        batch.join([cache], [Greedy()], model(prompt, cache=cache, last_only=True))
        while batch.rows:
            tokens = batch.step()
            batch.leave([row for row, token in enumerate(tokens) if token in stop_ids])

    Args:
        model: the model.
    """

    def __init__(self, model: Gemma4) -> None:
        self._joined = Rows()
        super().__init__(model, self._joined.cache, [], mx.zeros((0, 1, 0)))

    @property
    def lengths(self) -> list[int]:
        """How many tokens the cache holds of each row: its prompt, and what it was handed out."""
        return self._joined.lengths

    def step(self, last: bool = False) -> list[int]:
        """The next token of every row."""
        return super().step(last) if self.rows else []

    def forget(self) -> None:
        """Have no rows: what is known of them is not to be trusted."""
        self._joined.keep([])
        self.rows, self._chosen = [], None
        self._changed()

    def join(self, caches: Sequence[Sequence[KVCache]], choices: Sequence[Choose], logits: mx.array) -> None:
        """Append rows.

        Args:
            caches: of one sequence each, that have read its prompt; they are left as they are.
            choices: how each row takes its tokens.
            logits: of each row's first token, `[n, 1, vocab]`.

        Raises:
            ValueError: an empty cache, or one that packs its keys and values.
        """
        with device_errors(self.forget), self._model.turns:
            there = self._next_tokens()
            self._joined.add(caches)
            new = [Row(choose) for choose in choices]
            first = [choose(logits[i]) for i, choose in enumerate(choices)]
            self._chosen = mx.concatenate(first if there is None else [there, *first])
            self.rows += new
            self._changed()

    def cache_of(self, row: int) -> Caches:
        """A cache of its own that holds a row's prompt and the tokens that were handed out."""
        return self._joined.alone(row)

    def leave(self, rows: Sequence[int]) -> None:
        """Forget `rows`. Those after them move up."""
        kept = [row for row in range(len(self.rows)) if row not in set(rows)]
        if len(kept) == len(self.rows):
            return
        with device_errors(self.forget), self._model.turns:
            self._joined.keep(kept)
            self.rows = [self.rows[row] for row in kept]
            if kept and self._chosen is not None:
                self._chosen = self._chosen[mx.array(kept)]
            elif kept:
                self._logits = self._logits[mx.array(kept)]
            self._changed()

    def _next_tokens(self) -> mx.array | None:
        """The next tokens of the rows that are there, chosen if they have not been; None if there are no rows."""
        if self.rows and self._chosen is None:
            self._chosen = self._choose(self._logits)
        return self._chosen if self.rows else None

    def _changed(self) -> None:
        self.cache = self._joined.cache
        # Of one row nothing is padded, and rows of equal length need no mask for it.
        self.padding = self._joined.padding if len(set(self.lengths)) > 1 else None
