"""Log probabilities of an answer's tokens: the model's own, whatever the tokens were chosen by."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import numpy as np
import pytest

import gemma4_mlx as g4

SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 4}}, "required": ["name"]}
WAYS = {
    "greedy": {"temperature": 0},
    "drawn": {"temperature": 1.5, "top_k": 5, "top_p": 0.8, "seed": 4},
    "schema": {"temperature": 0, "schema": SCHEMA},
}


@cache
def demo():
    return g4.load("demo", dtype="float32")


@cache
def answered(way: str, count: int = 3) -> g4.Generation:
    return g4.generate(*demo(), "Who are you?", max_tokens=12, logprobs=count, **WAYS[way])


@cache
def log_softmax(way: str) -> np.ndarray:
    """`[tokens, vocab]`, from the model's logits of prompt and answer read at once, in float64."""
    model, processor = demo()
    prompt = processor("Who are you?").input_ids[0].tolist()
    tokens = answered(way).tokens
    logits = np.array(model(mx.array([prompt + tokens[:-1]])))[0, len(prompt) - 1 :].astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


@pytest.mark.parametrize("way", WAYS)
def test_a_tokens_logprob_is_the_models_own(way):
    out = answered(way)
    assert out.logprobs is not None
    assert [entry.token for entry in out.logprobs] == out.tokens
    expected = log_softmax(way)[np.arange(len(out.tokens)), out.tokens]
    np.testing.assert_allclose([entry.logprob for entry in out.logprobs], expected, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_the_best_are_the_likeliest_tokens_in_order(way):
    expected = np.sort(log_softmax(way))[:, :-4:-1]
    found = [[best.logprob for best in entry.best] for entry in answered(way).logprobs]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for entry, row in zip(answered(way).logprobs, log_softmax(way), strict=True):
        np.testing.assert_allclose([row[best.token] for best in entry.best], [b.logprob for b in entry.best], atol=1e-4)


def test_texts_are_those_of_the_tokens_alone():
    _, processor = demo()
    for entry in answered("drawn").logprobs:
        for likely in (entry, *entry.best):
            assert likely.text == processor.tokenizer.decode([likely.token])
    assert answered("schema").logprobs[0].text.startswith("{")


@pytest.mark.parametrize("way", WAYS)
def test_asking_changes_no_token(way):
    assert g4.generate(*demo(), "Who are you?", max_tokens=12, **WAYS[way]).tokens == answered(way).tokens


@pytest.mark.parametrize("way", WAYS)
def test_chunks_carry_those_of_the_tokens_since_the_chunk_before(way):
    stream = g4.stream_generate(*demo(), "Who are you?", max_tokens=12, logprobs=3, **WAYS[way])
    told = [entry for chunk in stream for entry in chunk.logprobs]
    assert told == answered(way).logprobs[: len(told)]
    assert len(told) >= len(answered(way).tokens) - 1  # the one that ends the turn has no text
    assert stream.result().logprobs == answered(way).logprobs


def test_none_are_told_unasked_and_with_0_only_the_token_itself():
    assert g4.generate(*demo(), "Hello!", max_tokens=3).logprobs is None
    alone = answered("greedy", 0).logprobs
    assert [entry.best for entry in alone] == [()] * len(alone)
    assert [entry.logprob for entry in alone] == pytest.approx([e.logprob for e in answered("greedy").logprobs])


def test_every_token_of_the_vocabulary_can_be_told():
    vocab_size = demo()[0].config.text.vocab_size
    [entry] = g4.generate(*demo(), "Hello!", max_tokens=1, temperature=0, logprobs=vocab_size).logprobs
    assert sorted(best.token for best in entry.best) == list(range(vocab_size))
    assert np.logaddexp.reduce([best.logprob for best in entry.best]) == pytest.approx(0, abs=1e-4)
    assert entry.best[0].token == entry.token


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "3", 10**9, float("nan")])
def test_a_count_that_is_none_is_refused_at_the_call(wrong):
    with pytest.raises(ValueError, match="logprobs must be a whole number from 0 to"):
        g4.stream_generate(*demo(), "Hi", logprobs=wrong)


def test_numpy_counts_are_counts():
    assert len(g4.generate(*demo(), "Hi", max_tokens=1, logprobs=np.int64(2)).logprobs[0].best) == 2
