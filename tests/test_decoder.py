"""The decoder's layers, one by one: which keys and values each reads, and what it runs for."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import gemma4_mlx as g4
from checkpoints import VARIANTS
from gemma4_mlx.config import Config
from gemma4_mlx.model import Gemma4, ModelInputs
from gemma4_mlx.model import step as step_module
from gemma4_mlx.model.decoder import DecoderLayer
from parity import pair
from tiny_tokenizer import SPECIAL_IDS

IDS = np.random.default_rng(3).integers(len(SPECIAL_IDS), 512, (2, 60))


def test_kv_shared_layers_read_what_the_last_layer_of_their_kind_has_written(monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((Path(__file__).parent / "configs" / "e2b.json").read_text())
    model = Gemma4(Config.from_dict(config))  # of full size; nothing of it is computed
    written: dict[int, int] = {}  # keys and values, by identity → the layer that wrote them
    read: list[int] = []
    call = DecoderLayer.__call__

    def watched(self: DecoderLayer, x: mx.array, source: Any, *rest: Any) -> Any:
        x, keys_values = call(self, x, source, *rest)
        read.append(written.setdefault(id(keys_values), len(read)))
        kept.append(keys_values)
        return x, keys_values

    kept: list[Any] = []
    monkeypatch.setattr(DecoderLayer, "__call__", watched)
    model(mx.array([[2, 100, 101]]))
    assert read[:15] == list(range(15))
    assert [read[i] for i in (15, 18, 19, 34)] == [13, 13, 14, 14]


@pytest.mark.parametrize("length", [1, 5, 60])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_layer_run_for_its_last_token_alone_gives_that_tokens_output(variant: str, length: int) -> None:
    model = pair(variant).model
    decoder = model.language_model
    embeddings = decoder.embed(mx.array(IDS[:, :length]))
    inputs = decoder.per_layer_inputs(decoder.per_layer_rows(mx.array(IDS[:, :length])), embeddings)
    for i, layer_cache in enumerate(model.make_cache()):
        given = None if inputs is None else inputs[i]
        outs = []
        for last_only in (False, True):
            cache = model.make_cache()[i]
            mask = cache.make_mask(length)
            outs.append(decoder.layers[i](embeddings, cache, mask, 0, given, last_only)[0])
            assert cache.offset == length
        assert outs[1].shape[1] == 1
        np.testing.assert_allclose(np.array(outs[1]), np.array(outs[0][:, -1:]), atol=1e-4)
        assert layer_cache.empty()


@pytest.mark.parametrize("features", ["images", "sounds"])
def test_pictures_and_sound_are_refused_for_more_than_one_sequence(features: str) -> None:
    model, processor = pair("e2b").model, pair("e2b").processor
    medium = (
        {"type": "image", "image": np.zeros((48, 48, 3), np.uint8)}
        if features == "images"
        else {"type": "audio", "audio": np.zeros(8000, np.float32)}
    )
    inputs = processor([{"role": "user", "content": [medium, {"type": "text", "text": "?"}]}], image_tokens=70)
    assert getattr(inputs, features)
    twice = ModelInputs(mx.concatenate([inputs.input_ids] * 2), inputs.images, inputs.sounds)
    cache = model.make_cache()
    with pytest.raises(ValueError, match="one sequence at a time"):
        model(twice, cache=cache)
    assert cache.offset == 0


@pytest.mark.parametrize("per_layer", ["memory", "disk"])
def test_a_model_that_has_decoded_is_freed_as_soon_as_nobody_has_it(per_layer: str) -> None:
    gc.collect()
    gc.disable()
    try:
        before = mx.get_active_memory()
        model, _ = g4.load(pair("e2b").folder, per_layer=per_layer)
        list(g4.generate_tokens(model, [40, 41, 42], max_tokens=5))
        decoder = weakref.ref(model.language_model)
        assert mx.get_active_memory() > before + 100_000
        del model, _
        assert decoder() is None
        assert mx.get_active_memory() < before + 50_000
    finally:
        gc.enable()


def test_an_empty_cache_is_refused_by_a_step_and_nothing_is_broken() -> None:
    model = pair("e2b").model
    with pytest.raises(ValueError, match="the cache is empty"):
        model.step(mx.array([[40]]), model.make_cache())
    assert len(list(g4.generate_tokens(model, [40, 41], max_tokens=3))) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, RuntimeError])
def test_an_error_in_the_middle_of_a_trace_leaves_the_weights_and_the_cache(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = g4.load(pair("e2b").folder)
    expected = list(g4.generate_tokens(model, IDS[0, :50].tolist(), max_tokens=8))
    model, _ = g4.load(pair("e2b").folder)  # one that has traced nothing yet
    call, calls = DecoderLayer.__call__, []

    def failing(self: DecoderLayer, x: mx.array, *rest: Any) -> Any:
        calls.append(x.ndim)
        if calls.count(2) == 3:  # in the third layer of the trace
            raise error
        return call(self, x, *rest)

    cache = model.make_cache()
    with monkeypatch.context() as patch:
        patch.setattr(DecoderLayer, "__call__", failing)
        with pytest.raises(error):
            list(g4.generate_tokens(model, IDS[0, :50].tolist(), max_tokens=8, cache=cache))
    assert {layer_cache.offset for layer_cache in cache} == {50}
    assert list(g4.generate_tokens(model, IDS[0, :50].tolist(), max_tokens=8)) == expected
    assert list(g4.generate_tokens(model, [expected[0]], max_tokens=7, cache=cache)) == expected[1:]


def test_an_interrupt_while_weights_of_another_dtype_are_traced_leaves_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, _ = g4.load(pair("e2b").folder)
    prompt, cache = IDS[0, :50].tolist(), model.make_cache()
    list(g4.generate_tokens(model, prompt, max_tokens=8, cache=cache))  # traced as it was loaded
    model.language_model.set_dtype(mx.float16)
    call, calls = DecoderLayer.__call__, []

    def failing(self: DecoderLayer, x: mx.array, *rest: Any) -> Any:
        calls.append(x.ndim)
        if calls.count(2) == 3:  # in the third layer of the trace
            raise KeyboardInterrupt
        return call(self, x, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(DecoderLayer, "__call__", failing)
        with pytest.raises(KeyboardInterrupt):
            model.step(mx.array([[40]]), cache)
    after = list(g4.generate_tokens(model, prompt, max_tokens=8))
    never_disturbed, _ = g4.load(pair("e2b").folder)
    never_disturbed.language_model.set_dtype(mx.float16)
    assert after == list(g4.generate_tokens(never_disturbed, prompt, max_tokens=8))


def test_the_step_knows_the_decoder_and_no_whole_model() -> None:
    assert not any(value is Gemma4 for value in vars(step_module).values())


def test_graphs_of_many_sizes_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "_MOST_GRAPHS", 2)
    model, _ = g4.load(pair("e2b").folder)
    steps: dict[int, list[np.ndarray]] = {}
    for batch in (1, 2, 3, 1, 2):
        ids = mx.array(np.tile(IDS[:1, :30], (batch, 1)))
        cache = model.make_cache()
        model(ids, cache=cache)
        steps.setdefault(batch, []).append(np.array(model.step(ids[:, :1], cache))[0])
        assert len(model._step()._graphs) <= 2
    for logits in steps.values():
        assert all(np.allclose(logits[0], each, atol=1e-5) for each in logits)
