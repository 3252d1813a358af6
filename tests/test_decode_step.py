"""The compiled step gives what the uncompiled call gives, wherever the caches stand."""

from __future__ import annotations

import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
import torch

import gemma4_mlx as g4
from checkpoints import VARIANTS
from gemma4_mlx.model.rows import Rows
from parity import pair
from tiny_tokenizer import SPECIAL_IDS

IDS = np.random.default_rng(8).integers(len(SPECIAL_IDS), 512, (2, 340))


@pytest.mark.parametrize("per_layer", ["memory", "disk"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_have_the_logits_of_the_whole_prompt(variant: str, per_layer: str) -> None:
    # From 1 token on past the window of 24, and from 250 on past the 256 at which the full caches' buffers grow.
    model, _ = g4.load(pair(variant).folder, per_layer=per_layer)
    with torch.no_grad():
        theirs = pair(variant).reference(input_ids=torch.tensor(IDS)).logits.numpy()
    for start, end in ((1, 60), (250, 275)):
        cache = model.make_cache()
        model(mx.array(IDS[:, :start]), cache=cache)
        steps = [model.step(mx.array(IDS[:, i : i + 1]), cache) for i in range(start, end)]
        ours = np.array(mx.concatenate(steps, axis=1))
        assert np.abs(ours - theirs[:, start:end]).max() < 1e-3 * theirs.std()
        assert {layer_cache.offset for layer_cache in cache} == {end}


@pytest.mark.parametrize("per_layer", ["memory", "disk"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_joined_from_caches_of_any_lengths_have_the_logits_of_each_alone(variant: str, per_layer: str) -> None:
    # Below the window of 24 and across it, beyond it beside below it, and across the 256 at which buffers grow.
    model, _ = g4.load(pair(variant).folder, per_layer=per_layer)
    whole = np.array(model(mx.array(IDS)))
    lengths = np.random.default_rng(5).integers(1, 250, 3).tolist()
    for starts in ([3, 12, 7, 1], [40, 2, 22, 23, 24, 25], [251, 5, *lengths], [100, 100]):
        steps, rows = 14, np.arange(len(starts)) % 2
        caches = [model.make_cache() for _ in starts]
        for row, start, cache in zip(rows, starts, caches, strict=True):
            model(mx.array(IDS[row : row + 1, :start]), cache=cache)
        joined = Rows()
        joined.add(caches)
        for step in range(steps):
            places = np.array(starts) + step
            pending = model.step_ahead(mx.array(IDS[rows, places])[:, None], joined.cache, joined.padding)
            pending.known(IDS[rows, places])
            np.testing.assert_allclose(np.array(pending.logits)[:, 0], whole[rows, places], atol=1e-4, rtol=0)
        assert {layer_cache.offset for layer_cache in joined.cache} == {max(starts) + steps}


def test_steps_and_chunks_share_a_cache() -> None:
    model = pair("e4b").model
    expected = np.array(model(mx.array(IDS[:, :120])))
    cache, outs = model.make_cache(), []
    for start, end in ((0, 5), (5, 6), (6, 7), (7, 50), (50, 51), (51, 110), (110, 111), (111, 112), (112, 120)):
        ids = mx.array(IDS[:, start:end])
        outs.append(model.step(ids, cache) if end - start == 1 else model(ids, cache=cache))
    assert np.abs(np.array(mx.concatenate(outs, axis=1)) - expected).max() < 1e-4 * expected.std()


def test_new_weights_are_seen_by_the_next_step() -> None:
    model, _ = g4.load(pair("e2b").folder)
    cache = model.make_cache()
    model(mx.array(IDS[:, :5]), cache=cache)
    before = np.array(model.step(mx.array(IDS[:, 5:6]), cache))
    model.language_model.norm.weight = 2 * model.language_model.norm.weight
    cache.rewind(5)
    after = np.array(model.step(mx.array(IDS[:, 5:6]), cache))
    assert np.abs(after - before).max() > 0.1


def test_without_compilation_the_tokens_are_the_same() -> None:
    code = (
        "import sys, gemma4_mlx as g4\n"
        "model, _ = g4.load(sys.argv[1])\n"
        "print(list(g4.generate_tokens(model, [40, 41, 42], max_tokens=30)))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code, str(pair("e2b").folder)],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for variables in ({}, {"MLX_DISABLE_COMPILE": "1"})
    ]
    assert outputs[0] == outputs[1]
