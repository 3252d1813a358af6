"""What a context takes, computed from the configuration, is what the caches hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import mlx.core as mx
import pytest

from checkpoints import VARIANTS
from gemma4_mlx.config import Config, TextConfig
from gemma4_mlx.model.packed_attention import GROUP_SIZE
from gemma4_mlx.model.sliding_cache import SlidingCache
from parity import pair

ROOT = Path(__file__).parents[1]


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


@pytest.mark.parametrize("kv_bits", [None, 8, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_caches_hold_what_the_configuration_says(variant: str, kv_bits: int | None) -> None:
    model = pair(variant).model
    cache = model.make_cache(kv_bits)
    tokens = 512  # a whole number of the blocks that buffers grow by
    model(mx.ones((1, tokens), mx.int32), cache=cache, last_only=True)
    text = model.config.text
    held = sum(layer_cache.nbytes for layer_cache in cache if not isinstance(layer_cache, SlidingCache))
    assert held == tokens * kv_bytes_per_token(text, kv_bits, value_bytes=4)
    held = sum(layer_cache.nbytes for layer_cache in cache if isinstance(layer_cache, SlidingCache))
    assert held == sliding_kv_bytes(text, value_bytes=4)


def test_the_table_in_the_documentation_is_computed_from_the_published_configurations() -> None:
    rows = re.findall(r"^\| `(\S+)` \| (.+) \|$", (ROOT / "docs" / "memory.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == ["e2b", "e4b", "12b", "26b-a4b", "31b"]
    for name, cells in rows:
        text = Config.from_dict(json.loads((ROOT / "tests" / "configs" / f"{name}.json").read_text())).text
        thousands = [kv_bytes_per_token(text, bits) * 1000 / 1e6 for bits in (None, 8, 4)]
        expected = [*(f"{mb:.1f} MB" for mb in thousands), f"{sliding_kv_bytes(text) / 1e6:.0f} MB"]
        assert [cell.strip() for cell in cells.split("|")] == expected
