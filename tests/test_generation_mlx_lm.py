"""Our model object is a model to mlx-lm as well."""

from __future__ import annotations

import mlx_lm
import pytest
from mlx_lm.utils import load_tokenizer

from checkpoints import VARIANTS
from gemma4_mlx.generation import generate_tokens
from generation_checkpoints import lively, prompt_of


@pytest.mark.parametrize("variant", VARIANTS)
def test_mlx_lm_streams_the_same_tokens(variant):
    pair, prompt = lively(variant), prompt_of(60)
    tokenizer = load_tokenizer(pair.folder)
    responses = mlx_lm.stream_generate(pair.model, tokenizer, prompt, max_tokens=24, prefill_step_size=16)
    assert [r.token for r in responses] == list(generate_tokens(pair.model, prompt, max_tokens=24))


def test_mlx_lm_generate_returns_the_text_of_the_same_tokens():
    pair, prompt = lively("e2b"), prompt_of(30)
    tokenizer = load_tokenizer(pair.folder)
    tokens = list(generate_tokens(pair.model, prompt, max_tokens=12))
    # Random tokens are no valid UTF-8, and of that mlx-lm's detokenizer makes something of its own.
    detokenizer = tokenizer.detokenizer
    for token in tokens:
        detokenizer.add_token(token)
    detokenizer.finalize()
    assert mlx_lm.generate(pair.model, tokenizer, prompt, max_tokens=12) == detokenizer.text


def test_mlx_lm_continues_in_a_cache_of_ours():
    pair, prompt = lively("dense"), prompt_of(60)
    cache = pair.model.make_cache()
    list(generate_tokens(pair.model, prompt, max_tokens=1, cache=cache))
    more = prompt_of(5, seed=1)
    responses = mlx_lm.stream_generate(pair.model, load_tokenizer(pair.folder), more, max_tokens=10, prompt_cache=cache)
    assert [r.token for r in responses] == list(generate_tokens(pair.model, prompt + more, max_tokens=10))
