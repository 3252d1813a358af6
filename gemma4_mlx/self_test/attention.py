"""Which of the attention that Gemma 4 asks for MLX has a fused kernel for here: a measurement, with nothing to pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import mlx.core as mx

from .check import Item, Outcome

# name, query heads, key heads, queries, keys, head size, mask: what prompts, tokens and pictures ask for
_SHAPES = (
    ("a token, full layer of e2b", 8, 1, 1, 4096, 512, None),
    ("a token, full layer of e2b, array mask", 8, 1, 1, 4096, 512, "array"),
    ("a token, full layer of e4b", 8, 2, 1, 4096, 512, None),
    ("a token, full layer of 31b", 32, 4, 1, 4096, 512, None),
    ("a token, sliding layer of e2b, array mask", 8, 1, 1, 512, 256, "array"),
    ("512 tokens of a prompt, full layer of e2b", 8, 1, 512, 4096, 512, "causal"),
    ("1,024 tokens of a prompt, full layer of e2b", 8, 1, 1024, 4096, 512, "causal"),
    ("512 tokens of a prompt, sliding layer of e2b", 8, 1, 512, 1023, 256, "array"),
    ("a picture of 26b", 16, 16, 2520, 2520, 72, None),
)
_LONGEST_REASON = 100


def items(working: mx.Dtype) -> Iterator[Item]:
    for name, *shape in _SHAPES:
        yield Item("attention", name, partial(_fused, working, *shape))


def _fused(
    working: mx.Dtype, heads: int, kv_heads: int, queries: int, keys: int, head_dim: int, mask: str | None
) -> Outcome:
    asked = mx.zeros((1, heads, queries, head_dim), working)
    held = mx.zeros((1, kv_heads, keys, head_dim), working)
    shown = mx.ones((queries, keys), mx.bool_) if mask == "array" else mask
    try:
        mx.eval(mx.fast.scaled_dot_product_attention(asked, held, held, scale=1.0, mask=shown, force_fused=True))
    except (RuntimeError, ValueError) as error:
        return Outcome(0, None, "fused", " ".join(str(error).split())[-_LONGEST_REASON:])
    return Outcome(1, None, "fused")
