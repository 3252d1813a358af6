"""The 12B hears while somebody speaks: its stream is the whole clip to the bit, and long and live sound go through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gemma4_mlx as g4
from parity import pair
from processing_reference import SPEECH
from test_parity import text, user

RATE = 16_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, g4.Gemma4]:
    """The same weights in float32, in bfloat16, and with the last linear packed, as some uploads have it."""
    folder = pair("unified").folder
    whole, _ = g4.load(folder)
    narrow, _ = g4.load(folder, dtype="bfloat16")
    packed, _ = g4.load(folder)
    packed.embed_audio.embedding_projection = packed.embed_audio.embedding_projection.to_quantized(64, 4)
    return {"float32": whole, "bfloat16": narrow, "packed": packed}


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def whole_clip(model: g4.Gemma4, samples: np.ndarray) -> np.ndarray:
    frames = mx.array(np.pad(samples, (0, -len(samples) % 640)).reshape(-1, 640))
    (tokens,) = model.encode_audio(g4.ModelInputs(mx.array([[2]]), sounds=(frames,)))
    return np.array(tokens.astype(mx.float32))


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "packed"])
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 9_000), min_size=1, max_size=12), data=st.data())
def test_a_stream_gives_the_tokens_of_the_whole_clip_to_the_bit_however_it_is_cut(
    kind: str, cuts: list[int], data: st.DataObject, models: dict[str, g4.Gemma4]
) -> None:
    samples = noise(sum(cuts))
    stream, at, tokens = models[kind].audio_stream(), 0, []
    for cut in cuts:
        tokens.append(stream.feed(samples[at : at + cut]))
        at += cut
        assert sum(map(len, tokens)) == at // 640  # each as soon as its last sample is known
    if data.draw(st.booleans()):
        stream = stream.copy()
    tokens.append(stream.finish())
    streamed = np.array(mx.concatenate(tokens).astype(mx.float32))
    np.testing.assert_array_equal(streamed, whole_clip(models[kind], samples))


def test_thirty_seconds_in_blocks_of_ten_milliseconds_are_the_whole_clip_to_the_bit(
    models: dict[str, g4.Gemma4],
) -> None:
    samples, stream = noise(30 * RATE), models["float32"].audio_stream()
    tokens = [stream.feed(samples[at : at + 160]) for at in range(0, len(samples), 160)] + [stream.finish()]
    joined = np.array(mx.concatenate(tokens))
    assert joined.shape == (750, 64)
    np.testing.assert_array_equal(joined, whole_clip(models["float32"], samples))


def test_a_frame_is_the_same_to_the_bit_whatever_comes_before_and_after_it(models: dict[str, g4.Gemma4]) -> None:
    frame = noise(640, seed=9)
    alone = whole_clip(models["float32"], frame)[0]
    for before in (1, 15, 16, 17, 700):
        around = np.concatenate([noise(640 * before), frame, noise(640 * 3, seed=2)])
        np.testing.assert_array_equal(whole_clip(models["float32"], around)[before], alone)


def test_two_copies_of_a_stream_go_on_without_each_other(models: dict[str, g4.Gemma4]) -> None:
    start, one, other = noise(1_000), noise(700, 1), noise(700, 2)
    stream = models["float32"].audio_stream()
    first = [stream.feed(start)]
    twin = stream.copy()
    tokens = [
        np.array(mx.concatenate([*first, s.feed(rest), s.finish()])) for s, rest in ((stream, one), (twin, other))
    ]
    for ours, rest in zip(tokens, (one, other), strict=True):
        np.testing.assert_array_equal(ours, whole_clip(models["float32"], np.concatenate([start, rest])))


def test_a_stream_of_nothing_has_no_tokens_and_is_finished_once(models: dict[str, g4.Gemma4]) -> None:
    stream = models["float32"].audio_stream()
    assert stream.feed(np.zeros(0, np.float32)).shape == (0, 64)
    assert stream.finish().shape == (0, 64)
    for call in (stream.finish, lambda: stream.feed(noise(10))):
        with pytest.raises(ValueError, match="finished"):
            call()


BAD: list[tuple[Callable[[], np.ndarray], str]] = [
    (lambda: np.zeros((2, 640), np.float32), "one channel"),
    (lambda: np.array([0.0, np.nan]), "NaN"),
    (lambda: np.array([np.inf]), "NaN"),
]


@pytest.mark.parametrize(("samples", "said"), BAD)
def test_samples_that_cannot_be_used_are_refused(
    samples: Callable[[], np.ndarray], said: str, models: dict[str, g4.Gemma4]
) -> None:
    with pytest.raises(ValueError, match=said):
        models["float32"].audio_stream().feed(samples())


def test_sound_read_in_parts_gives_the_logits_of_the_prompt_read_at_once() -> None:
    model, processor = pair("unified").model, pair("unified").processor
    samples = noise(20_000)
    inputs = processor(user(text("Write down"), {"type": "audio", "audio": samples}))
    expected = np.array(model(inputs))[0, -1]
    ids = np.array(inputs.input_ids)[0]
    places = np.flatnonzero(ids == model.config.audio_token_id)
    cache, stream = model.make_cache(), model.audio_stream()
    model(mx.array(ids[None, : places[0]]), cache=cache, last_only=True)
    for at in range(0, len(samples), 3_000):
        if len(tokens := stream.feed(samples[at : at + 3_000])):
            model.append_soft_tokens(tokens, cache)
    model.append_soft_tokens(stream.finish(), cache)
    ours = np.array(model(mx.array(ids[None, places[-1] + 1 :]), cache=cache))[0, -1]
    assert np.abs(ours - expected).max() < 1e-4 * expected.std()


def test_a_recording_is_written_down_from_end_to_end(tmp_path: Path) -> None:
    model, processor = pair("unified").model, pair("unified").processor
    result = g4.transcribe(model, processor, SPEECH, language="English", translate_to="French")
    assert len(result.segments) == 1
    assert 0 <= result.segments[0].start < result.segments[0].end <= result.duration


def test_live_sound_gives_a_final_for_every_utterance() -> None:
    voice = g4.processing.audio.load_audio(SPEECH)
    pause = np.zeros(2 * RATE, np.float32)
    model, processor = pair("unified").model, pair("unified").processor
    events = []
    with g4.LiveTranscriber(model, processor, language="English") as live:
        sound = np.concatenate([pause, voice, pause])
        for at in range(0, len(sound), 1_600):
            events += live.feed(sound[at : at + 1_600])
        events += live.finish()
    finals = [event for event in events if event.kind == "final"]
    assert len(finals) == 1
    assert finals[0].start < finals[0].end
