"""Small layers that the decoder and both towers are built from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn


@partial(mx.compile, shapeless=True)
def geglu(gate: mx.array, up: mx.array) -> mx.array:
    """`gelu(gate) * up` with the tanh approximation of gelu, the gate of every Gemma 4 MLP."""
    return nn.gelu_approx(gate) * up


@partial(mx.compile, shapeless=True)
def clamp(x: mx.array, low: mx.array | float, high: mx.array | float) -> mx.array:
    """`mx.clip` as one kernel: on a GPU it is two, and clamps are half of all that an encoder of sound launches."""
    return mx.minimum(mx.maximum(x, low), high)


def unit_rms_norm(x: mx.array, eps: float) -> mx.array:
    """RMSNorm without a weight."""
    return mx.fast.rms_norm(x, None, eps)


class GatedMLP(nn.Module):
    """Gated MLP with three linears; `linear` is `nn.Linear` in the decoder and `ClippedLinear` in the vision tower."""

    def __init__(self, hidden_size: int, intermediate_size: int, linear: Callable[..., nn.Module] = nn.Linear):
        super().__init__()
        self.gate_proj = linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = linear(intermediate_size, hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(geglu(self.gate_proj(x), self.up_proj(x)))


class ClippedLinear(nn.Module):
    """A linear of a tower, its input and output clamped to bounds that the checkpoint stores.

    The small sizes were trained with the bounds in place; without them the towers' outputs are useless. In the large
    sizes the vision tower has no bounds (`clipped=False`) but keeps the same nesting of names.
    """

    def __init__(self, input_dims: int, output_dims: int, bias: bool = False, clipped: bool = True):
        super().__init__()
        self.linear = nn.Linear(input_dims, output_dims, bias=bias)
        self._clipped = clipped
        if clipped:
            self.input_min = mx.array(-mx.inf)
            self.input_max = mx.array(mx.inf)
            self.output_min = mx.array(-mx.inf)
            self.output_max = mx.array(mx.inf)

    def __call__(self, x: mx.array) -> mx.array:
        if not self._clipped:
            return self.linear(x)
        x = clamp(x, self.input_min, self.input_max)
        return clamp(self.linear(x), self.output_min, self.output_max)


class SoftTokenProjection(nn.Module):
    """Tower output → soft tokens in the decoder's embedding space: RMSNorm without a weight, then a linear."""

    def __init__(self, tower_dims: int, hidden_size: int, eps: float):
        super().__init__()
        self.embedding_projection = nn.Linear(tower_dims, hidden_size, bias=False)
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        """`[n, tower_dims]` → `[n, hidden]`."""
        return self.embedding_projection(unit_rms_norm(x, self._eps))
