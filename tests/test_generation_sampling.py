"""Drawing tokens: the distribution is transformers', the randomness one's own."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from gemma4_mlx.generation.sampling import make_sampler

VOCAB = 24


def drawn(sampler, logits: np.ndarray, times: int, seed: int = 0) -> list[int]:
    array, key, tokens = mx.array(logits[None]), mx.random.key(seed), []
    for _ in range(times):
        token, key = sampler(array, key)
        tokens.append(token)
    return mx.concatenate(tokens).tolist()


def reference_probabilities(logits: np.ndarray, temperature: float, top_p: float, top_k: int) -> np.ndarray:
    scores = TemperatureLogitsWarper(temperature)(None, torch.tensor(logits[None]))
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return torch.softmax(scores, -1)[0].numpy()


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, 0), (0.7, 1.0, 0), (1.0, 0.8, 0), (1.0, 1.0, 5), (0.8, 0.7, 6), (1.5, 0.9, 20), (2.0, 0.05, 3)],
)
def test_tokens_are_drawn_as_often_as_transformers_would(temperature, top_p, top_k):
    logits = np.random.default_rng(3).normal(scale=2, size=VOCAB).astype(np.float32)
    expected = reference_probabilities(logits, temperature, top_p, top_k)
    times = 4000
    counts = np.bincount(drawn(make_sampler(temperature, top_p, top_k), logits, times), minlength=VOCAB)
    assert not counts[expected == 0].any()
    # Five standard deviations of a binomial count, and a little for the rarest.
    assert (np.abs(counts - times * expected) <= 5 * np.sqrt(times * expected * (1 - expected)) + 3).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), top_k=st.integers(1, 12), vocab=st.sampled_from([40, 512, 1000, 256 * 64]))
def test_top_k_keeps_the_k_largest_whatever_the_size_of_the_vocabulary(seed, top_k, vocab):
    logits = np.random.default_rng(seed).permutation(vocab).astype(np.float32) / vocab
    allowed = set(np.argsort(-logits)[:top_k].tolist())
    # Nearly uniform: one of the k stays undrawn in 30 k draws once in 10^12 times.
    assert set(drawn(make_sampler(100.0, None, top_k), logits, 30 * top_k, seed)) == allowed


def test_temperature_0_and_one_candidate_take_the_most_likely_token():
    logits = np.random.default_rng(0).normal(size=VOCAB).astype(np.float32)
    best = [int(logits.argmax())] * 20
    for settings_ in [(0.0,), (1e-320,), (1e-4,), (5.0, None, 1), (5.0, 1e-9)]:
        assert drawn(make_sampler(*settings_), logits, 20) == best


def test_a_top_k_larger_than_the_vocabulary_keeps_everything():
    logits = np.zeros(8, np.float32)
    assert set(drawn(make_sampler(1.0, None, 100), logits, 200)) == set(range(8))


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others():
    logits = np.zeros(VOCAB, np.float32)
    sampler = make_sampler(1.0, 0.95, 20)
    assert (
        drawn(sampler, logits, 30, seed=5) == drawn(sampler, logits, 30, seed=5) != drawn(sampler, logits, 30, seed=6)
    )


def test_the_global_random_state_is_neither_read_nor_changed():
    logits = np.zeros(VOCAB, np.float32)
    mx.random.seed(1)
    undisturbed = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(1)
    first = drawn(make_sampler(1.0, 0.95, 20), logits, 30)
    assert mx.random.uniform(shape=(4,)).tolist() == undisturbed
    assert drawn(make_sampler(1.0, 0.95, 20), logits, 30) == first


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(-0.1, None, None), (float("nan"), None, None), (float("inf"), None, None)]
    + [(1.0, top_p, None) for top_p in (0.0, -1.0, 1.01, float("nan"))]
    + [(1.0, None, -1)],
)
def test_settings_out_of_range_are_refused(temperature, top_p, top_k):
    with pytest.raises(ValueError, match="must be"):
        make_sampler(temperature, top_p, top_k)
