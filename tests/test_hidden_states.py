"""Hidden states through a public call: transformers' last ones."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import torch
from PIL import Image

import gemma4_mlx as g4
from generation_checkpoints import lively, prompt_of


@pytest.mark.parametrize("variant", ["e2b", "moe", "dense"])
def test_hidden_states_are_the_last_ones_of_transformers(variant):
    ids = prompt_of(40)
    with torch.no_grad():
        outputs = lively(variant).reference(torch.tensor([ids]), output_hidden_states=True)
    expected = outputs.hidden_states[-1].float().numpy()
    model = lively(variant).model
    found = model.hidden_states(mx.array([ids]))
    assert found.shape == (1, 40, model.config.text.hidden_size)
    np.testing.assert_allclose(np.array(found), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", ["e2b", "moe", "dense"])
def test_the_last_one_alone_and_one_after_another_are_the_same(variant):
    model, ids = lively(variant).model, prompt_of(30)
    whole = np.array(model.hidden_states(mx.array([ids])))
    last = model.hidden_states(mx.array([ids]), last_only=True)
    assert last.shape == (1, 1, model.config.text.hidden_size)
    np.testing.assert_allclose(np.array(last), whole[:, -1:], atol=1e-4)
    cache = model.make_cache()
    parts = [model.hidden_states(mx.array([part]), cache=cache) for part in (ids[:20], ids[20:])]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-4)


def test_pictures_are_taken_and_logits_are_made_from_hidden_states():
    model, processor = lively("e2b").model, lively("e2b").processor
    content = [{"type": "image", "image": Image.new("RGB", (96, 96), "red")}, {"type": "text", "text": "What?"}]
    inputs = processor([{"role": "user", "content": content}])
    hidden = model.hidden_states(inputs)
    assert hidden.shape[:2] == inputs.input_ids.shape
    np.testing.assert_array_equal(np.array(model.language_model.logits(hidden)), np.array(model(inputs)))


def test_what_a_call_refuses_is_refused():
    model = lively("e2b").model
    for wrong in (mx.array([[]]), mx.array([1, 2]), mx.array([[1, 10**6]])):
        with pytest.raises(ValueError, match="ids"):
            model.hidden_states(wrong)
    assert g4.Gemma4.hidden_states.__doc__
