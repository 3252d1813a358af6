"""The incremental encoder against the whole-clip one: equal for every cutting, no token early, none late."""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from checkpoints import build_checkpoint
from gemma4_mlx import load
from gemma4_mlx.errors import InputError
from gemma4_mlx.log_mel import log_mel, soft_token_count
from gemma4_mlx.model import ModelInputs
from gemma4_mlx.model.conformer_step import MOST_TOKENS, ConformerStep


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("e2b")
    build_checkpoint(folder, "e2b")
    return load(folder)[0]


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose level wanders, so that every frame differs."""
    random = np.random.default_rng(seed)
    level = 10 ** random.uniform(-3, 0, -(-samples // 1600))
    return (random.normal(size=samples) * np.repeat(level, 1600)[:samples]).astype(np.float32)


def whole(model, samples: np.ndarray) -> np.ndarray:
    (tokens,) = model.encode_audio(ModelInputs(mx.array([[0]]), sounds=(mx.array(log_mel(samples)),)))
    return np.array(tokens)


def streamed(model, pieces: list[np.ndarray]) -> np.ndarray:
    stream = model.audio_stream()
    tokens = [stream.feed(piece) for piece in pieces]
    return np.array(mx.concatenate([*tokens, stream.finish()]))


@given(
    samples=st.integers(161, 40_000),
    cuts=st.lists(st.integers(0, 40_000), max_size=12),
    seed=st.integers(0, 5),
)
@settings(max_examples=60)
def test_any_cutting_of_any_sound_gives_the_tokens_of_the_whole(model, samples, cuts, seed):
    clip = sound(samples, seed)
    edges = sorted({0, samples, *(cut for cut in cuts if cut < samples)})
    expected = whole(model, clip)
    got = streamed(model, [clip[start:end] for start, end in pairwise(edges)])
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("seconds", "piece"), [(1, 1), (3, 160), (10, 512), (30, 4_096), (60, 7_777), (60, 960_000)])
def test_a_minute_is_the_same_as_a_minute_at_once(model, seconds, piece):
    clip = sound(seconds * 16_000)
    expected = whole(model, clip)
    # One sample at a time is only worth it for a while.
    pieces = (
        [clip[at : at + piece] for at in range(0, len(clip), piece)] if piece > 1 else [*clip[:1500, None], clip[1500:]]
    )
    got = streamed(model, pieces)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 1e-4 * max(1.0, float(np.sqrt((expected**2).mean())) / 2)


def test_a_token_comes_out_with_the_first_sample_that_makes_it_final(model):
    stream = model.audio_stream()
    clip = sound(5_000)
    known = 0
    for token in range(1, 6):
        needed = 640 * token + 1
        assert len(stream.feed(clip[known : needed - 1])) == 0
        assert len(stream.feed(clip[needed - 1 : needed])) == 1
        known = needed


@pytest.mark.parametrize("samples", [0, 1, 160, 161, 320, 321, 640, 641, 800, 801, 961, 1281])
def test_short_sounds_have_as_many_tokens_as_the_processor_counts(model, samples):
    got = streamed(model, [sound(samples)])
    assert got.shape == (soft_token_count(samples), model.config.text.hidden_size)
    if soft_token_count(samples):
        np.testing.assert_allclose(got, whole(model, sound(samples)), atol=1e-4)


def test_what_is_kept_after_a_minute_is_no_more_than_after_a_second(model):
    def kept(stream):
        state = [stream._state.layers, stream._convolutions._frames, stream._convolutions._halved]
        layers = [(layer.keys, layer.values, layer.convolution_inputs) for layer in state[0]]
        return sum(array.nbytes for _, array in tree_flatten([layers, *state[1:]])) + stream._unread.nbytes

    stream = model.audio_stream()
    second = sound(16_000)
    stream.feed(second)
    early = kept(stream)
    active = mx.get_active_memory()
    for _ in range(60):
        stream.feed(second)
    assert kept(stream) == early
    assert mx.get_active_memory() <= active + 200_000


def test_a_model_without_ears_has_no_stream(tmp_path):
    build_checkpoint(tmp_path, "dense")
    with pytest.raises(InputError, match="e2b, e4b or 12b"):
        load(tmp_path)[0].audio_stream()


@pytest.mark.parametrize(
    ("samples", "message"),
    [(np.zeros((2, 100)), "one channel"), ([0.0, float("nan")], "NaN"), ([float("inf")], "NaN")],
)
def test_what_is_not_one_channel_of_numbers_is_refused_and_changes_nothing(model, samples, message):
    clip = sound(2_000)
    stream = model.audio_stream()
    first = stream.feed(clip[:1_000])
    with pytest.raises(ValueError, match=message):
        stream.feed(samples)
    got = np.array(mx.concatenate([first, stream.feed(clip[1_000:]), stream.finish()]))
    np.testing.assert_allclose(got, whole(model, clip), atol=1e-4)


def test_a_copy_goes_its_own_way(model):
    clip = sound(9_000)
    stream = model.audio_stream()
    common = stream.feed(clip[:5_000])
    twin = stream.copy()
    rest = np.array(mx.concatenate([common, twin.feed(clip[5_000:]), twin.finish()]))
    np.testing.assert_allclose(rest, whole(model, clip), atol=1e-4)
    cut_short = np.array(mx.concatenate([common, stream.finish()]))
    np.testing.assert_allclose(cut_short, whole(model, clip[:5_000]), atol=1e-4)


def test_a_finished_stream_takes_no_more(model):
    stream = model.audio_stream()
    stream.finish()
    for again in (lambda: stream.feed(sound(100)), stream.finish):
        with pytest.raises(ValueError, match="finished"):
            again()


@pytest.mark.parametrize("variant", ["e2b", "e4b"])
@pytest.mark.parametrize("parts", [[1] * 30, [30], [7, 1, 1, 13, 8]])
def test_a_clip_read_in_parts_leaves_the_model_where_reading_it_whole_does(tmp_path, variant, parts):
    build_checkpoint(tmp_path, variant)
    model, _ = load(tmp_path)
    clip = sound(30 * 640)
    sounds = (mx.array(log_mel(clip)),)
    before, after = [2, 100, 101, 102], [110, 111]
    ids = mx.array([[*before, *[model.config.audio_token_id] * 30, *after]])
    expected = model(ModelInputs(ids, sounds=sounds), last_only=True)

    cache = model.make_cache()
    model(mx.array([before]), cache=cache)
    (soft_tokens,) = model.encode_audio(ModelInputs(ids, sounds=sounds))
    start = 0
    for part in parts:
        model.append_soft_tokens(soft_tokens[start : start + part], cache)
        start += part
    # A copy that reads something else in between changes nothing.
    astray = cache.copy()
    model(mx.array([[120, 121, 122]]), cache=astray)
    model(mx.array([[123]]), cache=astray)
    got = model(mx.array([after]), cache=cache, last_only=True)
    np.testing.assert_allclose(np.array(got), np.array(expected), atol=1e-4)


def test_a_batch_of_sound_is_sent_on_its_way_once_and_nobody_waits_for_it(model, monkeypatch):
    stream = model.audio_stream()
    stream.feed(sound(3_200))
    called = []
    for name in ("eval", "async_eval"):
        evaluate = getattr(mx, name)
        monkeypatch.setattr(mx, name, lambda *a, name=name, evaluate=evaluate: called.append(name) or evaluate(*a))
    for _ in range(3):
        stream.feed(sound(3_200))
    assert called == ["async_eval"] * 3


@pytest.mark.parametrize("tokens", [1, 5, MOST_TOKENS, MOST_TOKENS + 1])
def test_a_few_tokens_compiled_are_those_of_the_uncompiled_tower(model, tokens):
    tower = model.audio_tower
    step, ours, theirs = ConformerStep(tower), tower.initial_state(), tower.initial_state()
    for seed in range(4):
        x = mx.random.normal((tokens, 64), key=mx.random.key(seed))
        compiled, ours = step(x, ours)
        plain, theirs = tower.run_conformer(x, theirs)
        assert mx.abs(compiled - plain).max() < 1e-4
        assert ours.seen == theirs.seen


def test_new_weights_of_the_tower_are_heard_in_the_next_batch(model):
    stream, twin = model.audio_stream(), model.audio_stream()
    clip, bias = sound(3_300), model.audio_tower.output_proj.bias
    before = stream.feed(clip)
    mx.eval(before)
    try:
        model.audio_tower.output_proj.bias = bias + 1
        assert mx.abs(twin.feed(clip) - before).max() > 1e-3
    finally:
        model.audio_tower.output_proj.bias = bias


def test_a_tower_whose_first_batch_fails_keeps_its_weights(model, monkeypatch):
    step, state = ConformerStep(model.audio_tower), model.audio_tower.initial_state()
    tokens = mx.random.normal((3, 64))

    def fail(*_):
        raise RuntimeError("the last layer cannot be traced")

    with monkeypatch.context() as patched:
        patched.setattr(type(model.audio_tower.layers[0]), "__call__", fail)
        with pytest.raises(RuntimeError):
            step(tokens, state)
    assert np.isfinite(np.array(model.audio_tower.layers[0].feed_forward1.ffw_layer_1.linear.weight)).all()
    features, _ = step(tokens, state)
    assert mx.allclose(features, model.audio_tower.run_conformer(tokens, state)[0], atol=1e-4)


def test_a_packed_tower_computes_in_the_precision_of_its_scales(tmp_path):
    build_checkpoint(tmp_path, "e2b", dtype=torch.bfloat16)
    packed = load(tmp_path)[0]
    nn.quantize(packed.audio_tower, group_size=32, bits=8)
    stream = packed.audio_stream()
    assert stream.feed(sound(3_200)).dtype == mx.bfloat16
    assert {layer.convolution_inputs.dtype for layer in stream._state.layers} == {mx.bfloat16}
