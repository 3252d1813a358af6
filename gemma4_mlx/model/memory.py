"""How much memory a context takes, from the configuration alone."""

from __future__ import annotations

from ..config import TextConfig
from .packed_attention import GROUP_SIZE


def kv_bytes_per_token(text: TextConfig, kv_bits: int | None = None, value_bytes: int = 2) -> float:
    """What each further token of a long context adds: the keys and values of the full-attention layers.

    Args:
        text: the decoder's configuration.
        kv_bits: 8 or 4 if they are packed (`make_cache(kv_bits=…)`), else None.
        value_bytes: of one unpacked value: 2 in bf16 and fp16, 4 in fp32.
    """
    values = sum(
        2 * text.layer_kv_heads(i) * text.layer_head_dim(i)
        for i in range(text.first_kv_shared_layer)
        if not text.is_sliding(i)
    )
    # A packed group has a scale and a bias beside it.
    return values * (value_bytes if kv_bits is None else kv_bits / 8 + 2 * value_bytes / GROUP_SIZE)


def sliding_kv_bytes(text: TextConfig, value_bytes: int = 2) -> int:
    """What the sliding layers hold once the context is longer than their window; it does not grow from there."""
    return sum(
        2 * text.sliding_window * text.layer_kv_heads(i) * text.layer_head_dim(i) * value_bytes
        for i in range(text.first_kv_shared_layer)
        if text.is_sliding(i)
    )
