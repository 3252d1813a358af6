"""A model's cache goes back: by itself where it can, to snapshots, and to every position between two near ones."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4_mlx.model.cache import Caches
from gemma4_mlx.model.full_cache import FullCache
from gemma4_mlx.model.sliding_cache import SlidingCache

WINDOW = 6


def empty() -> Caches:
    return Caches([SlidingCache(WINDOW), FullCache(), SlidingCache(WINDOW)])


def add(cache: Caches, tokens: list[int]) -> None:
    """Keys are the tokens, values their negatives."""
    array = mx.array(tokens, mx.float32).reshape(1, 1, -1, 1)
    for layer in cache:
        layer.update_and_fetch(array, -array)


def visible(cache: Caches) -> Iterator[list[float]]:
    """What the next token sees, layer by layer."""
    for layer in cache:
        keys, values = layer.copy().ordered()
        seen = np.array(keys)[0, 0, :, 0]
        assert np.array_equal(np.array(values)[0, 0, :, 0], -seen)
        yield seen[-(WINDOW - 1) :].tolist() if isinstance(layer, SlidingCache) else seen.tolist()


def holds(cache: Caches, tokens: list[int]) -> bool:
    window = [float(token) for token in tokens[-(WINDOW - 1) :]]
    return cache.offset == len(tokens) and [*visible(cache)] == [window, [float(t) for t in tokens], window]


@given(pieces=st.lists(st.integers(1, 9), min_size=1, max_size=8), data=st.data())
@settings(max_examples=150, deadline=None)
def test_it_comes_back_to_any_snapshot_and_to_all_that_two_near_ones_reach(pieces: list[int], data: st.DataObject):
    cache, tokens, snapshots = empty(), [], [empty().snapshot()]
    for piece in pieces:
        new = [len(tokens) + 100 + i for i in range(piece)]
        add(cache, new)
        tokens += new
        snapshots.append(cache.snapshot())
    at = data.draw(st.integers(1, len(snapshots) - 1))
    earlier, later = snapshots[at - 1], snapshots[at]
    offset = data.draw(st.integers(earlier.offset, later.offset))
    near = later.offset - earlier.offset <= WINDOW
    assert later.reaches(offset, earlier) or not near
    if later.reaches(offset, earlier) and offset:
        cache.back_to(later.at(offset, earlier))
        assert holds(cache, tokens[:offset])
        # And goes on as if nothing had been there.
        for new in (7, 8, 9):
            add(cache, [new])
        add(cache, [1, 2])
        assert holds(cache, [*tokens[:offset], 7, 8, 9, 1, 2])


@given(pieces=st.lists(st.integers(1, 9), min_size=1, max_size=8), data=st.data())
@settings(max_examples=100, deadline=None)
def test_it_rewinds_as_far_as_nothing_is_lost_and_refuses_to_go_further(pieces: list[int], data: st.DataObject):
    cache, tokens = empty(), []
    for piece in pieces:
        new = [len(tokens) + 100 + i for i in range(piece)]
        add(cache, new)
        tokens += new
    offset = data.draw(st.integers(1, len(tokens)))
    if offset >= len(tokens) - 1 or len(tokens) <= WINDOW:
        cache.rewind(offset)
        assert holds(cache, tokens[:offset])
    else:
        with pytest.raises(ValueError, match="cannot go back"):
            cache.rewind(offset)
        assert holds(cache, tokens)
    with pytest.raises(ValueError, match="cannot go back"):
        cache.rewind(len(tokens) + 1)


def test_twice_by_one_token_is_refused_once_the_ring_has_wrapped() -> None:
    cache = empty()
    add(cache, list(range(20)))
    cache.rewind(19)
    with pytest.raises(ValueError, match="cannot go back to 18"):
        cache.rewind(18)
    add(cache, [50])
    assert holds(cache, [*range(19), 50])


def test_a_copy_and_the_original_go_their_own_ways() -> None:
    cache = empty()
    add(cache, list(range(10)))
    twin = cache.copy()
    assert type(twin) is Caches
    add(cache, [50])
    add(twin, [60, 61])
    assert holds(cache, [*range(10), 50])
    assert holds(twin, [*range(10), 60, 61])


def test_what_fails_half_way_leaves_every_layer_as_it_was() -> None:
    for length in (1, 3, 9):
        cache = empty()
        add(cache, list(range(10)))
        array = mx.zeros((1, 1, length, 1))

        def failing(cache: Caches = cache, array: mx.array = array) -> None:
            with cache.restored_on_error():
                cache[0].update_and_fetch(array, array)
                cache[1].update_and_fetch(array, array)
                raise MemoryError

        with pytest.raises(MemoryError):
            failing()
        assert holds(cache, list(range(10)))


def test_another_kind_of_list_of_the_same_layers_is_the_same_cache() -> None:
    layers = [*empty()]
    cache = Caches.of(layers)
    add(cache, list(range(10)))
    snapshot = cache.snapshot()
    add(cache, [50, 51])
    cache.back_to(snapshot)
    assert [layer.offset for layer in layers] == [10, 10, 10]
    assert Caches.of(cache) is cache
