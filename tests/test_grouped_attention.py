"""Attention by groups of heads is MLX's attention, and reads keys and values once."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4_mlx.model.grouped_attention import FEW_QUERIES, plain_attention
from gemma4_mlx.model.packed_attention import GROUP_SIZE, PackedKeysValues, pack
from parity import pair
from tiny_tokenizer import SPECIAL_IDS

IDS = mx.array(np.random.default_rng(3).integers(len(SPECIAL_IDS), 512, (2, 60)))


def drawn(seed: int, *shape: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 4),
    group=st.integers(1, 8),
    length=st.integers(1, FEW_QUERIES),
    past=st.integers(0, 70),
    mask=st.sampled_from(["causal", "array", "row", "padding", None]),
    dtype=st.sampled_from([mx.float32, mx.bfloat16]),
)
@settings(max_examples=60)
def test_it_is_mlx_s_attention(batch, kv_heads, group, length, past, mask, dtype):
    span = past + length
    queries = (drawn(1, batch, kv_heads * group, length, 64) / 8).astype(dtype)
    keys, values = (drawn(seed, batch, kv_heads, span, 64).astype(dtype) for seed in (2, 3))
    length = queries.shape[2]
    # Nobody is without any key.
    seen: mx.array | str | None = mask
    if mask == "array":
        seen = (mx.random.uniform(shape=(length, span), key=mx.random.key(4)) < 0.5) | (mx.arange(span) == 0)
    elif mask == "row":
        seen = mx.arange(span) <= past
    elif mask == "padding":
        queries, length = queries[:, :, :1], 1
        seen = (mx.arange(span) >= mx.arange(batch)[:, None] % span)[:, None, None]
    ours = plain_attention(queries, (keys, values), seen)
    exact = [array.astype(mx.float32) for array in (queries, keys, values)]
    theirs = mx.fast.scaled_dot_product_attention(*exact, scale=1.0, mask=seen)
    assert ours.shape == queries.shape
    assert ours.dtype == dtype
    assert mx.abs(ours - theirs).max() < (1e-5 if dtype == mx.float32 else 0.05)


def products(monkeypatch: pytest.MonkeyPatch, name: str, work: Callable[[], mx.array]) -> list[tuple[int, ...]]:
    """The shapes of the second factors of all products of more than two dimensions."""
    shapes = []
    multiply = getattr(mx, name)

    def noted(a: mx.array, b: mx.array, *rest: object) -> mx.array:
        shapes.append(b.shape)
        return multiply(a, b, *rest)

    monkeypatch.setattr(mx, name, noted)
    mx.eval(work())
    return shapes


@pytest.mark.parametrize("bits", [8, 4])
def test_packed_keys_and_values_are_multiplied_once_for_a_group(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = PackedKeysValues((*pack(drawn(1, 1, 2, 40, 64), bits), *pack(drawn(2, 1, 2, 40, 64), bits)), bits)
    shapes = products(monkeypatch, "quantized_matmul", lambda: packed.attend(drawn(3, 1, 8, 1, 64), None))
    assert shapes == [(1, 2, 40, GROUP_SIZE * bits // 32)] * 2  # and no fifth dimension to repeat them over


@pytest.mark.parametrize("variant", ["e4b", "dense"])
def test_full_layers_read_a_token_by_groups_and_a_prompt_by_mlx_s_kernels(variant, monkeypatch):
    asked = []
    attention = mx.fast.scaled_dot_product_attention

    def noted(queries, *rest, **named):
        asked.append((queries.shape[2], queries.shape[3]))
        return attention(queries, *rest, **named)

    model = pair(variant).model
    cache = model.make_cache()
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", noted)
    config = model.config.text
    sizes = {config.layer_head_dim(layer) for layer in range(config.num_hidden_layers)}
    model(IDS, cache=cache)
    assert {size for length, size in asked if length == IDS.shape[1]} == sizes
    asked.clear()
    model(IDS[:, :1], cache=cache)
    model(IDS[:, :FEW_QUERIES], cache=cache)
    assert {size for _, size in asked} == {config.head_dim}


@pytest.mark.parametrize("variant", ["e2b", "e4b", "moe", "dense", "unified"])
def test_a_few_tokens_at_a_time_have_the_logits_of_the_whole_prompt(variant: str) -> None:
    model = pair(variant).model
    for bits in (None, 8):
        whole = np.array(model(IDS, cache=model.make_cache(bits)))
        cache, start, parts = model.make_cache(bits), 0, []
        for length in (1, 2, 5, 8, 9, 1, 8, 26):
            parts.append(np.array(model(IDS[:, start : start + length], cache=cache)))
            start += length
        difference = np.abs(np.concatenate(parts, axis=1) - whole)
        # Packed keys that rounding has moved may send a token to another expert.
        assert np.quantile(difference, 1 if bits is None else 0.95) < (1e-3 if bits is None else 0.02) * whole.std()
