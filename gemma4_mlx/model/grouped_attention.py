"""Attention in plain products, the query heads that share keys and values as rows of one matrix.

Keys and values are then read once for all of them. MLX's own attention (fast.cpp, its `fallback`) multiplies head by
head where it has no fused kernel, and its `Matmul` reads keys again for each (metal/matmul.cpp joins a batch to rows
only where all of it shares them). For one token that is what attention costs: four times the reading in E4B's full
layers, eight times in 26B's and 31B's.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from .attention_mask import Mask

Product = Callable[[mx.array], mx.array]

# From more queries on it is arithmetic that takes the time, and MLX has a fused kernel for long pieces of a prompt.
FEW_QUERIES = 8


def plain_attention(queries: mx.array, keys_values: tuple[mx.array, ...], mask: Mask) -> mx.array:
    """Scaled-dot-product attention of scale 1.

    Args:
        queries: `[B, heads, L, head_dim]`, the last L of the S positions.
        keys_values: keys and values, each `[B, kv_heads, S, head_dim]`.
        mask: bool `[L, S]` or `[S]`, for one query also `[B, 1, 1, S]`; `"causal"`; None: every query sees all.

    Returns:
        As `queries`.
    """
    keys, values = keys_values
    transposed = keys.swapaxes(-1, -2)
    return grouped_attention(queries, keys.shape[1], lambda x: x @ transposed, lambda x: x @ values, mask)


def grouped_attention(queries: mx.array, kv_heads: int, by_keys: Product, by_values: Product, mask: Mask) -> mx.array:
    """`plain_attention` by whatever way of multiplying.

    Args:
        queries, mask: of `plain_attention`.
        kv_heads: heads of keys and values.
        by_keys: `[B, kv_heads, n, head_dim]` → scores `[B, kv_heads, n, S]`.
        by_values: `[B, kv_heads, n, S]` → `[B, kv_heads, n, head_dim]`.
    """
    batch, heads, length, head_dim = queries.shape
    scores = by_keys(queries.reshape(batch, kv_heads, -1, head_dim))
    joined = scores.shape
    if mask is not None:
        span = joined[-1]
        if isinstance(mask, str):
            mask = mx.arange(span) <= mx.arange(span - length, span)[:, None]
        if length > 1:
            scores = scores.reshape(batch, kv_heads, heads // kv_heads, length, span)
        scores = mx.where(mask, scores, mx.finfo(scores.dtype).min).reshape(joined)
    return by_values(mx.softmax(scores, axis=-1, precise=True)).reshape(queries.shape)
