"""The caches: what they return, how large they grow, and that they can be put back."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import VARIANTS
from gemma4_mlx.model.attention_mask import attention_mask
from gemma4_mlx.model.cache import Caches
from gemma4_mlx.model.full_cache import FullCache
from gemma4_mlx.model.rows import Rows
from gemma4_mlx.model.sliding_cache import SlidingCache
from parity import pair
from tiny_tokenizer import SPECIAL_IDS

WINDOW = 6


def numbered(start: int, length: int) -> mx.array:
    """Keys `[1, 1, length, 1]` that hold their own positions."""
    return mx.arange(start, start + length, dtype=mx.float32).reshape(1, 1, length, 1)


@settings(max_examples=200)
@given(chunks=st.lists(st.integers(1, 15), min_size=1, max_size=12))
def test_a_sliding_cache_returns_what_the_window_shows_however_the_tokens_come(chunks: list[int]) -> None:
    cache, position = SlidingCache(WINDOW), 0
    for length in chunks:
        mask = cache.make_mask(length, return_array=length > 1)
        keys, values = cache.update_and_fetch(numbered(position, length), -numbered(position, length))
        held = np.array(keys)[0, 0, :, 0]
        assert np.array_equal(np.array(values)[0, 0, :, 0], -held)
        for query in range(length):
            visible = set(held.tolist()) if length == 1 else set(held[np.array(mask)[query]].tolist())
            seen = position + query
            assert visible == set(range(max(0, seen - WINDOW + 1), seen + 1))
        position += length
        assert cache.offset == position
        assert cache.size() == min(position, WINDOW)
        assert cache.capacity <= WINDOW


@given(chunks=st.lists(st.integers(1, 300), min_size=1, max_size=6))
@settings(max_examples=50)
def test_a_full_cache_returns_every_token_in_order(chunks: list[int]) -> None:
    cache, position = FullCache(), 0
    for length in chunks:
        keys, _ = cache.update_and_fetch(numbered(position, length), numbered(position, length))
        position += length
        assert np.array_equal(np.array(keys)[0, 0, :, 0], np.arange(position))


def test_a_full_cache_forgets_its_last_tokens() -> None:
    cache = FullCache()
    cache.update_and_fetch(numbered(0, 10), numbered(0, 10))
    assert cache.trim(4) == 4
    keys, _ = cache.update_and_fetch(numbered(100, 1), numbered(100, 1))
    assert np.array(keys)[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 100]


def test_a_sliding_cache_forgets_only_until_its_ring_has_wrapped() -> None:
    cache = SlidingCache(WINDOW)
    cache.update_and_fetch(numbered(0, WINDOW - 1), numbered(0, WINDOW - 1))
    assert cache.trim(2) == 2
    cache.update_and_fetch(numbered(3, 9), numbered(3, 9))
    assert not cache.is_trimmable()
    assert cache.trim(1) == 0
    assert cache.offset == 12


def interrupt_half_way(cache: Caches, lost: int) -> None:
    """Ctrl-C when half of the layers have been given `lost` tokens that the others have not."""
    with cache.restored_on_error():
        for layer_cache in cache[: len(cache) // 2]:
            _, heads, _, head_dim = layer_cache.buffers[0].shape
            junk = mx.full((1, heads, lost, head_dim), 1e3)
            layer_cache.update_and_fetch(junk, junk)
        raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted_after", [1, 5, 30])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupt_between_two_layers_leaves_the_cache_as_it_was(variant: str, interrupted_after: int) -> None:
    model = pair(variant).model
    ids = mx.array(np.random.default_rng(0).integers(len(SPECIAL_IDS), 512, (1, 60)))
    expected = np.array(model(ids))[0, interrupted_after:]
    for lost in (1, 7):
        cache = model.make_cache()
        model(ids[:, :interrupted_after], cache=cache)
        with pytest.raises(KeyboardInterrupt):
            interrupt_half_way(cache, lost)
        steps = [model(ids[:, i : i + 1], cache=cache) for i in range(interrupted_after, 60)]
        assert np.allclose(np.array(mx.concatenate(steps, axis=1))[0], expected, atol=1e-4)


def test_joining_leaves_the_caches_as_they_were() -> None:
    model = pair("e2b").model
    ids = mx.array(np.random.default_rng(0).integers(len(SPECIAL_IDS), 512, (1, 40)))
    expected = np.array(model(ids[:, :31], last_only=True))
    caches = [model.make_cache(), model.make_cache()]
    for cache, length in zip(caches, (30, 9), strict=True):
        model(ids[:, :length], cache=cache)
    rows = Rows()
    rows.add(caches)
    for i in range(4):
        model.step_ahead(ids[:, i : i + 2].T, rows.cache, rows.padding)
    assert rows.padding.tolist() == [0, 21]
    assert [cache.offset for cache in caches] == [30, 9]
    np.testing.assert_allclose(np.array(model(ids[:, 30:31], cache=caches[0])), expected, atol=1e-4)


def test_packed_caches_are_not_joined() -> None:
    model = pair("e2b").model
    caches = [model.make_cache(kv_bits=8), model.make_cache(kv_bits=8)]
    for cache in caches:
        model(mx.array([[40, 41, 42]]), cache=cache)
    with pytest.raises(ValueError, match="without kv_bits"):
        Rows().add(caches)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sliding_layer_never_holds_more_than_its_window_whatever_the_prompt(variant: str) -> None:
    model = pair(variant).model
    window = model.config.text.sliding_window
    cache = model.make_cache()
    for length in (5 * window, 1, 3, window + 1, 1, 1):
        model(mx.ones((2, length), mx.int32), cache=cache)
        for layer_cache in cache:
            if isinstance(layer_cache, SlidingCache):
                _, heads, capacity, head_dim = layer_cache.buffers[0].shape
                assert capacity <= window
                assert layer_cache.nbytes <= 2 * 2 * window * heads * head_dim * 4


def test_kv_shared_layers_have_no_cache() -> None:
    assert len(pair("e2b").model.make_cache()) == 3
    assert len(pair("dense").model.make_cache()) == 5


def test_short_masks_stay_words() -> None:
    assert attention_mask(1, 10) is None
    assert attention_mask(4, 10) == "causal"
    assert attention_mask(4, 2, window=6) == "causal"
    assert np.array(attention_mask(2, 5, window=6)).tolist() == [
        [True, True, True, True, True, True, False],
        [False, True, True, True, True, True, True],
    ]
