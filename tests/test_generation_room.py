"""A prompt whose keys and values cannot fit is refused before it is read, and one that fits never is."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gemma4_mlx as g4
from checkpoints import VARIANTS
from gemma4_mlx.config import Config
from gemma4_mlx.generation import ConversationCache, generate_tokens, room
from gemma4_mlx.generation.room import cache_bytes, check_room, device_memory, weight_bytes
from gemma4_mlx.model import Gemma4
from generation_checkpoints import lively, prompt_of

CONFIGS = Path(__file__).parent / "configs"


def machine_with(memory: int, monkeypatch) -> None:
    monkeypatch.setattr(room, "physical_memory", lambda: memory)


def a_31b() -> Gemma4:
    """Of random weights that nobody has computed, or could here."""
    return Gemma4(Config.from_dict(json.loads((CONFIGS / "31b.json").read_text())))


@pytest.mark.parametrize("kv_bits", [None, 8, 4])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tokens", [20, 512])
def test_what_a_cache_takes_is_known_before_it_is_filled(variant, kv_bits, tokens):
    model = lively(variant).model
    cache = model.make_cache(kv_bits)
    known = cache_bytes(model, cache, tokens)
    model(mx.array([prompt_of(tokens)]), cache=cache, last_only=True)
    assert known == sum(buffer[..., : layer.size(), :].nbytes for layer in cache for buffer in layer.buffers)


def test_a_prompt_that_cannot_fit_is_refused_with_numbers_at_the_call(monkeypatch):
    model = a_31b()
    weights = weight_bytes(model)
    machine_with(weights + 6_000_000_000, monkeypatch)
    with pytest.raises(g4.OutOfMemoryError, match="shorten the prompt, or take a smaller model") as caught:
        generate_tokens(model, np.ones(200_000, np.int32))
    error = caught.value
    assert error.available == 6_000_000_000
    assert error.needed == cache_bytes(model, model.make_cache(), 200_000) > 30_000_000_000
    assert "200,000 tokens take 34.4 GB, and 6.0 GB are left" in str(error)
    assert "\n" not in str(error)


def test_one_that_just_fits_is_read_and_one_token_more_is_not(monkeypatch):
    model = lively("e2b").model
    needed = cache_bytes(model, model.make_cache(), 100)
    machine_with(weight_bytes(model) + needed, monkeypatch)
    assert list(generate_tokens(model, prompt_of(100), 3))
    with pytest.raises(g4.OutOfMemoryError):
        generate_tokens(model, prompt_of(101), 3)


def test_a_model_too_large_for_the_machine_is_not_blamed_on_a_small_prompt(monkeypatch):
    model = lively("e2b").model
    machine_with(weight_bytes(model) - 1000, monkeypatch)
    assert list(generate_tokens(model, prompt_of(100), 3))
    machine_with(cache_bytes(model, model.make_cache(), 100) - 1, monkeypatch)
    with pytest.raises(g4.OutOfMemoryError):
        generate_tokens(model, prompt_of(100), 3)


def test_packed_caches_count_as_what_they_take(monkeypatch):
    model = lively("dense").model
    machine_with(weight_bytes(model) + cache_bytes(model, model.make_cache(4), 800), monkeypatch)
    with pytest.raises(g4.OutOfMemoryError):
        generate_tokens(model, prompt_of(800), 1)
    for cache in (model.make_cache(4), ConversationCache(model, kv_bits=4)):
        assert list(generate_tokens(model, prompt_of(800), 1, cache=cache))


def test_what_a_cache_holds_counts_and_a_refusal_leaves_it_as_it_was(monkeypatch):
    model = lively("e2b").model
    plain, conversation = model.make_cache(), ConversationCache(model)
    for cache in (plain, conversation):
        list(generate_tokens(model, prompt_of(60), 1, cache=cache))
    machine_with(weight_bytes(model) + cache_bytes(model, plain, 100), monkeypatch)
    with pytest.raises(g4.OutOfMemoryError, match="101 tokens"):
        generate_tokens(model, prompt_of(41), cache=plain)
    with pytest.raises(g4.OutOfMemoryError, match="101 tokens"):
        generate_tokens(model, [*prompt_of(60), *prompt_of(41)], cache=conversation)
    assert (plain.offset, conversation.tokens) == (60, 60)
    list(generate_tokens(model, [*prompt_of(60), *prompt_of(9)], 1, cache=conversation))
    assert conversation.reused == 60


def test_every_way_of_asking_refuses_it(monkeypatch):
    pair, message = lively("e2b"), "word " * 60
    machine_with(weight_bytes(pair.model) + 100, monkeypatch)
    for ask in (
        lambda: g4.generate(pair.model, pair.processor, message),
        lambda: g4.stream_generate(pair.model, pair.processor, message),
        lambda: g4.score(pair.model, pair.processor, message, ["yes"]),
        lambda: g4.batch_generate(pair.model, pair.processor, [message]),
    ):
        with pytest.raises(g4.OutOfMemoryError, match="keys and values") as caught:
            ask()
        assert caught.value.available == 100


@pytest.mark.parametrize("answer", [0, -1, ValueError("unrecognized configuration name"), OSError("no such thing")])
def test_a_machine_that_does_not_say_its_memory_refuses_nothing(answer, monkeypatch):
    def asked():
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(room, "physical_memory", asked)
    assert device_memory() is None
    check_room(a_31b(), a_31b().make_cache(), 10**9)


@pytest.mark.parametrize(
    ("facts", "known"),
    [
        ({"max_recommended_working_set_size": 12_000_000_000}, 12_000_000_000),
        ({"device_name": "Apple M9"}, None),
        ({"max_recommended_working_set_size": 0}, None),
        ({"max_recommended_working_set_size": "many"}, None),
    ],
)
def test_a_gpu_has_what_the_system_recommends_for_it(facts, known, monkeypatch):
    model = a_31b()
    cache = model.make_cache()
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx, "device_info", lambda: facts)
    assert device_memory() == known
    if known is None:
        check_room(model, cache, 200_000)
    else:
        with pytest.raises(g4.OutOfMemoryError, match=r"the GPU may use.*iogpu\.wired_limit_mb"):
            check_room(model, cache, 200_000)


@given(st.integers(1, 10**6), st.sampled_from([None, 8, 4]))
def test_more_tokens_never_take_less_and_packing_never_more(tokens, kv_bits):
    model = lively("moe").model
    whole, packed = model.make_cache(), model.make_cache(kv_bits)
    assert cache_bytes(model, packed, tokens) <= cache_bytes(model, packed, tokens + 1)
    assert cache_bytes(model, packed, tokens) <= cache_bytes(model, whole, tokens)
