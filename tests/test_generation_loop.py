"""The token loop: transformers' tokens, mlx-lm's interface, and a cache that survives every interruption."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from itertools import islice

import mlx.core as mx
import numpy as np
import pytest
import torch

import gemma4_mlx as g4
from checkpoints import VARIANTS
from ctrl_c import CtrlC, memory_ends_at_step
from gemma4_mlx.errors import ContextLengthError
from gemma4_mlx.generation import generate_tokens
from gemma4_mlx.generation import loop as loop_module
from gemma4_mlx.model import Gemma4, ModelInputs
from generation_checkpoints import lively, prompt_of


@pytest.fixture(scope="module")
def model() -> Gemma4:
    return lively("e2b").model


def offsets(cache) -> set[int]:
    return {layer_cache.offset for layer_cache in cache}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("length", [1, 7, 60])
def test_24_greedy_tokens_are_transformers_own(variant, length):
    pair, prompt = lively(variant), prompt_of(length)
    ids = torch.tensor([prompt])
    theirs = pair.reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, eos_token_id=1
    )
    assert list(generate_tokens(pair.model, prompt, max_tokens=24)) == theirs[0, length:].tolist()


def test_a_stop_id_is_the_last_token_as_in_transformers():
    pair, prompt = lively("e2b"), prompt_of(9)
    stop = list(generate_tokens(pair.model, prompt, max_tokens=24))[10]
    ids = torch.tensor([prompt])
    theirs = pair.reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, eos_token_id=[stop]
    )
    ours = list(generate_tokens(pair.model, prompt, max_tokens=24, stop_ids=[stop]))
    assert ours == theirs[0, 9:].tolist()
    assert ours[-1] == stop


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_prompt_read_in_pieces_gives_the_same_tokens(variant, monkeypatch):
    model, prompt = lively(variant).model, prompt_of(100)
    whole = list(generate_tokens(model, prompt, max_tokens=16))
    for piece_length in (1, 7, 50, 99):
        monkeypatch.setattr(loop_module, "PREFILL_TOKENS", piece_length)
        assert list(generate_tokens(model, prompt, max_tokens=16)) == whole


def test_every_form_of_a_prompt_is_the_same_prompt(model):
    prompt = prompt_of(12)
    forms = [
        prompt,
        tuple(prompt),
        np.array(prompt),
        np.array([prompt], dtype=np.uint16),
        mx.array(prompt),
        mx.array([prompt]),
        ModelInputs(mx.array([prompt])),
    ]
    results = [list(generate_tokens(model, form, max_tokens=8)) for form in forms]
    assert results == [results[0]] * len(forms)
    assert all(type(token) is int for token in results[0])


@pytest.mark.parametrize(
    "prompt",
    [[], np.zeros((1, 0), int), [[1, 2], [3, 4]], np.zeros((1, 1, 3), int), [1.0, 2.0], [-1], [512], mx.array(3)],
)
def test_a_prompt_that_is_none_is_refused_at_the_call(model, prompt):
    with pytest.raises(ValueError, match=r"prompt|token ids"):
        generate_tokens(model, prompt)


@pytest.mark.parametrize("settings", [{"max_tokens": 0}, {"max_tokens": -1}, {"temperature": -1}, {"top_p": 0}])
def test_a_setting_out_of_range_is_refused_at_the_call(model, settings):
    with pytest.raises(ValueError, match="must be"):
        generate_tokens(model, [30], **settings)


def test_sampling_repeats_with_a_seed_and_leaves_the_global_random_state_alone(model):
    def tokens(seed):
        return list(generate_tokens(model, prompt_of(9), 20, temperature=1.0, top_p=0.95, top_k=64, seed=seed))

    mx.random.seed(3)
    undisturbed = mx.random.uniform(shape=(3,)).tolist()
    mx.random.seed(3)
    assert tokens(1) == tokens(1) != tokens(2)
    assert tokens(None) != tokens(None)
    tokens(-5)
    assert mx.random.uniform(shape=(3,)).tolist() == undisturbed


def test_the_context_is_filled_to_its_last_place_and_not_further(model):
    context = model.config.text.max_position_embeddings
    cache = model.make_cache()
    assert len(list(generate_tokens(model, prompt_of(context - 3), max_tokens=50, cache=cache))) == 3
    assert list(generate_tokens(model, prompt_of(context), max_tokens=50)) == []
    with pytest.raises(ContextLengthError, match=str(context)):
        generate_tokens(model, prompt_of(context + 1))
    with pytest.raises(ContextLengthError, match=f"after the {context - 1} already read"):
        generate_tokens(model, [30, 31], cache=cache)
    assert offsets(cache) == {context - 1}


def test_a_refused_prompt_leaves_the_cache_as_it_was(model):
    cache = model.make_cache()
    with pytest.raises(ContextLengthError):
        generate_tokens(model, prompt_of(model.config.text.max_position_embeddings + 1), cache=cache)
    assert offsets(cache) == {0}


def test_a_conversation_continues_in_the_same_cache(model):
    prompt, more = prompt_of(40), prompt_of(5, seed=1)
    cache = model.make_cache()
    first = list(generate_tokens(model, prompt, max_tokens=10, cache=cache))
    read = [*prompt, *first]
    assert offsets(cache) == {len(read) - 1}
    second = list(generate_tokens(model, [*read, *more][cache[0].offset :], max_tokens=10, cache=cache))
    assert second == list(generate_tokens(model, [*read, *more], max_tokens=10))


@pytest.mark.parametrize("taken", [0, 1, 2, 9])
def test_closing_the_iterator_leaves_exactly_the_tokens_handed_out_in_the_cache(model, taken):
    prompt = prompt_of(30)
    uninterrupted = list(generate_tokens(model, prompt, max_tokens=20))
    cache = model.make_cache()
    stream = generate_tokens(model, prompt, max_tokens=20, cache=cache)
    tokens = list(islice(stream, taken))
    stream.close()
    assert offsets(cache) == {len(prompt) + taken if taken else 0}
    rest = [*prompt, *tokens, *uninterrupted[taken : taken + 1]][cache[0].offset :]
    assert list(generate_tokens(model, rest, max_tokens=5, cache=cache)) == uninterrupted[taken + 1 : taken + 6]


def assert_cache_continues(model, cache, prompt, tokens, uninterrupted):
    """The cache holds a prefix of the prompt and the tokens handed out, and goes on as if nothing had happened."""
    assert tokens == uninterrupted[: len(tokens)]
    held = cache[0].offset
    assert offsets(cache) == {held}
    assert held <= len(prompt) + len(tokens)
    known = [*prompt, *uninterrupted[: len(tokens) + 1]]
    rest = list(generate_tokens(model, known[held:], max_tokens=3, cache=cache))
    assert rest == uninterrupted[len(tokens) + 1 : len(tokens) + 4]


# Everywhere in the loop itself and in what guards the cache; here and there in the model.
LOOP_AND_GUARD = ("generation/loop.py", "generation/decode.py", "generation/sampling.py", "contextlib.py")
CACHES = ("model/cache.py", "model/layer_cache.py", "model/full_cache.py", "model/sliding_cache.py")
EVERYWHERE = (*LOOP_AND_GUARD, *CACHES, "model/step.py", "model/decoder.py", "model/gemma4.py", "model/layers.py")


@pytest.mark.parametrize("variant", ["e2b", "dense"])
@pytest.mark.parametrize(("where", "times"), [(LOOP_AND_GUARD, None), (EVERYWHERE, 60)])
def test_ctrl_c_anywhere_leaves_a_cache_that_continues_exactly(variant, where, times, monkeypatch):
    monkeypatch.setattr(loop_module, "PREFILL_TOKENS", 16)
    model, prompt, total = lively(variant).model, prompt_of(40), 4
    uninterrupted = list(generate_tokens(model, prompt, max_tokens=total + 4))
    with CtrlC(-1, where) as counter:
        list(generate_tokens(model, prompt, max_tokens=total))
    held_after = set()
    for line in np.linspace(1, counter.lines, times or counter.lines, dtype=int).tolist():
        cache, tokens = model.make_cache(), []
        with suppress(KeyboardInterrupt), CtrlC(line, where):
            for token in generate_tokens(model, prompt, max_tokens=total, cache=cache):
                tokens.append(token)
        if tokens and len(tokens) < total:
            assert cache[0].offset == len(prompt) + len(tokens)
        held_after.add(cache[0].offset)
        assert_cache_continues(model, cache, prompt, tokens, uninterrupted)
    # Interrupted before the prompt, within it, after it and while decoding.
    assert held_after == {0, 16, 32, 40, 41, 42, 43}


def test_ctrl_c_at_any_time_leaves_a_cache_that_continues_exactly(model):
    prompt, total = prompt_of(60), 16
    uninterrupted = list(generate_tokens(model, prompt, max_tokens=total + 4))
    started = time.perf_counter()
    assert list(generate_tokens(model, prompt, max_tokens=total)) == uninterrupted[:total]
    duration = time.perf_counter() - started

    def ring(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for wait in np.linspace(0.001, duration, 20):
            cache, tokens = model.make_cache(), []
            with suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, wait)
                for token in generate_tokens(model, prompt, max_tokens=total, cache=cache):
                    tokens.append(token)
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert_cache_continues(model, cache, prompt, tokens, uninterrupted)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_error_in_the_middle_leaves_a_cache_that_continues_exactly(model, monkeypatch):
    prompt = prompt_of(40)
    uninterrupted = list(generate_tokens(model, prompt, max_tokens=10))
    cache, tokens = model.make_cache(), []
    with monkeypatch.context() as patch:
        memory_ends_at_step(3, patch)
        with pytest.raises(MemoryError):
            tokens.extend(generate_tokens(model, prompt, max_tokens=10, cache=cache))
    assert len(tokens) == 2
    assert_cache_continues(model, cache, prompt, tokens, uninterrupted)


def test_a_table_that_changes_in_the_middle_leaves_a_cache_that_continues_exactly(tmp_path):
    folder = shutil.copytree(lively("e2b").folder, tmp_path / "changing")
    model, _ = g4.load(folder, per_layer="disk", dtype="float32")
    prompt = prompt_of(40)
    uninterrupted = list(generate_tokens(model, prompt, max_tokens=10))
    cache, tokens = model.make_cache(), []
    [weights] = folder.glob("*.safetensors")
    stat = weights.stat()
    going_on = generate_tokens(model, prompt, max_tokens=10, cache=cache)
    tokens.extend(islice(going_on, 3))
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    with pytest.raises(g4.Gemma4Error, match="was changed while in use"):
        tokens.extend(going_on)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert_cache_continues(model, cache, prompt, tokens, uninterrupted)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_tokens", 2.5),
        ("max_tokens", "3"),
        ("max_tokens", None),
        ("max_tokens", True),
        ("seed", 1.5),
        ("seed", "a"),
        ("temperature", "a"),
        ("top_p", "a"),
        ("top_k", 2.5),
    ],
)
def test_an_argument_of_another_type_is_a_value_error_with_its_name(model, argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must be") as error:
        generate_tokens(model, [30, 31], **{"max_tokens": 3, argument: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("constrained", [False, True])
def test_stopped_at_any_question_the_cache_goes_on_as_if_nothing_had_happened(variant, constrained, monkeypatch):
    monkeypatch.setattr(loop_module, "PREFILL_TOKENS", 20)
    model, prompt = lively(variant).model, prompt_of(50)
    constraint = Anything(model.config.text.vocab_size) if constrained else None
    whole = list(generate_tokens(model, prompt, max_tokens=8, constraint=constraint))
    for questions in range(3 + 8):
        cache, asked = model.make_cache(), iter([False] * questions + [True])
        options = {"cache": cache, "constraint": constraint}
        tokens = list(generate_tokens(model, prompt, 8, should_stop=asked.__next__, **options))
        assert tokens == whole[: max(0, questions - 3)]
        (held,) = offsets(cache)
        assert held == min(20 * questions, 50) + len(tokens)
        rest = [*prompt, *tokens][held:]
        assert not rest or tokens + list(generate_tokens(model, rest, 8 - len(tokens), **options)) == whole


class Anything:
    """A constraint that allows all."""

    def __init__(self, vocab_size: int) -> None:
        self._all = np.ones(vocab_size, bool)

    def allowed(self):
        return self._all.copy()

    def accept(self, token):
        return True


def test_how_far_the_prompt_is_read_is_told_before_every_piece(model, monkeypatch):
    monkeypatch.setattr(loop_module, "PREFILL_TOKENS", 20)
    told: list[tuple[int, int]] = []
    cache = model.make_cache()
    list(generate_tokens(model, prompt_of(50), 2, cache=cache, on_prompt=lambda *far: told.append(far)))
    assert told == [(0, 50), (20, 50), (40, 50)]
    told.clear()
    list(generate_tokens(model, prompt_of(30), 2, cache=cache, on_prompt=lambda *far: told.append(far)))
    assert told == [(0, 30), (20, 30)], "of this prompt, not of what the cache held before it"


def test_of_a_conversation_the_tokens_held_already_count_as_read(model):
    told: list[tuple[int, int]] = []
    cache = g4.ConversationCache(model)
    list(generate_tokens(model, prompt_of(50), 2, cache=cache))
    list(generate_tokens(model, [*prompt_of(50), 5, 6, 7], 2, cache=cache, on_prompt=lambda *far: told.append(far)))
    assert told == [(cache.reused, 53)]
    assert cache.reused > 40


def test_what_the_processor_returns_knows_what_ends_the_turn():
    model, processor = g4.load("demo")
    inputs = processor("Hello!")
    assert inputs.stop_ids == processor.end_of_turn_ids
    answer = list(generate_tokens(model, inputs, max_tokens=60, stop_ids=inputs.stop_ids))
    assert answer[-1] in inputs.stop_ids
    assert not inputs.stop_ids & {*answer[:-1]}
    assert len(answer) < 60
    assert list(generate_tokens(model, inputs, max_tokens=60, stop_ids=answer[:1])) == answer[:1]
    endless = list(generate_tokens(model, inputs, max_tokens=60))
    assert (len(endless), endless[: len(answer)]) == (60, answer)
