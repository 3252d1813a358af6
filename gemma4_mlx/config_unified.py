"""What the 12B has instead of towers, as its `config.json` describes it.

transformers calls this size "unified" (`gemma4_unified`): pictures and sound go into the decoder through a few linears.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config_json import check_fixed, read_fields, require, whole_number
from .config_rules import check_sizes

# Four keys that all give this number; transformers writes the first.
_SAMPLES_PER_TOKEN = ("audio_embed_dim", "audio_samples_per_token", "hidden_size", "output_proj_dims")


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
        """Width of the input of the projection into the decoder's space; `VisionConfig` has it by this name."""
        return self.mm_embed_dim

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> UnifiedVisionConfig:
        """Read `vision_config`. Raises `ConfigError`, which names the key."""
        where = "vision_config"
        config = cls(**read_fields(cls, raw, where))
        check_sizes(config, where)
        side = config.patch_size * config.pooling_kernel_size
        check_fixed(raw, {"model_patch_size": side, "output_proj_dims": config.mm_embed_dim}, where)
        return config


@dataclass(frozen=True)
class UnifiedAudioConfig:
    """How the 12B hears: every `samples_per_token` samples at 16 kHz are one soft token, without an encoder."""

    samples_per_token: int = 640
    rms_norm_eps: float = 1e-6

    @property
    def output_proj_dims(self) -> int:
        """Width of the input of the projection into the decoder's space; `AudioConfig` has it by this name."""
        return self.samples_per_token

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> UnifiedAudioConfig:
        """Read `audio_config`. Raises `ConfigError`, which names the key."""
        where = "audio_config"
        given = {key: whole_number(raw[key], where, key) for key in _SAMPLES_PER_TOKEN if raw.get(key) is not None}
        size = next(iter(given.values()), cls.samples_per_token)
        for key, value in given.items():
            require(value > 0, where, key, value, "a positive integer")
            require(value == size, where, key, value, f"{size}, the number that other keys give")
        config = cls(**read_fields(cls, {**raw, "samples_per_token": size}, where))
        check_sizes(config, where)
        return config
