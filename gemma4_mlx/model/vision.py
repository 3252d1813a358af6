"""The vision tower: patches of one picture → soft tokens.

E2B and E4B have 16 layers with clipped linears; 26B-A4B and 31B have 27 layers, no clipping, and standardize the pooled
features with statistics from the checkpoint.
"""

from __future__ import annotations

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..config import VisionConfig
from .inputs import ImagePatches
from .layers import ClippedLinear, GatedMLP, unit_rms_norm


class PatchEmbedder(nn.Module):
    """Pixels → hidden states: a linear, plus a learned row for the column and one for the row of each patch."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.input_proj = nn.Linear(3 * config.patch_size**2, config.hidden_size, bias=False)
        self.position_embedding_table = mx.zeros((2, config.position_embedding_size, config.hidden_size))

    def __call__(self, patches: mx.array, x: mx.array, y: mx.array) -> mx.array:
        """`patches` `[n, 3 * patch_size**2]` in [0, 1]; `x`, `y` int `[n]` → `[n, hidden]`."""
        table = self.position_embedding_table
        pixels = (2 * (patches - 0.5)).astype(table.dtype)
        return self.input_proj(pixels) + (table[0, x] + table[1, y])


class AxialRope:
    """2-D RoPE: the first half of each head rotates with the column, the second with the row."""

    def __init__(self, config: VisionConfig, x: np.ndarray, y: np.ndarray, dtype: mx.Dtype):
        axis_dim = config.head_dim // 2
        exponents = np.arange(0, axis_dim, 2, dtype=np.float32) / axis_dim
        inverse = (1.0 / np.float32(config.rope_theta) ** exponents)[None, :]
        angles = np.stack([x[:, None] * inverse, y[:, None] * inverse], axis=1)
        angles = angles[None, :, None]  # [1, n, 1, 2, axis_dim / 2]
        self.cos = mx.array(np.cos(angles, dtype=np.float32)).astype(dtype)
        self.sin = mx.array(np.sin(angles, dtype=np.float32)).astype(dtype)

    def __call__(self, states: mx.array) -> mx.array:
        """`[1, n, heads, head_dim]` → the same, rotated."""
        a, b = mx.split(states.reshape(*states.shape[:-1], 2, 2, -1), 2, axis=-2)  # axis, half, pair
        a, b = a.squeeze(-2), b.squeeze(-2)
        rotated = mx.stack([a * self.cos - b * self.sin, b * self.cos + a * self.sin], axis=-2)
        return rotated.reshape(states.shape)


class VisionAttention(nn.Module):
    """Every patch sees every patch of its picture."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        hidden, dim = config.hidden_size, config.head_dim
        linear = partial(ClippedLinear, clipped=config.use_clipped_linears)
        self._config = config
        self.q_proj = linear(hidden, config.num_attention_heads * dim)
        self.k_proj = linear(hidden, config.num_key_value_heads * dim)
        self.v_proj = linear(hidden, config.num_key_value_heads * dim)
        self.o_proj = linear(config.num_attention_heads * dim, hidden)
        self.q_norm = nn.RMSNorm(dim, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(dim, eps=config.rms_norm_eps)

    def __call__(self, x: mx.array, rope: AxialRope) -> mx.array:
        """`[1, n, hidden]` → `[1, n, hidden]`."""
        batch, n, _ = x.shape
        dim = self._config.head_dim
        queries = rope(self.q_norm(self.q_proj(x).reshape(batch, n, -1, dim)))
        keys = rope(self.k_norm(self.k_proj(x).reshape(batch, n, -1, dim)))
        values = unit_rms_norm(self.v_proj(x).reshape(batch, n, -1, dim), self._config.rms_norm_eps)
        queries, keys, values = (a.transpose(0, 2, 1, 3) for a in (queries, keys, values))
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=1.0)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(batch, n, -1))


class VisionLayer(nn.Module):
    """Attention and MLP, each normalised before and after."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        norm = partial(nn.RMSNorm, config.hidden_size, eps=config.rms_norm_eps)
        linear = partial(ClippedLinear, clipped=config.use_clipped_linears)
        self.input_layernorm = norm()
        self.self_attn = VisionAttention(config)
        self.post_attention_layernorm = norm()
        self.pre_feedforward_layernorm = norm()
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, linear)
        self.post_feedforward_layernorm = norm()

    def __call__(self, x: mx.array, rope: AxialRope) -> mx.array:
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), rope))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class VisionEncoder(nn.Module):
    """The stack of layers, named as in the checkpoint."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.layers = [VisionLayer(config) for _ in range(config.num_hidden_layers)]

    def __call__(self, x: mx.array, rope: AxialRope) -> mx.array:
        for layer in self.layers:
            x = layer(x, rope)
        return x


class VisionTower(nn.Module):
    """Patches of one picture → pooled features, one per 3×3 patches."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self._config = config
        self.patch_embedder = PatchEmbedder(config)
        self.encoder = VisionEncoder(config)
        if config.standardize:
            self.std_bias = mx.zeros((config.hidden_size,))
            self.std_scale = mx.ones((config.hidden_size,))

    def __call__(self, image: ImagePatches) -> mx.array:
        """Returns `[rows / 3 * columns / 3, hidden]`, row by row."""
        y, x = (axis.flatten() for axis in np.mgrid[: image.rows, : image.columns])
        states = self.patch_embedder(image.patches, mx.array(x), mx.array(y))[None]
        states = self.encoder(states, AxialRope(self._config, x, y, states.dtype))[0]
        return self._pool(states, image).astype(states.dtype)

    def _pool(self, states: mx.array, image: ImagePatches) -> mx.array:
        k = self._config.pooling_kernel_size
        # In float32: the sqrt(hidden) gain can leave float16's range, and std_bias cancels large values.
        grid = states.astype(mx.float32).reshape(image.rows // k, k, image.columns // k, k, -1)
        # The mean is rounded to the tower's precision before the gain, as the reference does.
        pooled = grid.mean(axis=(1, 3)).reshape(-1, states.shape[-1]).astype(states.dtype).astype(mx.float32)
        pooled = pooled * self._config.hidden_size**0.5
        if self._config.standardize:
            pooled = (pooled - self.std_bias.astype(mx.float32)) * self.std_scale.astype(mx.float32)
        return pooled
