"""A clip read as it comes against the same clip read whole, and answers begun from a guess against answers without."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import build_checkpoint
from gemma4_mlx import generate_tokens, load
from gemma4_mlx.errors import InputError
from gemma4_mlx.speech.decoding import Decoder, Draft, one_round
from gemma4_mlx.speech.prefill import ClipInProgress, SpeechPrompt
from gemma4_mlx.speech.prompts import speech_prompt
from generation_checkpoints import lively, prompt_of

RATE = 16_000
NEVER = frozenset({-1})


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("e2b")
    build_checkpoint(folder, "e2b")
    return load(folder)


@pytest.fixture(scope="module")
def prompt(loaded):
    return SpeechPrompt(*loaded, language="English", translate_to=None)


def sound(seconds: float) -> np.ndarray:
    random = np.random.default_rng(7)
    count = round(seconds * RATE)
    return (random.normal(size=count) * np.repeat(10 ** random.uniform(-3, 0, count // 800 + 1), 800)[:count]).astype(
        np.float32
    )


def whole(loaded, samples):
    """Logits after the clip, read as one prompt."""
    model, processor = loaded
    content = [{"type": "text", "text": speech_prompt("English")}, {"type": "audio", "audio": samples}]
    return np.array(model(processor([{"role": "user", "content": content}]), last_only=True))[0, -1]


def answered(loaded, prompt, cache):
    return np.array(loaded[0](mx.array([prompt.after]), cache=cache.copy(), last_only=True))[0, -1]


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=8), st.floats(0.02, 1.0))
@settings(max_examples=15)
def test_however_a_clip_comes_and_wherever_it_is_cut_the_model_is_where_the_whole_clip_takes_it(
    loaded, prompt, pieces, share
):
    samples = sound(sum(pieces) / RATE)
    length = max(161, round(share * len(samples)))
    if len(samples) < length:
        return
    clip, start = ClipInProgress(prompt), 0
    for piece in pieces:
        clip.feed(samples[start : start + piece])
        start += piece
    np.testing.assert_allclose(
        answered(loaded, prompt, clip.end(length)), whole(loaded, samples[:length]), atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("cut", [0.3, 4.1, 11.9, 12.0, 19.99, 20.0])
def test_a_long_clip_can_be_cut_anywhere(loaded, prompt, cut):
    samples = sound(20)
    clip = ClipInProgress(prompt)
    for at in range(0, len(samples), 512):
        clip.feed(samples[at : at + 512])
    assert len(clip._marks) <= 7
    length = round(cut * RATE)
    np.testing.assert_allclose(
        answered(loaded, prompt, clip.end(length)), whole(loaded, samples[:length]), atol=2e-4, rtol=0
    )


def test_a_look_at_the_clip_so_far_changes_nothing(loaded, prompt):
    samples = sound(3)
    clip = ClipInProgress(prompt)
    clip.feed(samples[:20_000])
    astray = clip.so_far()
    loaded[0](mx.array([[100, 101]]), cache=astray)
    clip.feed(samples[20_000:])
    np.testing.assert_allclose(
        answered(loaded, prompt, clip.end(len(samples))), whole(loaded, samples), atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("seconds", [2, 18])
def test_what_is_left_to_read_at_the_end_does_not_grow_with_the_clip(loaded, prompt, seconds, monkeypatch):
    samples = sound(seconds)
    clip = ClipInProgress(prompt)
    for at in range(0, len(samples), 512):
        clip.feed(samples[at : at + 512])
    read = []
    append = type(loaded[0]).append_soft_tokens
    monkeypatch.setattr(
        type(loaded[0]),
        "append_soft_tokens",
        lambda self, new, cache: read.append(len(new)) or append(self, new, cache),
    )
    clip.end(len(samples))
    assert sum(read) <= 6


def test_a_model_that_takes_no_sound_is_refused(tmp_path):
    build_checkpoint(tmp_path, "dense")
    with pytest.raises(InputError, match="does not hear"):
        SpeechPrompt(*load(tmp_path), language=None, translate_to=None)


@pytest.fixture(scope="module")
def heard(loaded, prompt):
    clip = ClipInProgress(prompt)
    clip.feed(sound(2))
    return clip.end(2 * RATE)


@pytest.fixture(scope="module")
def greedy(loaded, prompt, heard):
    return list(generate_tokens(loaded[0], prompt.after, max_tokens=24, cache=heard.copy()))


def decoder(loaded, prompt, stop_ids=NEVER) -> Decoder:
    return Decoder(loaded[0], prompt.after, stop_ids)


@given(st.integers(0, 24), st.lists(st.integers(0, 511), max_size=6))
@settings(max_examples=25)
def test_a_draft_right_or_wrong_changes_nothing_about_the_answer(loaded, prompt, heard, greedy, right, wrong):
    written = decoder(loaded, prompt).decode(heard, 24, Draft([*greedy[:right], *wrong]))
    assert written.tokens == greedy
    assert written.ended == "length"


def test_an_answer_ends_before_its_last_id_with_a_draft_and_without(loaded, prompt, heard, greedy):
    stop = frozenset(greedy[10:11])
    said = greedy[: greedy.index(greedy[10])]
    for draft in ([], greedy[:5], said, [*said, 500, 501]):
        written = decoder(loaded, prompt, stop).decode(heard, 24, Draft(draft))
        assert (written.tokens, written.ended) == (said, "stop")


def test_what_is_certain_is_not_asked_about_again(loaded, prompt, heard, greedy):
    other = [token + 1 for token in greedy[:3]]
    written = decoder(loaded, prompt).decode(heard, 8, Draft([*other, *greedy[3:]], certain=3))
    assert written.tokens[:3] == other


def test_an_answer_yields_between_two_tokens_and_goes_on_from_there(loaded, prompt, heard, greedy):
    turns = iter([False, False, False, True])
    first = decoder(loaded, prompt).decode(heard, 24, should_stop=lambda: next(turns))
    assert (first.tokens, first.ended) == (greedy[:3], "stopped")
    assert decoder(loaded, prompt).decode(heard, 24, Draft(first.tokens)).tokens == greedy


AFTER = [100, 101]


@pytest.fixture(scope="module")
def several():
    """A model that writes varied text, and caches of six prompts below its window of 24 and beyond it."""
    model = lively("e2b").model
    caches = [model.make_cache() for _ in range(6)]
    for length, cache in zip((20, 3, 41, 60, 9, 100), caches, strict=True):
        model(mx.array([prompt_of(length, seed=length)]), cache=cache)
    return model, caches


def test_several_answers_written_together_are_those_written_one_by_one(several):
    model, caches = several
    limits = [30, 1, 24, 40, 12, 30]
    alone = [Decoder(model, AFTER, NEVER).decode(cache, limit) for cache, limit in zip(caches, limits, strict=True)]
    assert Decoder(model, AFTER, NEVER).decode_together(caches, limits) == alone
    # One of them ends early, and the one with the most tokens ends by itself too.
    stop = frozenset({alone[0].tokens[4], alone[3].tokens[-1]})
    stopped = [Decoder(model, AFTER, stop).decode(cache, limit) for cache, limit in zip(caches, limits, strict=True)]
    assert Decoder(model, AFTER, stop).decode_together(caches, limits) == stopped
    assert {written.ended for written in stopped} == {"stop", "length"}


def test_answers_written_together_read_a_table_on_disk_row_by_row(several):
    model, caches = several
    on_disk, _ = load(lively("e2b").folder, per_layer="disk")
    assert Decoder(on_disk, AFTER, NEVER).decode_together(caches, [20] * 6) == Decoder(
        model, AFTER, NEVER
    ).decode_together(caches, [20] * 6)


def test_an_answer_that_goes_round_in_circles_does_not_disturb_the_others(several, monkeypatch):
    model, caches = several
    whole = [Decoder(model, AFTER, NEVER).decode(cache, 40) for cache in caches]
    # Small random models do not run into real loops: let it be one when a token comes twice in a row.
    for name, value in (("_LOOP_PERIOD", 1), ("_LOOP_REPEATS", 2), ("_LOOP_TOKENS", 2)):
        monkeypatch.setattr(f"gemma4_mlx.speech.decoding.{name}", value)
    together = Decoder(model, AFTER, NEVER).decode_together(caches, [40] * 6)
    assert {written.ended for written in together} == {"loop", "length"}
    for written, without_guard in zip(together, whole, strict=True):
        kept = len(written.tokens)
        assert written.tokens == without_guard.tokens[:kept]
        if written.ended == "length":
            assert kept == 40
        else:
            assert without_guard.tokens[kept] == written.tokens[-1]


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        ([1, 2, 3] + [7] * 24, [1, 2, 3, 7]),
        ([1, 2] + [7, 8, 9, 10] * 6, [1, 2, 7, 8, 9, 10]),
        ([1, 2, 3], [1, 2, 3]),
        ([7] * 10, [7] * 10),
    ],
)
def test_of_a_loop_one_round_is_kept(tokens, kept):
    assert one_round(tokens) == kept
