"""The decoder trained and exported as 4 bits hold it, so that converting the model to 4 bits costs it nothing there.

A model this small has no weights to spare: rounded after training, it lost up to six answers in a hundred. So the last
stage computes with the weights as `gemma4-mlx convert` would pack them, while the optimizer moves the ones behind them
(straight-through estimator: Bengio et al., 2013, https://arxiv.org/abs/1308.3432).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
import torch
from torch import nn
from transformers import Gemma4ForConditionalGeneration

from gemma4_mlx.conversion.recipes import AFFINE_4, RECIPES


def weights(model: Gemma4ForConditionalGeneration) -> list[nn.Parameter]:
    """Those that the recipe `4bit` packs in 4 bits."""
    recipe, found = RECIPES["4bit"], []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("model."):
            packing = recipe.packing_of(name.removeprefix("model."), module.in_features, has_experts=False)
            if packing == AFFINE_4:
                found.append(module.weight)
    return found


@torch.no_grad()
def rounded(values: list[nn.Parameter]) -> list[torch.Tensor]:
    """The weights as 4 bits hold them: converting these again gives these again, to the bit."""
    groups = np.concatenate([value.detach().numpy().reshape(-1, AFFINE_4.group_size) for value in values])
    packed = mx.array(groups).astype(mx.bfloat16)
    # MLX moves a group's steps so that one of them is zero; where that leaves the last step unused, a second packing
    # moves them once more. A third has changed no weight of the exported model: tests/test_demo_model.py sees to it.
    for _ in range(2):
        packed = mx.dequantize(*mx.quantize(packed, **AFFINE_4.as_arguments()), **AFFINE_4.as_arguments())
    flat = torch.from_numpy(np.array(packed.astype(mx.float32))).flatten()
    return [part.view_as(value) for part, value in zip(flat.split([v.numel() for v in values]), values, strict=True)]


@contextmanager
def held(model: Gemma4ForConditionalGeneration) -> Iterator[None]:
    """Inside, the model computes with 4-bit weights; gradients go to the whole ones, which come back at the end."""
    parameters = weights(model)
    whole = [parameter.data for parameter in parameters]
    settle(model)
    try:
        yield
    finally:
        for parameter, value in zip(parameters, whole, strict=True):
            parameter.data = value


def settle(model: Gemma4ForConditionalGeneration) -> None:
    """Leaves the weights as 4 bits hold them, for good."""
    parameters = weights(model)
    for parameter, value in zip(parameters, rounded(parameters), strict=True):
        parameter.data = value
