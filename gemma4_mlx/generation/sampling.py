"""Logits → the next token, on the device: nothing here waits for a value.

The order and the meaning of the steps are transformers': temperature, then top_k, then top_p. Randomness comes from a
key that the caller carries along; MLX's global random state is neither read nor changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from numbers import Integral, Real

import mlx.core as mx

# (logits float32 [1, vocab], key) → (token id [1], next key)
Sampler = Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]

# Below it the second-best token would need a logit within 1e-4 of the best to be drawn even once in 20,000 times.
_GREEDY_BELOW = 1e-5
_GROUP = 256


def check_sampling(temperature: float, top_p: float | None, top_k: int | None) -> None:
    """Raises ValueError for a temperature below 0, a top_p outside (0, 1], a top_k below 0, NaN, and other types."""
    if not (isinstance(temperature, Real) and temperature >= 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be 0 or more, not {temperature!r}")
    if top_p is not None and not (isinstance(top_p, Real) and 0 < top_p <= 1):
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p!r}")
    if top_k is not None and not (isinstance(top_k, Integral) and top_k >= 0):
        raise ValueError(f"top_k must be 0 (off) or more, a whole number, not {top_k!r}")


def is_greedy(temperature: float) -> bool:
    """Whether the most likely token is taken."""
    return temperature < _GREEDY_BELOW


def make_sampler(temperature: float, top_p: float | None = None, top_k: int | None = None) -> Sampler:
    """Build the step from logits to a token.

    Args:
        temperature: 0 takes the most likely token; the other two then have no say.
        top_p: keep the most likely tokens up to this share of the probability, at least one; None or 1: all.
        top_k: keep the `top_k` most likely tokens; None or 0: all. Of tokens tied for the last place some are left
            out (transformers keeps them all).

    Raises:
        ValueError: see `check_sampling`.
    """
    check_sampling(temperature, top_p, top_k)
    if is_greedy(temperature):
        return _greedy
    return _compiled(float(temperature), float(top_p or 1.0), int(top_k or 0))


def _greedy(logits: mx.array, key: mx.array) -> tuple[mx.array, mx.array]:
    return mx.argmax(logits, axis=-1), key


@cache
def _compiled(temperature: float, top_p: float, top_k: int) -> Sampler:
    return mx.compile(partial(_draw, temperature, top_p, top_k))


def _draw(temperature: float, top_p: float, top_k: int, logits: mx.array, key: mx.array) -> tuple[mx.array, mx.array]:
    key, drawing_key = mx.random.split(key)
    ids = None
    if 0 < top_k < logits.shape[-1]:
        ids = most_likely(logits, top_k)
        logits = mx.take_along_axis(logits, ids, axis=-1)
    # Measured from the best: a very low temperature cannot overflow.
    logits = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    if top_p < 1:
        order = mx.argsort(-logits, axis=-1)
        ids = order if ids is None else mx.take_along_axis(ids, order, axis=-1)
        logits = mx.take_along_axis(logits, order, axis=-1)
        more_likely_mass = mx.cumsum(mx.softmax(logits, axis=-1), axis=-1, inclusive=False)
        logits = mx.where(more_likely_mass < top_p, logits, -mx.inf)
    drawn = mx.random.categorical(logits, key=drawing_key)
    if ids is not None:
        drawn = mx.take_along_axis(ids, drawn[:, None], axis=-1)[:, 0]
    return drawn, key


def most_likely(logits: mx.array, k: int) -> mx.array:
    """Ids `[1, k]` of the k largest logits `[1, vocab]`, in no particular order.

    Sorting 262,144 logits is what sampling costs. The k largest lie in the k groups with the largest maxima, so only
    those groups need sorting.
    """
    vocab = logits.shape[-1]
    if k == vocab:
        return mx.arange(vocab)[None]
    if vocab % _GROUP or vocab // _GROUP <= k:
        return mx.argpartition(logits, -k, axis=-1)[:, -k:]
    groups = logits.reshape(1, -1, _GROUP)
    best_groups = mx.argpartition(groups.max(axis=-1), -k, axis=-1)[:, -k:]
    candidates = mx.take_along_axis(groups, best_groups[..., None], axis=1).reshape(1, -1)
    best = mx.argpartition(candidates, -k, axis=-1)[:, -k:]
    return mx.take_along_axis(best_groups, best // _GROUP, axis=-1) * _GROUP + best % _GROUP
