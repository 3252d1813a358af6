"""A conversation's cache in a file: it goes on, and back, as if it had never been away."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import gemma4_mlx as g4
from gemma4_mlx.generation import ConversationCache, generate_tokens
from gemma4_mlx.model import Gemma4
from gemma4_mlx.model.vision import VisionTower
from generation_checkpoints import lively, prompt_of

ANOTHER_MODEL = "was made with another model"
DAMAGED = "is damaged or not a conversation: begin it anew"


def cached(cache: ConversationCache, prompt: Any, max_tokens: int = 12) -> list[int]:
    return list(generate_tokens(cache.model, prompt, max_tokens=max_tokens, cache=cache))


def told(model: Gemma4, kv_bits: int | None = None) -> tuple[ConversationCache, list[int]]:
    """A conversation of two turns, longer than the window, and its ids."""
    cache = ConversationCache(model, kv_bits=kv_bits)
    ids = prompt_of(70)
    ids += cached(cache, ids)
    ids += prompt_of(20, seed=1)
    return cache, [*ids, *cached(cache, ids)]


@pytest.mark.parametrize(("variant", "kv_bits"), [("e2b", None), ("moe", None), ("dense", None)])
def test_a_conversation_goes_on_and_back_as_if_it_had_never_been_saved(variant, kv_bits, tmp_path):
    model = lively(variant).model
    cache, ids = told(model, kv_bits)
    cache.save(tmp_path / "talk.safetensors")
    before = (cache.tokens, cache.nbytes, cache.reused)
    for prompt in ([*ids, *prompt_of(5, seed=2)], [*ids[:85], *prompt_of(5, seed=3)], [*ids[:30], 9]):
        kept, loaded = (ConversationCache.load(tmp_path / "talk.safetensors", model) for _ in range(2))
        assert (loaded.tokens, loaded.reused) == (before[0], before[2])
        kept._held, _ = told(model, kv_bits)[0]._held, None
        assert cached(loaded, prompt) == cached(kept, prompt)
        assert loaded.reused == kept.reused


def test_packed_keys_and_values_are_kept_packed(tmp_path):
    model, _ = g4.load("demo")
    cache = ConversationCache(model, kv_bits=8)
    answer = cached(cache, [5, 6, 7, 8] * 5)
    cache.save(tmp_path / "talk")
    loaded = ConversationCache.load(tmp_path / "talk", model)
    more = [*[5, 6, 7, 8] * 5, *answer, 9]
    assert cached(loaded, more) == cached(cache, more)
    assert loaded.reused > 20


def test_a_picture_talked_about_before_is_not_encoded_again_after_loading(tmp_path, monkeypatch):
    model, processor = lively("e2b").model, lively("e2b").processor
    picture = Image.new("RGB", (96, 96), "red")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    cache = ConversationCache(model)
    answer = g4.generate(model, processor, messages, max_tokens=4, temperature=0, cache=cache)
    cache.save(tmp_path / "talk")
    messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": "And now?"}]
    expected = g4.generate(model, processor, messages, max_tokens=4, temperature=0, cache=cache).tokens
    monkeypatch.setattr(VisionTower, "__call__", None)
    loaded = ConversationCache.load(tmp_path / "talk", model)
    assert g4.generate(model, processor, messages, max_tokens=4, temperature=0, cache=loaded).tokens == expected


def test_the_file_is_its_owners_alone_and_takes_the_place_of_the_one_before(tmp_path):
    cache, _ = told(lively("e2b").model)
    path = tmp_path / "talk"
    path.write_text("what was there before")
    cache.save(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk"]
    assert ConversationCache.load(str(path), cache.model).tokens == cache.tokens


def test_what_cannot_be_saved_leaves_what_was_there(tmp_path):
    with pytest.raises(ValueError, match="empty cache"):
        ConversationCache(lively("e2b").model).save(tmp_path / "talk")
    cache, _ = told(lively("e2b").model)
    with pytest.raises(OSError, match="cannot be written"):
        cache.save(tmp_path / "nowhere" / "talk")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - the system's own words
        cache.save(tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_another_model_is_refused_even_of_the_same_shape_or_in_another_precision(tmp_path):
    cache, _ = told(lively("e2b").model)
    cache.save(tmp_path / "talk")
    other_weights, _ = g4.load(lively("e2b").folder)
    layer = other_weights.language_model.layers[1].self_attn.q_proj
    layer.weight = layer.weight + 1
    other_precision, _ = g4.load(lively("e2b").folder, dtype="float16")
    for other in (lively("moe").model, lively("dense").model, other_weights, other_precision):
        with pytest.raises(g4.InputError, match=ANOTHER_MODEL):
            ConversationCache.load(tmp_path / "talk", other)
    again, _ = g4.load(lively("e2b").folder)
    assert ConversationCache.load(tmp_path / "talk", again).tokens == cache.tokens


def test_a_missing_file_a_folder_and_other_files_are_told(tmp_path):
    model = lively("e2b").model
    for missing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(g4.InputError, match="there is no conversation"):
            ConversationCache.load(missing, model)
    path = tmp_path / "other"
    for content in (b"", b"no", b"\x00" * 64, (1 << 40).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(g4.InputError, match=DAMAGED):
            ConversationCache.load(path, model)
    mx.save_safetensors(str(tmp_path / "other.safetensors"), {"known": mx.ones(3)})
    with pytest.raises(g4.InputError, match=DAMAGED):
        ConversationCache.load(tmp_path / "other.safetensors", model)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("talk") / "talk.safetensors"
    told(lively("e2b").model)[0].save(path)
    return path


def loads_with(saved: Path, arrays: dict[str, mx.array], metadata: dict[str, str]) -> None:
    path = saved.with_name("changed.safetensors")
    mx.save_safetensors(str(path), arrays, metadata)
    ConversationCache.load(path, lively("e2b").model)


WILD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=3), st.just([]), st.just([[1, []]])
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["kv_bits", "offset", "oldest", "prompt_tokens", "snapshots"]), value=WILD)
def test_a_layout_that_says_something_else_is_refused(saved, key, value):
    arrays, metadata = mx.load(str(saved), return_metadata=True)
    layout = json.loads(metadata["layout"])
    if layout[key] == value or (key == "prompt_tokens" and isinstance(value, int) and layout["reused"] <= value <= 512):
        return
    with pytest.raises(g4.InputError, match=DAMAGED):
        loads_with(saved, arrays, {**metadata, "layout": json.dumps({**layout, key: value})})


@pytest.mark.parametrize("layout", ["", "[]", "{}", "3", "null", "[" * 100_000, '{"kv_bits": [8]}'])
def test_a_layout_that_is_none_is_refused(saved, layout):
    arrays, metadata = mx.load(str(saved), return_metadata=True)
    with pytest.raises(g4.InputError, match=DAMAGED):
        loads_with(saved, arrays, {**metadata, "layout": layout})


def test_tensors_that_are_missing_more_or_other_ones_are_refused(saved):
    arrays, metadata = mx.load(str(saved), return_metadata=True)
    keys = arrays["layers.0.keys"]
    changes = [
        {"more": mx.ones(1)},
        {"layers.0.keys": keys[..., :-1]},
        {"layers.0.keys": keys[:, :, :-1]},
        {"layers.0.keys": keys.astype(mx.int32)},
        {"layers.0.keys": mx.concatenate([keys, keys], axis=2)},
        {"layers.0.keys": keys[0]},
        {"known": arrays["known"][:-1]},
        {"known": arrays["known"].astype(mx.float32)},
        {"known": mx.full(arrays["known"].shape, 10**6, mx.int64)},
    ]
    for change in changes:
        with pytest.raises(g4.InputError, match=DAMAGED):
            loads_with(saved, {**arrays, **change}, metadata)
    for name in arrays:
        with pytest.raises(g4.InputError, match=DAMAGED):
            loads_with(saved, {other: array for other, array in arrays.items() if other != name}, metadata)


def test_a_file_that_was_cut_short_is_refused(saved):
    path = saved.with_name("short")
    content = saved.read_bytes()
    for length in np.linspace(0, len(content) - 1, 20, dtype=int).tolist():
        path.write_bytes(content[:length])
        with pytest.raises(g4.InputError, match=DAMAGED):
            ConversationCache.load(path, lively("e2b").model)


def test_a_cache_of_the_wrong_kind_is_told_what_is_wanted():
    model, processor = lively("e2b").model, lively("e2b").processor
    for wrong in (model.make_cache(), [], "talk.safetensors", {}):
        with pytest.raises(ValueError, match=r"cache must be a ConversationCache, not \w+: make it with"):
            g4.generate(model, processor, "Hi", cache=wrong)
    for wrong in ([], "talk.safetensors", {}, lively("dense").model.make_cache()[:1], [None] * 3, 3):
        with pytest.raises(ValueError, match=r"what this model's make_cache\(\) gives, or a ConversationCache"):
            generate_tokens(model, [5, 6], cache=wrong)
