"""Ways to take the next token of a sequence: the most likely one, one drawn, one that a constraint allows."""

from __future__ import annotations

import secrets
from typing import Protocol

import mlx.core as mx
import numpy as np

from .decode import Choose, Greedy
from .sampling import Sampler, is_greedy, make_sampler


class Constraint(Protocol):
    """Says at every step which tokens may come."""

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: bool `[vocab_size]`."""

    def accept(self, token: int) -> bool:
        """Go on by one token; False if it must not come although it was allowed, and then nothing has happened."""


def make_choice(
    temperature: float = 0.0,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    constraint: Constraint | None = None,
) -> Choose:
    """How one sequence takes its tokens. Arguments and errors are those of `generate_tokens`."""
    sampler = make_sampler(temperature, top_p, top_k)
    if seed is not None and not _is_int(seed):
        raise ValueError(f"seed must be a whole number or None, not {seed!r}")
    if constraint is not None:
        return Constrained(constraint, sampler, seed)
    return Greedy() if is_greedy(temperature) else Drawn(sampler, seed)


class Drawn:
    """Draws with a sampler, from a seed of its own; None: a different one every time."""

    waits = False

    def __init__(self, sampler: Sampler, seed: int | None) -> None:
        self._sampler = sampler
        self._key = mx.random.key(secrets.randbits(64) if seed is None else int(seed) % 2**64)

    def __call__(self, logits: mx.array) -> mx.array:
        token, self._key = self._sampler(logits, self._key)
        return token


class Constrained:
    """Draws among the tokens that a constraint allows. Which ones is known only when the token before is."""

    waits = True

    def __init__(self, constraint: Constraint, sampler: Sampler, seed: int | None) -> None:
        self._constraint = constraint
        self._draw = Drawn(sampler, seed)

    def __call__(self, logits: mx.array) -> mx.array:
        mx.async_eval(logits)
        allowed = self._constraint.allowed()  # worked out while the device works on the logits
        while True:
            if not allowed.any():
                raise ValueError("the schema cannot be followed any further: whatever may come would repeat an item")
            drawn = self._draw(mx.where(mx.array(allowed), logits, -mx.inf))
            token = int(np.array(drawn)[0])
            if self._constraint.accept(token):
                return drawn
            allowed[token] = False


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
