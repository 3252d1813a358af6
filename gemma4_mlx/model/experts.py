"""The mixture of experts that stands beside the dense MLP in the 26B-A4B."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import TextConfig
from .layers import geglu

# From this many (token, expert) pairs on, sorting them by expert pays: each expert's weights are then read once.
_SORT_FROM = 64


class ExpertLinear(nn.Module):
    """One weight matrix per expert, `[experts, output_dims, input_dims]`; each row of the input names its expert."""

    def __init__(self, num_experts: int, input_dims: int, output_dims: int):
        super().__init__()
        self.weight = mx.zeros((num_experts, output_dims, input_dims))

    def __call__(self, x: mx.array, expert: mx.array, sorted_indices: bool) -> mx.array:
        return mx.gather_mm(x, self.weight.swapaxes(-1, -2), rhs_indices=expert, sorted_indices=sorted_indices)

    def to_quantized(
        self, group_size: int | None = None, bits: int | None = None, mode: str = "affine", **_: Any
    ) -> QuantizedExpertLinear:
        return QuantizedExpertLinear(self.weight, group_size, bits, mode)


class QuantizedExpertLinear(nn.Module):
    """`ExpertLinear` with packed weights, in any of MLX's quantization modes."""

    def __init__(self, weight: mx.array, group_size: int | None, bits: int | None, mode: str):
        super().__init__()
        self.group_size, self.bits, self.mode = group_size, bits, mode
        self.weight, self.scales, *biases = mx.quantize(weight, group_size, bits, mode=mode)
        if biases:
            self.biases = biases[0]
        self.freeze()

    def __call__(self, x: mx.array, expert: mx.array, sorted_indices: bool) -> mx.array:
        return mx.gather_qmm(
            x,
            self.weight,
            self.scales,
            self.get("biases"),
            rhs_indices=expert,
            transpose=True,
            group_size=self.group_size,
            bits=self.bits,
            mode=self.mode,
            sorted_indices=sorted_indices,
        )


class Router(nn.Module):
    """Chooses each token's experts and their shares."""

    def __init__(self, config: TextConfig):
        super().__init__()
        assert config.num_experts is not None
        assert config.top_k_experts is not None
        self.proj = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.scale = mx.ones((config.hidden_size,))
        self.per_expert_scale = mx.ones((config.num_experts,))
        self._top_k = config.top_k_experts
        self._eps = config.rms_norm_eps
        self._input_scale = config.hidden_size**-0.5

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """`[B, L, hidden]` → expert indices and their weights, both `[B, L, top_k]`."""
        scores = self.proj(mx.fast.rms_norm(x, self.scale * self._input_scale, self._eps)).astype(mx.float32)
        chosen = mx.argpartition(-scores, kth=self._top_k - 1, axis=-1)[..., : self._top_k]
        # A softmax over all experts, renormalised over the chosen ones, is a softmax over the chosen ones.
        shares = mx.softmax(mx.take_along_axis(scores, chosen, axis=-1), axis=-1)
        return chosen, (shares * self.per_expert_scale[chosen]).astype(x.dtype)


class Experts(nn.Module):
    """Gated MLPs of which each token runs through its chosen few."""

    def __init__(self, config: TextConfig):
        super().__init__()
        experts, hidden, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        assert experts is not None
        assert width is not None
        self.gate_proj = ExpertLinear(experts, hidden, width)
        self.up_proj = ExpertLinear(experts, hidden, width)
        self.down_proj = ExpertLinear(experts, width, hidden)

    def __call__(self, x: mx.array, chosen: mx.array, shares: mx.array) -> mx.array:
        """`x` `[B, L, hidden]`, `chosen` and `shares` `[B, L, top_k]` → `[B, L, hidden]`."""
        tokens, top_k = x.reshape(-1, x.shape[-1]), chosen.shape[-1]
        expert = chosen.flatten()  # pair p is token p // top_k at expert[p]
        in_order = expert.size < _SORT_FROM
        pairs = mx.arange(expert.size) if in_order else mx.argsort(expert)
        # By `reshape`, which gives the new dimension the stride of a row; with `[:, None]` it has that of one number,
        # and MLX before 0.32.4 took it for the rows' (`GatherMM` on Metal, MLX issue 3960).
        rows, expert = tokens[pairs // top_k].reshape(-1, 1, x.shape[-1]), expert[pairs]
        hidden = geglu(self.gate_proj(rows, expert, not in_order), self.up_proj(rows, expert, not in_order))
        out = self.down_proj(hidden, expert, not in_order).squeeze(1)
        if not in_order:
            out = out[mx.argsort(pairs)]
        out = out.reshape(*chosen.shape, -1)  # [B, L, top_k, hidden]
        return (out * shares[..., None]).sum(axis=-2)
