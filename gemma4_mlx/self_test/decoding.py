"""Ways to the same numbers: compiled and not, masked and not, a prompt whole and in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import mlx.core as mx
import numpy as np

from ..model import Gemma4
from ..model.grouped_attention import plain_attention
from .check import Item, Outcome, difference
from .models import copied, random_model

_LONG = 2048
# One attention rounds its result once, a model everything.
_FLOAT32, _ROUNDED_ONCE, _ROUNDED = 2e-3, 0.04, 0.15
_STEPS = 6


def items(working: mx.Dtype) -> Iterator[Item]:
    model = random_model("e2b", hidden_size=256, intermediate_size=512)
    stored = copied(model, working)
    bound = _FLOAT32 if working == mx.float32 else _ROUNDED
    yield Item("decoding", f"{_STEPS} tokens compiled, against uncompiled", partial(_compiled, stored, bound))
    for head_dim in (256, 512):
        name = f"attention of one token, head size {head_dim}, mask against none"
        yield Item("decoding", name, partial(_masked, head_dim, working))
    long = random_model("e2b", hidden_size=256, intermediate_size=512, num_kv_shared_layers=0)
    stored = copied(long, working)
    right = cache(partial(_right_logits, long))
    for pieces in (512, _LONG):
        name = f"a prompt of {_LONG:,} tokens in pieces of {pieces:,}, against float32 in pieces of 256"
        yield Item("decoding", name, partial(_in_pieces, right, stored, pieces, bound))


def _compiled(model: Gemma4, bound: float) -> Outcome:
    ids = mx.arange(40)[None] * 29 % model.config.text.vocab_size
    compiled, plain = model.make_cache(), model.make_cache()
    model(ids, cache=compiled)
    model(ids, cache=plain)
    steps = [mx.array([[token]]) for token in range(_STEPS)]
    right = mx.concatenate([model(token, cache=plain) for token in steps])
    return Outcome(difference(right, mx.concatenate([model.step(token, compiled) for token in steps])), bound)


def _masked(head_dim: int, working: mx.Dtype) -> Outcome:
    """1,500 keys behind a mask that hides 100 more, and these 1,500 without a mask.

    MLX has a kernel for each, and full layers multiply by groups of heads.
    """
    keys = [mx.random.normal((1, 2, 1600, head_dim), key=mx.random.key(seed)).astype(working) for seed in (1, 2)]
    queries = (mx.random.normal((1, 8, 1, head_dim), key=mx.random.key(3)) * head_dim**-0.5).astype(working)
    seen = [array[:, :, :1500] for array in keys]
    with mx.stream(mx.cpu):
        right = mx.fast.scaled_dot_product_attention(
            queries.astype(mx.float32), *(array.astype(mx.float32) for array in seen), scale=1.0
        )
        mx.eval(right)
    masked = mx.fast.scaled_dot_product_attention(queries, *keys, scale=1.0, mask=mx.arange(1600) < 1500)
    unmasked = mx.fast.scaled_dot_product_attention(queries, *seen, scale=1.0)
    by_groups = plain_attention(queries, tuple(keys), mx.arange(1600) < 1500)
    bound = _FLOAT32 if working == mx.float32 else _ROUNDED_ONCE
    return Outcome(max(difference(right, found) for found in (masked, unmasked, by_groups)), bound)


def _in_pieces(right: Callable[[], mx.array], stored: Gemma4, length: int, bound: float) -> Outcome:
    return Outcome(difference(right(), _last_logits(stored, length)), bound)


def _right_logits(model: Gemma4) -> mx.array:
    with mx.stream(mx.cpu):
        return _last_logits(model, 256)


def _last_logits(model: Gemma4, length: int) -> mx.array:
    """Of the last 16 positions, the prompt read `length` tokens at a time."""
    ids = np.arange(_LONG)[None] * 31 % model.config.text.vocab_size
    layer_caches = model.make_cache()
    whole, last = ids[:, :-16], ids[:, -16:]
    for start in range(0, whole.shape[1], length):
        model(mx.array(whole[:, start : start + length]), cache=layer_caches, last_only=True)
        mx.eval([layer_cache.state for layer_cache in layer_caches])
    logits = model(mx.array(last), cache=layer_caches)
    mx.eval(logits)
    return logits
