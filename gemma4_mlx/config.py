"""The shape of a Gemma 4: frozen dataclasses, and what one layer asks of them. Read this first.

Each field stands under its name in `config.json`. How that file is read and checked is in `config_json`; the ways in
which it is spelled, and what must fit together, are in `config_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .config_rules import SLIDING, check_fixed, read_audio, read_text, read_vision, read_whole
from .config_unified import UnifiedAudioConfig, UnifiedVisionConfig

LayerType = Literal["sliding_attention", "full_attention"]

#: The soft tokens that a picture may take, as Gemma 4 was trained with them, and what it takes when nobody says.
IMAGE_TOKEN_BUDGETS = (70, 140, 280, 560, 1120)
DEFAULT_IMAGE_TOKENS = 280


@dataclass(frozen=True)
class RopeConfig:
    """Rotary embedding of one kind of layer.

    Attributes:
        theta: base of the wavelengths.
        rotated_fraction: share of the head that rotates; the rest keeps frequency 0 ("proportional" RoPE).
    """

    theta: float
    rotated_fraction: float = 1.0


@dataclass(frozen=True)
class TextConfig:
    """The decoder. Names follow the published `text_config`; sizes are in channels, heads, layers or tokens."""

    hidden_size: int = 2304
    num_hidden_layers: int = 30
    intermediate_size: int = 9216
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    layer_types: tuple[LayerType, ...] = ()
    head_dim: int = 256
    global_head_dim: int = 512
    num_global_key_value_heads: int | None = None
    vocab_size: int = 262_144
    vocab_size_per_layer_input: int = 262_144
    hidden_size_per_layer_input: int = 256
    sliding_window: int = 512
    max_position_embeddings: int = 131_072
    num_kv_shared_layers: int = 0
    use_double_wide_mlp: bool = False
    attention_k_eq_v: bool = False
    enable_moe_block: bool = False
    num_experts: int | None = None
    top_k_experts: int | None = None
    moe_intermediate_size: int | None = None
    use_bidirectional_attention: Literal["vision"] | None = None
    final_logit_softcapping: float | None = None
    rms_norm_eps: float = 1e-6
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    sliding_rope: RopeConfig = RopeConfig(theta=10_000.0)
    full_rope: RopeConfig = RopeConfig(theta=1_000_000.0, rotated_fraction=0.25)

    @property
    def first_kv_shared_layer(self) -> int:
        """Index of the first layer without keys and values of its own; `num_hidden_layers` when there is none."""
        return self.num_hidden_layers - self.num_kv_shared_layers

    def is_sliding(self, layer: int) -> bool:
        return self.layer_types[layer] == SLIDING

    def layer_head_dim(self, layer: int) -> int:
        return self.head_dim if self.is_sliding(layer) else self.global_head_dim

    def layer_kv_heads(self, layer: int) -> int:
        if self.is_sliding(layer) or self.num_global_key_value_heads is None:
            return self.num_key_value_heads
        return self.num_global_key_value_heads

    def layer_shares_k_and_v(self, layer: int) -> bool:
        """Whether the layer has no `v_proj`: its values are the raw keys (full layers of the large sizes)."""
        return self.attention_k_eq_v and not self.is_sliding(layer)

    def layer_intermediate_size(self, layer: int) -> int:
        double = self.use_double_wide_mlp and layer >= self.first_kv_shared_layer
        return self.intermediate_size * (2 if double else 1)

    @property
    def bidirectional_images(self) -> bool:
        """Whether the tokens of one image see each other in both directions (sliding layers only)."""
        return self.use_bidirectional_attention == "vision"

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TextConfig:
        """Read `text_config`. Raises `ConfigError`, which names the key."""
        return read_text(cls, RopeConfig, raw)


@dataclass(frozen=True)
class UnifiedTextConfig(TextConfig):
    """The 12B's decoder. It is built as 26B's and 31B's; what its file leaves out is something else."""

    hidden_size_per_layer_input: int = 0
    sliding_window: int = 1024
    max_position_embeddings: int = 262_144
    use_bidirectional_attention: Literal["vision"] | None = "vision"

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> UnifiedTextConfig:
        """Read `text_config`. Raises `ConfigError`, which names the key."""
        # transformers has no such parts for this size, and would pass over them.
        check_fixed(raw, {"hidden_size_per_layer_input": 0, "enable_moe_block": False}, "text_config")
        return read_text(cls, RopeConfig, raw)


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower. `position_embedding_size` counts table rows per axis; `patch_size` is in pixels."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 16
    num_attention_heads: int = 12
    num_key_value_heads: int = 12
    head_dim: int = 64
    patch_size: int = 16
    pooling_kernel_size: int = 3
    position_embedding_size: int = 10_240
    rope_theta: float = 100.0
    rms_norm_eps: float = 1e-6
    standardize: bool = False
    use_clipped_linears: bool = False

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> VisionConfig:
        """Read `vision_config`. Raises `ConfigError`, which names the key."""
        return read_vision(cls, raw)


@dataclass(frozen=True)
class AudioConfig:
    """The audio conformer.

    Attributes:
        attention_window: keys a token sees: itself and `attention_window - 1` before it. transformers and the published
            word error rates use 12 where `attention_context_left` says 13 (its mask is exclusive); the makers' JAX code
            uses 13. `load(..., audio_window=13)` compares the two.
    """

    hidden_size: int = 1024
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    output_proj_dims: int = 1536
    subsampling_conv_channels: tuple[int, int] = (128, 32)
    conv_kernel_size: int = 5
    attention_context_left: int = 13
    attention_logit_cap: float = 50.0
    attention_window: int = 12
    residual_weight: float = 0.5
    gradient_clipping: float = 1e10
    rms_norm_eps: float = 1e-6
    use_clipped_linears: bool = True

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> AudioConfig:
        """Read `audio_config`. Raises `ConfigError`, which names the key."""
        return read_audio(cls, raw)

    def check_window(self) -> None:
        """Raise `ValueError` for a window the relative positions of the checkpoint do not reach."""
        # The sinusoids reach back attention_context_left - 1 tokens; beyond that the reference has no position.
        window = self.attention_window
        if not (isinstance(window, int) and 0 < window <= self.attention_context_left):
            longest = self.attention_context_left
            raise ValueError(f"audio_window must be 1 to {longest} for this checkpoint, not {window!r}")


@dataclass(frozen=True)
class Config:
    """A whole Gemma 4: the decoder, the towers it has, the placeholder ids, and how its weights are stored.

    Attributes:
        dtype: `"float32"`, `"bfloat16"` or `"float16"` where the file names the precision of the weights.
        quantization: what the file says of how they are packed; None: they are not.
    """

    text: TextConfig
    vision: VisionConfig | UnifiedVisionConfig | None = None
    audio: AudioConfig | UnifiedAudioConfig | None = None
    image_token_id: int = 258_880
    video_token_id: int = 258_884
    audio_token_id: int = 258_881
    boi_token_id: int = 255_999
    eoi_token_id: int = 258_882
    boa_token_id: int = 256_000
    eoa_token_id: int = 258_883
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    quantization: Mapping[str, Any] | None = None

    @property
    def pad_token_id(self) -> int:
        return self.text.pad_token_id

    @property
    def placeholder_ids(self) -> tuple[int, int, int]:
        """Ids whose embedding is replaced by a soft token."""
        return (self.image_token_id, self.video_token_id, self.audio_token_id)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Config:
        """Read a parsed `config.json`.

        Raises:
            ConfigError: the config is of another model, or holds a value no Gemma 4 can have; the key is named.
        """
        return read_whole(cls, PARTS, raw)


#: `model_type` in a `config.json` → the classes its parts are read by, under the names of `Config`'s fields.
PARTS: Mapping[str, Mapping[str, type]] = {
    "gemma4": {"text": TextConfig, "vision": VisionConfig, "audio": AudioConfig},
    "gemma4_text": {"text": TextConfig},  # a decoder alone
    "gemma4_unified": {"text": UnifiedTextConfig, "vision": UnifiedVisionConfig, "audio": UnifiedAudioConfig},
    "gemma4_unified_text": {"text": UnifiedTextConfig},
}

MODEL_TYPES = tuple(PARTS)
