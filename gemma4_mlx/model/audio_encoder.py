"""The audio tower: a log-mel spectrogram → one feature per 40 ms, through two strided convolutions and a conformer.

Nothing in it looks ahead further than the convolutions do, and it has no absolute positions. Each layer therefore takes
the little it needs of the past as a state: a whole clip is one call from the empty state, a live stream many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..config import AudioConfig
from .layers import ClippedLinear, clamp

_MASKED = -1e9  # attention_invalid_logits_value


@dataclass(frozen=True)
class LayerState:
    """What one conformer layer remembers.

    Attributes:
        keys: float32 `[window - 1, heads, head_dim]` of the tokens before; zeros where there was none.
        values: the same for values.
        convolution_inputs: `[kernel - 1, hidden]`, the last ones of the causal convolution.
        distance_keys: float32 `[window, heads, head_dim]`, what stands for each distance, the largest first. It stays.
    """

    keys: mx.array
    values: mx.array
    convolution_inputs: mx.array
    distance_keys: mx.array


@dataclass(frozen=True)
class ConformerState:
    """What the conformer remembers: how many tokens it has seen, and each layer's state."""

    seen: int
    layers: tuple[LayerState, ...]


class SubSampleLayer(nn.Module):
    """3×3 convolution of stride 2, LayerNorm over channels, ReLU."""

    def __init__(self, input_channels: int, output_channels: int, eps: float):
        super().__init__()
        # The frequency axis is padded here. The caller pads time, because only it knows the frames before.
        self.conv = nn.Conv2d(input_channels, output_channels, 3, stride=2, padding=(0, 1), bias=False)
        self.norm = nn.LayerNorm(output_channels, eps=eps, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """`[time, bins, channels]` → `[(time - 1) // 2, ceil(bins / 2), output_channels]`."""
        return nn.relu(self.norm(self.conv(x[None])[0]))


class SubSampling(nn.Module):
    """Four 10 ms frames → one token: two strided convolutions over time and frequency, then a linear."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        first, second = config.subsampling_conv_channels
        self.layer0 = SubSampleLayer(1, first, config.rms_norm_eps)
        self.layer1 = SubSampleLayer(first, second, config.rms_norm_eps)
        # The reference sizes this from the channels; with its 128 mels and 128 channels the two agree.
        self.input_proj_linear = nn.Linear(first // 4 * second, config.hidden_size, bias=False)

    def __call__(self, log_mel: mx.array) -> mx.array:
        """A whole clip: `[frames, mels]` → `[ceil(frames / 4), hidden]`."""
        x = log_mel[..., None].astype(self.layer0.conv.weight.dtype)
        for layer in (self.layer0, self.layer1):
            x = layer(mx.pad(x, [(1, 1), (0, 0), (0, 0)]))
        return self.project(x)

    def project(self, x: mx.array) -> mx.array:
        """`[tokens, bins, channels]` → `[tokens, hidden]`."""
        return self.input_proj_linear(x.reshape(x.shape[0], -1))


class FeedForward(nn.Module):
    """Half-step feed-forward of a conformer block."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        hidden = config.hidden_size
        self._config = config
        self.ffw_layer_1 = ClippedLinear(hidden, 4 * hidden, clipped=config.use_clipped_linears)
        self.ffw_layer_2 = ClippedLinear(4 * hidden, hidden, clipped=config.use_clipped_linears)
        self.pre_layer_norm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)
        self.post_layer_norm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)

    def __call__(self, x: mx.array) -> mx.array:
        hidden = self.pre_layer_norm(_clip(x, self._config))
        hidden = self.ffw_layer_2(nn.silu(self.ffw_layer_1(hidden)))
        return x + self.post_layer_norm(_clip(hidden, self._config)) * self._config.residual_weight


class LocalAttention(nn.Module):
    """Each token sees itself and `window - 1` tokens before it, with learned weights on sinusoidal distances.

    In float32, as the reference: logits are softly capped, and a masked one must lose to any other.
    """

    def __init__(self, config: AudioConfig):
        super().__init__()
        hidden = config.hidden_size
        self._config = config
        self._head_dim = hidden // config.num_attention_heads
        self.q_proj = ClippedLinear(hidden, hidden, clipped=config.use_clipped_linears)
        self.k_proj = ClippedLinear(hidden, hidden, clipped=config.use_clipped_linears)
        self.v_proj = ClippedLinear(hidden, hidden, clipped=config.use_clipped_linears)
        self.post = ClippedLinear(hidden, hidden, clipped=config.use_clipped_linears)
        self.relative_k_proj = nn.Linear(hidden, hidden, bias=False)
        self.per_dim_scale = mx.zeros((self._head_dim,))

    def __call__(self, x: mx.array, state: LayerState, exists: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """`x` `[T, hidden]`, whose row t sees `window` keys, of which `exists` bool `[T, window]` are no padding.

        Returns `[T, hidden]` and the new `keys` and `values`.
        """
        length, window = exists.shape
        queries, new_keys, new_values = (
            proj(x).astype(mx.float32).reshape(length, -1, self._head_dim)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries = queries * (self._head_dim**-0.5 / math.log(2)) * nn.softplus(self.per_dim_scale.astype(mx.float32))
        keys = mx.concatenate([state.keys, new_keys * (math.log(1 + math.e) / math.log(2))])
        values = mx.concatenate([state.values, new_values])

        # Column j of row t is the token at distance window - 1 - j from token t.
        rows = mx.array(_columns(length, window))
        queries = queries[:, :, None]  # [T, heads, 1, head_dim]
        content = queries @ keys[rows].transpose(0, 2, 3, 1)
        position = queries @ state.distance_keys.transpose(1, 2, 0)
        cap = self._config.attention_logit_cap
        logits = mx.tanh((content + position) / cap) * cap  # [T, heads, 1, window]
        weights = mx.softmax(mx.where(exists[:, None, None], logits, _MASKED), axis=-1)
        out = (weights @ values[rows].swapaxes(1, 2)).reshape(length, -1)
        return self.post(out.astype(x.dtype)), keys[length:], values[length:]

    def distance_keys(self, sinusoids: mx.array) -> mx.array:
        """Sinusoids of distances `[window, hidden]` → what stands for them: float32 `[window, heads, head_dim]`."""
        return self.relative_k_proj(sinusoids).astype(mx.float32).reshape(len(sinusoids), -1, self._head_dim)


def _columns(length: int, window: int) -> np.ndarray:
    """Int `[length, window]`: where the keys that a row sees lie among the `window - 1` before and its own."""
    return np.arange(length)[:, None] + np.arange(window)[None, :]


class LightConvolution(nn.Module):
    """Gated pointwise linear, causal depthwise convolution over time, pointwise linear."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        hidden = config.hidden_size
        self._config = config
        self.pre_layer_norm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)
        self.linear_start = ClippedLinear(hidden, 2 * hidden, clipped=config.use_clipped_linears)
        self.depthwise_conv1d = nn.Conv1d(hidden, hidden, config.conv_kernel_size, groups=hidden, bias=False)
        self.conv_norm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)
        self.linear_end = ClippedLinear(hidden, hidden, clipped=config.use_clipped_linears)

    def __call__(self, x: mx.array, before: mx.array) -> tuple[mx.array, mx.array]:
        """`x` `[T, hidden]`, `before` the last `kernel - 1` gated inputs; returns the new `x` and `before`."""
        gated = mx.concatenate([before, nn.glu(self.linear_start(self.pre_layer_norm(x)))])
        convolved = _clip(self.depthwise_conv1d(gated[None])[0], self._config)
        return x + self.linear_end(nn.silu(self.conv_norm(convolved))), gated[x.shape[0] :]


class ConformerLayer(nn.Module):
    """Half feed-forward, local attention, light convolution, half feed-forward, norm."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self._config = config
        self.feed_forward1 = FeedForward(config)
        self.norm_pre_attn = nn.RMSNorm(hidden, eps=eps)
        self.self_attn = LocalAttention(config)
        self.norm_post_attn = nn.RMSNorm(hidden, eps=eps)
        self.lconv1d = LightConvolution(config)
        self.feed_forward2 = FeedForward(config)
        self.norm_out = nn.RMSNorm(hidden, eps=eps)

    def __call__(self, x: mx.array, state: LayerState, exists: mx.array) -> tuple[mx.array, LayerState]:
        x = self.feed_forward1(x)
        normed = self.norm_pre_attn(_clip(x, self._config))
        attended, keys, values = self.self_attn(normed, state, exists)
        x = x + self.norm_post_attn(_clip(attended, self._config))
        x, convolution_inputs = self.lconv1d(x, state.convolution_inputs)
        x = self.feed_forward2(x)
        return self.norm_out(_clip(x, self._config)), LayerState(keys, values, convolution_inputs, state.distance_keys)


class AudioTower(nn.Module):
    """Log-mel frames → features, one per 40 ms."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        self._config = config
        self.subsample_conv_projection = SubSampling(config)
        self.layers = [ConformerLayer(config) for _ in range(config.num_hidden_layers)]
        self.output_proj = nn.Linear(config.hidden_size, config.output_proj_dims, bias=True)

    def __call__(self, log_mel: mx.array) -> mx.array:
        """A whole clip: float32 `[frames, mels]` → `[ceil(frames / 4), output_proj_dims]`."""
        tokens = self.subsample_conv_projection(log_mel)
        return self.run_conformer(tokens, self.initial_state())[0]

    def initial_state(self) -> ConformerState:
        """The state before any sound."""
        config = self._config
        past = (
            config.attention_window - 1,
            config.num_attention_heads,
            config.hidden_size // config.num_attention_heads,
        )
        dtype = self.subsample_conv_projection.layer0.conv.weight.dtype  # convolutions are never packed
        convolution_inputs = mx.zeros((config.conv_kernel_size - 1, config.hidden_size), dtype)
        half = config.hidden_size // 2
        timescales = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10_000.0) / max(half - 1, 1)))
        angles = np.arange(config.attention_window - 1, -1, -1, dtype=np.float32)[:, None] * timescales
        sinusoids = mx.array(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)).astype(dtype)
        empty = (mx.zeros(past), mx.zeros(past), convolution_inputs)
        layers = tuple(LayerState(*empty, layer.self_attn.distance_keys(sinusoids)) for layer in self.layers)
        return ConformerState(seen=0, layers=layers)

    def run_conformer(self, tokens: mx.array, state: ConformerState) -> tuple[mx.array, ConformerState]:
        """The next subsampled tokens `[T, hidden]` → features `[T, output_proj_dims]` and the state after them."""
        features, layers = self.run_layers(tokens, state.layers, self.exists(len(tokens), state.seen))
        return features, ConformerState(state.seen + len(tokens), layers)

    def exists(self, length: int, seen: int) -> mx.array:
        """Which of the keys that `length` new tokens see are no padding, after `seen`: bool `[length, window]`."""
        window = self._config.attention_window
        return mx.array(_columns(length, window) + seen >= window - 1)

    def run_layers(
        self, x: mx.array, states: Sequence[LayerState], exists: mx.array
    ) -> tuple[mx.array, tuple[LayerState, ...]]:
        """`run_conformer` as a function of arrays alone."""
        layers = []
        for layer, state in zip(self.layers, states, strict=True):
            x, state = layer(x, state, exists)
            layers.append(state)
        return self.output_proj(x), tuple(layers)


def _clip(x: mx.array, config: AudioConfig) -> mx.array:
    # Keeps float16 finite; in wider types it is far from anything that occurs.
    bound = min(config.gradient_clipping, mx.finfo(x.dtype).max)
    return clamp(x, -bound, bound)
