"""Caches on disk: the same tokens after, mlx-lm's format, and no other model's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import cache as mlx_lm_cache

import gemma4_mlx as g4
from checkpoints import VARIANTS
from gemma4_mlx import InputError
from gemma4_mlx.generation.prompt_cache import load_prompt_cache, save_prompt_cache
from parity import pair
from tiny_tokenizer import SPECIAL_IDS

IDS = np.random.default_rng(10).integers(len(SPECIAL_IDS), 512, 90).tolist()


@pytest.mark.parametrize("kv_bits", [None, 8])
@pytest.mark.parametrize("length", [5, 24, 60, 90])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loaded_cache_goes_on_as_the_saved_one_would(
    variant: str, length: int, kv_bits: int | None, tmp_path: Path
) -> None:
    model = pair(variant).model
    cache = model.make_cache(kv_bits)
    model(mx.array([IDS[: length - 2]]), cache=cache)
    for token in IDS[length - 2 : length]:
        model.step(mx.array([[token]]), cache)
    save_prompt_cache(tmp_path / "prompt.safetensors", cache, model)
    loaded = load_prompt_cache(tmp_path / "prompt.safetensors", model)
    assert loaded[0].offset == length
    question = IDS[:7]
    expected = list(g4.generate_tokens(model, question, max_tokens=12, cache=cache))
    assert list(g4.generate_tokens(model, question, max_tokens=12, cache=loaded)) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["prompt.safetensors"]


@pytest.mark.parametrize("length", [5, 24, 60])
def test_mlx_lm_reads_our_file_and_we_read_its(length: int, tmp_path: Path) -> None:
    model = pair("e4b").model
    ours = model.make_cache()
    model(mx.array([IDS[:length]]), cache=ours)
    model(mx.array([IDS[length : length + 1]]), cache=ours)
    save_prompt_cache(tmp_path / "ours.safetensors", ours, model)
    theirs = mlx_lm_cache.load_prompt_cache(str(tmp_path / "ours.safetensors"))
    # Its caches in our model: the interface is the same.
    tail = mx.array([IDS[60:75]])
    expected = np.array(model(tail, cache=ours.copy()))
    assert np.abs(np.array(model(tail, cache=theirs)) - expected).max() < 1e-4

    for last in (1, 4):  # a step, and a chunk after which mlx-lm's ring is longer than the window
        theirs = [
            mlx_lm_cache.KVCache() if not hasattr(c, "window") else mlx_lm_cache.RotatingKVCache(max_size=c.window)
            for c in ours
        ]
        model(mx.array([IDS[:length]]), cache=theirs)
        model(mx.array([IDS[length : length + last]]), cache=theirs)
        mlx_lm_cache.save_prompt_cache(str(tmp_path / "theirs.safetensors"), theirs)
        loaded = load_prompt_cache(tmp_path / "theirs.safetensors", model)
        fresh = model.make_cache()
        model(mx.array([IDS[: length + last]]), cache=fresh)
        expected = np.array(model(tail, cache=fresh))
        assert np.abs(np.array(model(tail, cache=loaded)) - expected).max() < 1e-4


def test_another_model_is_refused(tmp_path: Path) -> None:
    model = pair("e2b").model
    cache = model.make_cache()
    model(mx.array([IDS]), cache=cache)
    save_prompt_cache(tmp_path / "prompt", cache, model)
    for other in (pair("e2b", seed=1).model, pair("e4b").model, pair("dense").model):
        with pytest.raises(InputError, match="made with another model"):
            load_prompt_cache(tmp_path / "prompt", other)


def test_a_missing_or_damaged_file_is_told(tmp_path: Path) -> None:
    model = pair("e2b").model
    with pytest.raises(InputError, match="there is no prompt cache"):
        load_prompt_cache(tmp_path / "nothing", model)
    cache = model.make_cache()
    model(mx.array([IDS]), cache=cache)
    path = tmp_path / "prompt"
    save_prompt_cache(path, cache, model)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="is damaged or not a prompt cache: make it again"):
        load_prompt_cache(path, model)
    path.write_bytes(b"what is this?")
    with pytest.raises(InputError, match="is damaged or not a prompt cache: make it again"):
        load_prompt_cache(path, model)
    mx.save_safetensors(str(tmp_path / "other.safetensors"), {"a": mx.ones(3)})
    with pytest.raises(InputError, match="not a prompt cache"):
        load_prompt_cache(tmp_path / "other.safetensors", model)


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        ({"a": mx.ones(1)}, {"2.300000000": "x"}),
        ({"a": mx.ones(1)}, {"0.a": "x", "1.0": "KVCache", "2.0": "", "1.300000000": "KVCache"}),
        ({"0.300000000": mx.ones(1)}, {"0.a": "x", "1.0": "KVCache", "2.0": ""}),
        ({"300000000": mx.ones(1)}, {"0.a": "x", "1.0": "KVCache", "2.0": ""}),
        ({"-300000000": mx.ones(1)}, {"0.a": "x", "1.0": "KVCache", "2.0": ""}),
        ({"٣٠٠٠٠٠٠٠٠": mx.ones(1)}, {"0.a": "x", "1.0": "KVCache", "2.0": ""}),
        ({"0" + ".0" * 100_000: mx.ones(1)}, {"0.a": "x", "1.0": "KVCache", "2.0": ""}),
        ({"0.0": mx.ones(1), "0.1": mx.ones(1), "0.2": mx.array(1)}, {"1.0": "KVCache", "2.0": "", "2.1.0": "0.2"}),
        ({"0.0": mx.ones(1), "0.1": mx.ones(1)}, {"1.0": "KVCache", "2.0": "", "2.1.0": "0.1", "2.1.1": "scalar"}),
    ],
)
def test_names_of_a_file_build_no_endless_lists(
    arrays: dict[str, mx.array], metadata: dict[str, str], tmp_path: Path
) -> None:
    mx.save_safetensors(str(tmp_path / "cache.safetensors"), arrays, metadata)
    start = time.perf_counter()
    with pytest.raises(InputError, match="not a prompt cache of Gemma 4: make it again"):
        load_prompt_cache(tmp_path / "cache.safetensors", pair("e2b").model)
    assert time.perf_counter() - start < 2


def test_a_cache_that_holds_fewer_tokens_than_it_says_is_refused(tmp_path: Path) -> None:
    model = pair("e2b").model
    cache = model.make_cache()
    model(mx.array([IDS[:20]]), cache=cache)
    cache.rewind(10)
    path = tmp_path / "cache.safetensors"
    save_prompt_cache(path, cache, model)
    loaded: Any = mx.load(str(path), return_metadata=True)
    arrays = {name: mx.array(20) if value.ndim == 0 and value == 10 else value for name, value in loaded[0].items()}
    mx.save_safetensors(str(path), arrays, loaded[1])
    with pytest.raises(InputError, match="another model"):
        load_prompt_cache(path, model)


def test_an_empty_cache_and_a_folder_that_is_not_there_are_errors(tmp_path: Path) -> None:
    model = pair("e2b").model
    with pytest.raises(ValueError, match="empty cache"):
        save_prompt_cache(tmp_path / "prompt", model.make_cache(), model)
    cache = model.make_cache()
    model(mx.array([IDS]), cache=cache)
    with pytest.raises(OSError, match="cannot be written"):
        save_prompt_cache(tmp_path / "nowhere" / "prompt", cache, model)


@pytest.mark.parametrize("content", [b"", b"not a cache", b"\x00" * 64, (1 << 40).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_no_whole_cache_is_an_input_error_that_says_to_make_it_again(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "chat.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="make it again") as refusal:
        load_prompt_cache(path, g4.load("demo")[0])
    assert "download" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
