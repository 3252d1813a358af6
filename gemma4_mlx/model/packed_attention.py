"""Attention over keys and values packed to 8 or 4 bits, read as they are.

What a long context costs in memory is the keys and values of the full-attention layers; those of sliding layers stop
growing at the window and are never packed.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from .attention_mask import Mask
from .grouped_attention import grouped_attention

GROUP_SIZE = 64  # channels that share a scale and a bias


def pack(array: mx.array, bits: int) -> tuple[mx.array, mx.array, mx.array]:
    """`[B, kv_heads, L, head_dim]` → words, scales and biases, each `[B, kv_heads, L, …]`."""
    words, scales, biases = mx.quantize(array, group_size=GROUP_SIZE, bits=bits)
    return words, scales, biases


@dataclass(frozen=True)
class PackedKeysValues:
    """What the queries of a packed layer attend to.

    Attributes:
        parts: words, scales and biases of the keys, then those of the values: each `[B, kv_heads, S, …]`.
        bits: 8 or 4.
    """

    parts: tuple[mx.array, ...]
    bits: int

    def attend(self, queries: mx.array, mask: Mask) -> mx.array:
        """Scaled-dot-product attention of scale 1: `[B, heads, L, head_dim]` → the same shape.

        Args:
            queries: the last L of the S positions.
            mask: bool `[L, S]` or `[S]`, `"causal"`, or None for one query that sees all.
        """
        keys, key_scales, key_biases, values, value_scales, value_biases = self.parts

        def by_keys(x: mx.array) -> mx.array:
            return mx.quantized_matmul(x, keys, key_scales, key_biases, True, GROUP_SIZE, self.bits)

        def by_values(x: mx.array) -> mx.array:
            return mx.quantized_matmul(x, values, value_scales, value_biases, False, GROUP_SIZE, self.bits)

        return grouped_attention(queries, keys.shape[1], by_keys, by_values, mask)


KeysValues = tuple[mx.array, ...] | PackedKeysValues  # a pair of `[B, kv_heads, S, head_dim]`, or both packed


def packed_or_plain(keys: mx.array, values: mx.array, bits: int | None) -> tuple[mx.array, ...]:
    """Keys and values as a cache's buffers hold them."""
    return (keys, values) if bits is None else (*pack(keys, bits), *pack(values, bits))


def as_keys_values(buffers: tuple[mx.array, ...], bits: int | None) -> KeysValues:
    """What is in a cache's buffers, as attention takes it."""
    return buffers if bits is None else PackedKeysValues(buffers, bits)
