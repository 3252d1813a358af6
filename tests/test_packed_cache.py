"""Packed keys and values: attention over them is attention over what they stand for."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

import gemma4_mlx as g4
from checkpoints import VARIANTS
from gemma4_mlx.model.full_cache import FullCache
from gemma4_mlx.model.packed_attention import GROUP_SIZE, PackedKeysValues, pack
from gemma4_mlx.model.sliding_cache import SlidingCache
from parity import pair
from tiny_tokenizer import SPECIAL_IDS

IDS = mx.array(np.random.default_rng(9).integers(len(SPECIAL_IDS), 512, (1, 120)))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("length", "mask"), [(1, None), (5, "causal"), (3, "array")])
def test_attention_over_packed_keys_is_attention_over_what_they_stand_for(
    bits: int, length: int, mask: str | None
) -> None:
    mx.random.seed(1)
    queries = mx.random.normal((2, 8, length, 64))
    keys, values = (mx.random.normal((2, 2, 40, 64)) for _ in range(2))
    packed = pack(keys, bits), pack(values, bits)
    plain = [mx.dequantize(*parts, group_size=GROUP_SIZE, bits=bits) for parts in packed]
    chosen = mx.random.uniform(shape=(length, 40)) < 0.5 if mask == "array" else mask
    expected = mx.fast.scaled_dot_product_attention(queries, *plain, scale=1.0, mask=chosen)
    ours = PackedKeysValues((*packed[0], *packed[1]), bits).attend(queries, chosen)
    assert mx.abs(ours - expected).max() < 1e-4


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.02), (4, 0.4)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_packing_changes_the_logits_little_and_the_steps_not_at_all(variant: str, bits: int, tolerance: float) -> None:
    model = pair(variant).model
    whole = np.array(model(IDS))
    cache = model.make_cache(kv_bits=bits)
    chunks = [model(IDS[:, a:b], cache=cache) for a, b in ((0, 50), (50, 51), (51, 100))]
    steps = [model.step(IDS[:, i : i + 1], cache) for i in range(100, 120)]
    packed = np.array(mx.concatenate([*chunks, *steps], axis=1))
    # Not the largest difference: in the mixture of experts a hair's breadth may send a token to another expert.
    assert np.quantile(np.abs(packed - whole), 0.95) < tolerance * whole.std()
    again = model.make_cache(kv_bits=bits)
    model(IDS[:, :100], cache=again)
    called = np.array(mx.concatenate([model(IDS[:, i : i + 1], cache=again) for i in range(100, 120)], axis=1))
    assert np.quantile(np.abs(packed[:, 100:] - called), 0.95) < 0.01 * whole.std()


@pytest.mark.parametrize(("bits", "share"), [(8, 0.35), (4, 0.2)])
def test_packing_shrinks_the_full_layers_and_leaves_the_sliding_ones(bits: int, share: float) -> None:
    model = pair("dense").model
    plain, packed = model.make_cache(), model.make_cache(kv_bits=bits)
    for cache in (plain, packed):
        model(IDS, cache=cache)
    for whole, small in zip(plain, packed, strict=True):
        if isinstance(small, SlidingCache):
            assert small.nbytes == whole.nbytes
        else:
            assert small.nbytes < share * whole.nbytes  # of float32


def test_tokens_can_be_generated_on_a_packed_cache() -> None:
    model = pair("e2b").model
    prompt = IDS[0, :40].tolist()
    cache = model.make_cache(kv_bits=8)
    tokens = list(g4.generate_tokens(model, prompt, max_tokens=10, cache=cache))
    assert tokens == list(g4.generate_tokens(model, prompt, max_tokens=10))
    assert all(layer_cache.offset == 49 for layer_cache in cache)


def test_a_packed_cache_forgets_its_last_tokens() -> None:
    cache = FullCache(bits=8)
    keys = mx.random.normal((1, 1, 10, 64))
    cache.update_and_fetch(keys, keys)
    cache.trim(3)
    seen = cache.update_and_fetch(keys[:, :, 7:], keys[:, :, 7:])
    whole = FullCache(bits=8).update_and_fetch(keys, keys)
    assert all(mx.array_equal(a, b) for a, b in zip(seen.parts, whole.parts, strict=True))


@pytest.mark.parametrize("bits", [0, 2, 16, "8"])
def test_other_bits_are_refused(bits: object) -> None:
    with pytest.raises(ValueError, match="kv_bits must be 8, 4 or None"):
        pair("e2b").model.make_cache(kv_bits=bits)
