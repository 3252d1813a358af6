"""What the 12B has instead of towers: how its `config.json` describes them.

transformers calls this size "unified" (`gemma4_unified`): pictures and sound go into the decoder through a few linears.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config_values import LARGEST_OTHER, check_fixed, is_whole, known_values, require

#: What `model_type` says of a whole 12B, and of its decoder alone.
UNIFIED = "gemma4_unified"
UNIFIED_TEXT = "gemma4_unified_text"

# Where a 12B's file says nothing, transformers takes other values than for the other sizes.
_TEXT_DEFAULTS = {
    "sliding_window": 1024,
    "max_position_embeddings": 262_144,
    "use_bidirectional_attention": "vision",
}
# What no 12B has, and transformers has no field for.
_TEXT_WITHOUT: dict[str, Any] = {"hidden_size_per_layer_input": 0, "enable_moe_block": False}


def unified_text(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A 12B's `text_config` with what it leaves out, to be read as any other size's.

    Raises:
        ConfigError: it has per-layer inputs or experts.
    """
    check_fixed(raw, _TEXT_WITHOUT, "text_config")
    return {**_TEXT_DEFAULTS, **raw, **_TEXT_WITHOUT}


@dataclass(frozen=True)
class UnifiedVisionConfig:
    """The 12B's eyes: every 48×48 pixels are one soft token.

    Attributes:
        patch_size, pooling_kernel_size: a soft token covers their product in pixels each way.
        mm_embed_dim: channels of a patch before the last linear.
        mm_posemb_size: rows of the position table, for each axis.
    """

    patch_size: int = 16
    pooling_kernel_size: int = 3
    mm_embed_dim: int = 3840
    mm_posemb_size: int = 1120
    rms_norm_eps: float = 1e-6

    @property
    def hidden_size(self) -> int:
        """What the projection into the decoder's space is given, as `VisionConfig` has it."""
        return self.mm_embed_dim

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> UnifiedVisionConfig:
        where = "vision_config"
        config = cls(**known_values(cls, raw, where))
        for field in dataclasses.fields(cls):
            value = getattr(config, field.name)
            require(value > 0, where, field.name, value, "a positive number")
        side = config.patch_size * config.pooling_kernel_size
        check_fixed(raw, {"model_patch_size": side, "output_proj_dims": config.mm_embed_dim}, where)
        return config


@dataclass(frozen=True)
class UnifiedAudioConfig:
    """The 12B's ears: so many samples at 16 kHz, as they are, are one soft token."""

    samples_per_token: int = 640
    rms_norm_eps: float = 1e-6

    @property
    def output_proj_dims(self) -> int:
        """What the projection into the decoder's space is given, as `AudioConfig` has it."""
        return self.samples_per_token

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> UnifiedAudioConfig:
        where = "audio_config"
        values = known_values(cls, raw, where)
        # One number under four names; transformers writes the first.
        for key in ("audio_embed_dim", "audio_samples_per_token", "hidden_size", "output_proj_dims"):
            if (size := raw.get(key)) is None:
                continue
            require(is_whole(size) and 0 < size <= LARGEST_OTHER, where, key, size, "a positive integer")
            same = values.setdefault("samples_per_token", int(size)) == size
            require(same, where, key, size, f"{values['samples_per_token']}, as the other sizes of a frame")
        config = cls(**values)
        require(config.samples_per_token > 0, where, "samples_per_token", config.samples_per_token, "positive")
        require(config.rms_norm_eps > 0, where, "rms_norm_eps", config.rms_norm_eps, "a positive number")
        return config
