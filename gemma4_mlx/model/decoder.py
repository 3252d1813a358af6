"""Gemma 4's decoder: embeddings in, hidden states out.

One layer, in order: attention (sliding or full), MLP (with experts beside it in the 26B-A4B), the per-layer-embedding
gate (E2B, E4B), and a scalar. Every sub-block is normalised before and after and added to the residual.

Shapes are written `[B, L, …]`. The compiled step (`step.py`) leaves L out, `[B, …]`: MLX flattens and unflattens the
batch around every product of a matrix and more than two dimensions, which is a sixth of all that decoding launches.
Only `Attention._by_head` and `Attention._heads_joined` tell the two apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..config import TextConfig
from .attention_mask import Mask
from .cache import Caches
from .experts import Experts, Router
from .full_cache import FullCache
from .grouped_attention import FEW_QUERIES, plain_attention
from .layer_cache import KVCache
from .layers import GatedMLP, geglu, unit_rms_norm
from .packed_attention import KeysValues, PackedKeysValues
from .sliding_cache import SlidingCache


class KeysValuesStore(Protocol):
    """What a layer adds its keys and values to: a `KVCache`, or the compiled step's stand-in for one."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KeysValues:
        """Add `[B, kv_heads, L, head_dim]`; returns what the L queries may see."""


class RotaryEmbedding:
    """RoPE of one kind of layer.

    "Proportional" RoPE of full layers: wavelengths are spread over the whole head, but only the first fraction of the
    pairs rotates. Pair i is (i, i + head_dim / 2), so what stays fixed is the end of both halves, not of the head.
    """

    def __init__(self, config: TextConfig, layer: int):
        rope = config.sliding_rope if config.is_sliding(layer) else config.full_rope
        self.dims = config.layer_head_dim(layer)
        rotated = int(rope.rotated_fraction * self.dims // 2)
        exponents = np.arange(0, 2 * rotated, 2, dtype=np.float32) / self.dims
        still = np.full(self.dims // 2 - rotated, np.inf, dtype=np.float32)
        # Given rather than left to `base`, so that MLX's CPU backend does not work them out at every call.
        self.wavelengths = mx.array(np.concatenate([np.float32(rope.theta) ** exponents, still]))

    def __call__(self, x: mx.array, offset: int | mx.array) -> mx.array:
        """`x` `[B, heads, L, head_dim]`; its first token stands at position `offset`, int `[B]` where rows differ."""
        return mx.fast.rope(
            x, self.dims, traditional=False, base=None, scale=1.0, offset=offset, freqs=self.wavelengths
        )


class Attention(nn.Module):
    """Grouped-query attention. The scale is 1: the norms of queries and keys carry it."""

    def __init__(self, config: TextConfig, layer: int):
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        heads, kv_heads = config.num_attention_heads, config.layer_kv_heads(layer)
        self._head_dim = config.layer_head_dim(layer)
        self._eps = eps
        self._rope = RotaryEmbedding(config, layer)
        self._window = config.sliding_window if config.is_sliding(layer) else None
        self._values_are_keys = config.layer_shares_k_and_v(layer)

        self.q_proj = nn.Linear(hidden, heads * self._head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self._head_dim, hidden, bias=False)
        self.q_norm = nn.RMSNorm(self._head_dim, eps=eps)
        if layer < config.first_kv_shared_layer:
            self.k_proj = nn.Linear(hidden, kv_heads * self._head_dim, bias=False)
            self.k_norm = nn.RMSNorm(self._head_dim, eps=eps)
            if not self._values_are_keys:
                self.v_proj = nn.Linear(hidden, kv_heads * self._head_dim, bias=False)

    def add_to_cache(self, x: mx.array, offset: int | mx.array, cache: KeysValuesStore) -> KeysValues:
        """Add the keys and values of `x` `[B, L, hidden]` to `cache`; returns all that queries of `x` may see."""
        raw_keys = self.k_proj(x)
        # k = v: the values are the keys before their norm and rotation, then normalised like any values.
        raw_values = raw_keys if self._values_are_keys else self.v_proj(x)
        keys = self._rope(self._by_head(raw_keys, self.k_norm), offset)
        values = self._by_head(raw_values, partial(unit_rms_norm, eps=self._eps))
        return cache.update_and_fetch(keys, values)

    def __call__(self, x: mx.array, keys_values: KeysValues, mask: Mask, offset: int | mx.array) -> mx.array:
        """Attend from `x` `[B, L, hidden]`, whose first token stands at `offset`; returns `[B, L, hidden]`.

        Args:
            keys_values: what `add_to_cache` returned: this layer's, or for a KV-shared layer its source's.
            mask: from the cache; None: one query, which sees every key (of a sliding layer the last `window`).
        """
        queries = self._rope(self._by_head(self.q_proj(x), self.q_norm), offset)  # [B, heads, L, head_dim]
        if isinstance(keys_values, PackedKeysValues):
            out = keys_values.attend(queries, mask)
        elif self._window is None and queries.shape[2] <= FEW_QUERIES:
            out = plain_attention(queries, keys_values, mask)
        else:
            if mask is None and self._window is not None and keys_values[0].shape[2] > self._window:
                keys_values = tuple(array[..., -self._window :, :] for array in keys_values)
            out = mx.fast.scaled_dot_product_attention(queries, *keys_values, scale=1.0, mask=mask)
        return self.o_proj(self._heads_joined(out, x.ndim))

    def _by_head(self, projected: mx.array, norm: Callable[[mx.array], mx.array]) -> mx.array:
        """`[B, L, heads * head_dim]` or `[B, heads * head_dim]` → `[B, heads, L, head_dim]`, every head normalised."""
        if projected.ndim == 2:
            return norm(projected.reshape(len(projected), -1, 1, self._head_dim))  # L = 1 is where it belongs already
        by_head = projected.reshape(*projected.shape[:2], -1, self._head_dim)  # [B, L, heads, head_dim]
        return norm(by_head).transpose(0, 2, 1, 3)  # [B, heads, L, head_dim]

    def _heads_joined(self, by_head: mx.array, ndim: int) -> mx.array:
        """`[B, heads, L, head_dim]` → `[B, L, heads * head_dim]`, or with `ndim` 2 `[B, heads * head_dim]`."""
        if ndim == 2:
            return by_head.reshape(len(by_head), -1)
        by_head = by_head.transpose(0, 2, 1, 3)  # [B, L, heads, head_dim]
        return by_head.reshape(*by_head.shape[:2], -1)


class DecoderLayer(nn.Module):
    """One block of the decoder."""

    def __init__(self, config: TextConfig, layer: int):
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        norm = partial(nn.RMSNorm, hidden, eps=eps)
        self._has_experts = config.enable_moe_block
        self._has_per_layer_input = config.hidden_size_per_layer_input > 0

        self.input_layernorm = norm()
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = norm()
        self.pre_feedforward_layernorm = norm()
        self.mlp = GatedMLP(hidden, config.layer_intermediate_size(layer))
        self.post_feedforward_layernorm = norm()
        if self._has_experts:
            self.router = Router(config)
            self.experts = Experts(config)
            self.post_feedforward_layernorm_1 = norm()
            self.pre_feedforward_layernorm_2 = norm()
            self.post_feedforward_layernorm_2 = norm()
        if self._has_per_layer_input:
            self.per_layer_input_gate = nn.Linear(hidden, config.hidden_size_per_layer_input, bias=False)
            self.per_layer_projection = nn.Linear(config.hidden_size_per_layer_input, hidden, bias=False)
            self.post_per_layer_input_norm = norm()
        self.layer_scalar = mx.ones((1,))

    def __call__(
        self,
        x: mx.array,
        source: KeysValuesStore | KeysValues,
        mask: Mask,
        offset: int | mx.array,
        per_layer_input: mx.array | None,
        last_only: bool = False,
    ) -> tuple[mx.array, KeysValues]:
        """Run the block.

        Args:
            x: `[B, L, hidden]`.
            source: the layer's cache, to which the keys and values of `x` are added; for a KV-shared layer what the
                layer that it shares with returned.
            mask: which keys each query sees, from the cache.
            offset: position of the first token of `x`.
            per_layer_input: `[B, L, per_layer_dim]`, None for sizes without.
            last_only: add the keys and values of all L tokens, and run the rest for the last token alone.

        Returns:
            The new `x` `[B, L, hidden]`, with `last_only` `[B, 1, hidden]`; and the keys and values it attended to.
        """
        normed = self.input_layernorm(x)
        if isinstance(source, tuple | PackedKeysValues):
            keys_values = source
        else:
            keys_values = self.self_attn.add_to_cache(normed, offset, source)
        if last_only:
            offset, mask = offset + x.shape[1] - 1, None
            x, normed = x[:, -1:], normed[:, -1:]
            per_layer_input = None if per_layer_input is None else per_layer_input[:, -1:]

        x = x + self.post_attention_layernorm(self.self_attn(normed, keys_values, mask, offset))
        x = x + self.post_feedforward_layernorm(self._feed_forward(x))
        if self._has_per_layer_input:
            assert per_layer_input is not None
            gated = geglu(self.per_layer_input_gate(x), per_layer_input)
            x = x + self.post_per_layer_input_norm(self.per_layer_projection(gated))
        return x * self.layer_scalar, keys_values

    def _feed_forward(self, x: mx.array) -> mx.array:
        dense = self.mlp(self.pre_feedforward_layernorm(x))
        if not self._has_experts:
            return dense
        # Router and experts read the residual itself, not what the dense MLP reads.
        sparse = self.experts(self.pre_feedforward_layernorm_2(x), *self.router(x))
        return self.post_feedforward_layernorm_1(dense) + self.post_feedforward_layernorm_2(sparse)


class Decoder(nn.Module):
    """Embeddings, layers, final norm and the head, which is nearly always the embeddings again."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self._config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [DecoderLayer(config, i) for i in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        width = config.num_hidden_layers * config.hidden_size_per_layer_input
        if width:
            self.embed_tokens_per_layer = nn.Embedding(config.vocab_size_per_layer_input, width)
            self.per_layer_model_projection = nn.Linear(config.hidden_size, width, bias=False)
            self.per_layer_projection_norm = nn.RMSNorm(config.hidden_size_per_layer_input, eps=config.rms_norm_eps)

    @property
    def layer_types(self) -> Sequence[str]:
        """The kind of each layer, sliding or full."""
        return self._config.layer_types

    def make_cache(self, kv_bits: int | None = None) -> Caches:
        """An empty cache: one entry per layer that has keys and values of its own."""
        config = self._config
        return Caches(
            SlidingCache(config.sliding_window) if config.is_sliding(i) else FullCache(kv_bits)
            for i in range(config.first_kv_shared_layer)
        )

    def embed(self, ids: mx.array) -> mx.array:
        """Ids `[B, L]` → embeddings `[B, L, hidden]`."""
        # The scale stays outside the table, so that the table is a plain one: it can be quantized, and as the tied head
        # it is used unscaled.
        return self._in_model_dtype(self.embed_tokens(ids)) * self._config.hidden_size**0.5

    def _in_model_dtype(self, rows: mx.array) -> mx.array:
        """`rows` in the dtype that the layers compute in: a table in a microscaling mode always unpacks to bf16."""
        return rows.astype(self.norm.weight.dtype)

    def per_layer_rows(self, ids: mx.array) -> mx.array | None:
        """The ids' rows of the per-layer table, unscaled: `[B, L, layers * per_layer_dim]`.

        None for sizes without per-layer embeddings. In `ids` `[B, L]` placeholders are already replaced by the pad id.
        """
        if not self._config.hidden_size_per_layer_input:
            return None
        return self._in_model_dtype(self.embed_tokens_per_layer(ids))

    def per_layer_inputs(self, rows: mx.array | None, embeddings: mx.array) -> list[mx.array] | None:
        """What each layer's gate is given: the id's row of the per-layer table, and a projection of the embedding.

        Args:
            rows: from `per_layer_rows`.
            embeddings: `[B, L, hidden]`, soft tokens already in place.

        Returns:
            For each layer `[B, L, per_layer_dim]`; None for sizes without per-layer embeddings.
        """
        if rows is None:
            return None
        config = self._config
        dim = config.hidden_size_per_layer_input
        shape = (*embeddings.shape[:-1], config.num_hidden_layers, dim)
        projected = (self.per_layer_model_projection(embeddings) * config.hidden_size**-0.5).reshape(shape)
        combined = (self.per_layer_projection_norm(projected) + rows.reshape(shape) * dim**0.5) * 2**-0.5
        return [part.squeeze(-2) for part in mx.split(combined, config.num_hidden_layers, axis=-2)]

    def __call__(
        self,
        embeddings: mx.array,
        per_layer_inputs: Sequence[mx.array] | None,
        cache: Sequence[KVCache],
        image_blocks: np.ndarray | None = None,
        last_only: bool = False,
    ) -> mx.array:
        """Run all layers.

        Args:
            embeddings: `[B, L, hidden]`.
            per_layer_inputs: from `per_layer_inputs`.
            cache: from `make_cache`; L tokens are added to it.
            image_blocks: int `[L]`: equal numbers for tokens of one image that see each other, -1 elsewhere.
            last_only: return the last position alone. All others are needed only as far as keys and values of later
                layers come from them: from the last layer that writes any, and through the KV-shared layers after it
                (20 of E2B's 35), only the last position has to run.

        Returns:
            Normalised hidden states `[B, L, hidden]`, with `last_only` `[B, 1, hidden]`.
        """
        masks: dict[str, Mask] = {}
        length = embeddings.shape[1]
        for kind, layer_cache in zip(self.layer_types, cache, strict=False):
            if kind not in masks:
                masks[kind] = _mask(layer_cache, length, image_blocks)
        return self.run_layers(embeddings, per_layer_inputs, cache, masks, Caches.of(cache).offset, last_only)

    def run_layers(
        self,
        x: mx.array,
        per_layer_inputs: Sequence[mx.array] | None,
        cache: Sequence[KeysValuesStore],
        masks: Mapping[str, Mask],
        offset: int | mx.array,
        last_only: bool = False,
    ) -> mx.array:
        """`__call__` with the masks, by kind of layer, and the position of the first token given."""
        last_with_cache = self._config.first_kv_shared_layer - 1
        last_offset = offset + x.shape[1] - 1 if last_only else offset
        latest: dict[str, KeysValues] = {}  # by kind; a KV-shared layer reads what the last of its kind has written
        for i, (layer, kind) in enumerate(zip(self.layers, self.layer_types, strict=True)):
            source = cache[i] if i <= last_with_cache else latest[kind]
            per_layer_input = None if per_layer_inputs is None else per_layer_inputs[i]
            cut = last_only and i == last_with_cache
            x, latest[kind] = layer(x, source, masks[kind], offset, per_layer_input, cut)
            if cut:  # from here on only the last position runs, and it needs no mask
                offset, masks = last_offset, dict.fromkeys(masks)
                per_layer_inputs = None if per_layer_inputs is None else [part[:, -1:] for part in per_layer_inputs]
        return self.norm(x)

    def logits(self, hidden: mx.array) -> mx.array:
        """Hidden states `[B, L, hidden]` → float32 logits `[B, L, vocab]`, softly capped."""
        # bf16 has 8 bits of precision: capping in it would merge logits that differ.
        head = self.embed_tokens.as_linear if self._config.tie_word_embeddings else self.lm_head
        logits = head(hidden).astype(mx.float32)
        cap = self._config.final_logit_softcapping
        return logits if cap is None else _softcap(logits, cap)


def _mask(cache: KVCache, length: int, image_blocks: np.ndarray | None) -> Mask:
    if isinstance(cache, SlidingCache):
        return cache.make_mask(length, image_blocks=image_blocks)
    # Full layers stay causal even inside an image.
    return cache.make_mask(length, window_size=None, return_array=False)


@partial(mx.compile, shapeless=True)
def _softcap(logits: mx.array, cap: float) -> mx.array:
    return mx.tanh(logits / cap) * cap
