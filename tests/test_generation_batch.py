"""Several answers written at once: each is what its prompt gives alone, whoever joins and leaves in the meantime."""

from __future__ import annotations

import random

import mlx.core as mx
import numpy as np
import pytest

import gemma4_mlx as g4
from checkpoints import VARIANTS
from gemma4_mlx.errors import CheckpointError
from gemma4_mlx.generation import generate_tokens
from gemma4_mlx.generation.batch import Batch
from gemma4_mlx.generation.choices import make_choice
from gemma4_mlx.generation.decode import Greedy
from gemma4_mlx.model import Gemma4
from gemma4_mlx.model.sliding_cache import SlidingCache
from generation_checkpoints import lively, prompt_of


def read(model: Gemma4, prompt: list[int]):
    """A prompt's cache, and the logits of the first token after it."""
    cache = model.make_cache()
    return cache, model(mx.array([prompt]), cache=cache, last_only=True)


def join(batch: Batch, model: Gemma4, prompt: list[int], choose=None) -> None:
    cache, logits = read(model, prompt)
    batch.join([cache], [choose or Greedy()], logits)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_that_join_and_leave_at_random_steps_have_the_tokens_of_each_alone(variant: str, seed: int) -> None:
    model, chance = lively(variant).model, random.Random(seed)
    batch, rows, done = Batch(model), [], []  # (prompt, its tokens so far) in the batch's order
    for step in range(60):
        # Below the window of 24, across it and beyond it.
        joining = chance.choice([0, 0, 0, 0, 1, 1, 2]) if step else 2
        prompts = [
            prompt_of(chance.choice([1, 3, 20, 24, 25, 60, 90]), seed=chance.randrange(99)) for _ in range(joining)
        ]
        for prompt in prompts:
            join(batch, model, prompt)
            rows.append((prompt, []))
        for (_, tokens), token in zip(rows, batch.step(), strict=True):
            tokens.append(token)
        assert batch.lengths == [len(prompt) + len(tokens) for prompt, tokens in rows]
        leaving = [row for row in range(len(rows)) if chance.random() < 0.08 + 0.1 * (len(rows) > 4)]
        batch.leave(leaving)
        done += [rows[row] for row in leaving]
        rows = [row for i, row in enumerate(rows) if i not in leaving]
        for layer_cache in batch.cache:
            assert layer_cache.offset == max(batch.lengths, default=0)
            assert not isinstance(layer_cache, SlidingCache) or layer_cache.capacity <= layer_cache.window
    assert len(done) > 3
    for prompt, tokens in [*done, *rows]:
        assert tokens == list(generate_tokens(model, prompt, max_tokens=max(1, len(tokens))))[: len(tokens)]


def test_rows_on_a_table_on_disk_have_the_same_tokens() -> None:
    model, _ = g4.load(lively("e2b").folder, per_layer="disk")
    batch, prompts = Batch(model), [prompt_of(length, seed=length) for length in (5, 40, 23)]
    for prompt in prompts:
        join(batch, model, prompt)
    written = [batch.step() for _ in range(12)]
    for row, prompt in enumerate(prompts):
        assert [tokens[row] for tokens in written] == list(generate_tokens(model, prompt, max_tokens=12))


def test_every_row_takes_its_tokens_in_its_own_way() -> None:
    class Odd:
        """A constraint that allows odd ids, and of these every other time none below 300."""

        def __init__(self) -> None:
            self.accepted: list[int] = []

        def allowed(self):
            return np.arange(512) % 2 == 1

        def accept(self, token):
            if len(self.accepted) % 2 and token < 300:
                return False
            self.accepted.append(token)
            return True

    model, constraint = lively("e2b").model, Odd()
    settings = [
        {"temperature": 1.0, "seed": 5},
        {},
        {"constraint": constraint},
        {"temperature": 0.7, "top_k": 9, "seed": 6},
    ]
    prompts = [prompt_of(length, seed=length) for length in (30, 8, 50, 30)]
    batch = Batch(model)
    for prompt, setting in zip(prompts, settings, strict=True):
        join(batch, model, prompt, make_choice(**setting))
    written = [batch.step() for _ in range(10)]
    assert constraint.accepted[:10] == [tokens[2] for tokens in written]
    batch.leave([2])
    written = [[*tokens[:2], tokens[3]] for tokens in written] + [batch.step() for _ in range(5)]
    for row, (prompt, setting) in enumerate(zip([*prompts[:2], prompts[3]], [*settings[:2], settings[3]], strict=True)):
        assert [tokens[row] for tokens in written] == list(generate_tokens(model, prompt, max_tokens=15, **setting))
    alone = list(generate_tokens(model, prompts[2], max_tokens=10, constraint=Odd()))
    assert constraint.accepted[:10] == alone


def test_a_batch_does_not_grow_with_the_time_it_lives() -> None:
    model, batch = lively("dense").model, Batch(lively("dense").model)
    for turn in range(12):
        join(batch, model, prompt_of(30, seed=turn))
        for _ in range(20):
            batch.step()
        if turn:
            batch.leave([0])
    assert batch.cache.offset == max(batch.lengths) <= 70
    batch.leave(range(len(batch.rows)))
    assert (batch.rows, batch.lengths, batch.step()) == ([], [], [])
    join(batch, model, prompt_of(9))
    assert [batch.step()[0] for _ in range(5)] == list(generate_tokens(model, prompt_of(9), max_tokens=5))


@pytest.mark.parametrize("error", [KeyboardInterrupt, CheckpointError])
def test_a_step_that_fails_can_be_made_again(error, monkeypatch) -> None:
    model = lively("e2b").model
    batch, prompts = Batch(model), [prompt_of(length, seed=length) for length in (5, 40)]
    for prompt in prompts:
        join(batch, model, prompt)
    written = [batch.step() for _ in range(4)]
    step_ahead = Gemma4.step_ahead

    def failing(self, *arguments):
        step_ahead(self, *arguments)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Gemma4, "step_ahead", failing)
        with pytest.raises(error):
            batch.step()
    assert batch.lengths == [9, 44]
    written += [batch.step() for _ in range(4)]
    for row, prompt in enumerate(prompts):
        assert batch.rows[row].tokens == [tokens[row] for tokens in written]
        assert batch.rows[row].tokens == list(generate_tokens(model, prompt, max_tokens=8))


def test_the_caches_that_join_are_left_as_they_are() -> None:
    model = lively("moe").model
    cache, logits = read(model, prompt_of(40))
    batch = Batch(model)
    batch.join([cache, cache], [Greedy(), Greedy()], mx.concatenate([logits, logits]))
    batch.step()
    assert cache.offset == 40
    rest = list(generate_tokens(model, [33], max_tokens=4, cache=cache))
    assert rest == list(generate_tokens(model, [*prompt_of(40), 33], max_tokens=4))


def test_what_cannot_join_is_refused_and_the_batch_goes_on() -> None:
    model, batch = lively("dense").model, Batch(lively("dense").model)
    join(batch, model, prompt_of(9))
    packed = model.make_cache(kv_bits=8)
    logits = model(mx.array([[40, 41]]), cache=packed, last_only=True)
    for cache, reason in ((packed, "without kv_bits"), (model.make_cache(), "read a prompt into it first")):
        with pytest.raises(ValueError, match=reason):
            batch.join([cache], [Greedy()], logits)
    assert [batch.step()[0] for _ in range(3)] == list(generate_tokens(model, prompt_of(9), max_tokens=3))
