"""Small random checkpoints of every variant, written by transformers in the Hugging Face layout.

Real weights are nowhere near a test; what a test needs of them is that every part of the model matters to the logits.
So nothing keeps its default: norms, scalars, clip bounds, router scales and statistics are all drawn at random.
"""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Gemma4Config, Gemma4ForConditionalGeneration, PreTrainedModel
from transformers.models.gemma4_unified import Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration

from tiny_tokenizer import SPECIAL_IDS, write_tokenizer

VARIANTS = ("e2b", "e4b", "moe", "dense", "unified")

_S, _F = "sliding_attention", "full_attention"

_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "head_dim": 32,
    "global_head_dim": 64,
    "vocab_size": 512,
    "vocab_size_per_layer_input": 512,
    "sliding_window": 24,
    "max_position_embeddings": 4096,
    "final_logit_softcapping": 30.0,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "enable_moe_block": False,
    "hidden_activation": "gelu_pytorch_tanh",
    "rope_parameters": {
        _F: {"partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0, "rope_type": "proportional"},
        _S: {"rope_theta": 10_000.0, "rope_type": "default"},
    },
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}

_TEXT_OF: dict[str, dict[str, Any]] = {
    "e2b": {
        "layer_types": [_S, _S, _F, _S, _S, _S, _F],
        "num_key_value_heads": 1,
        "hidden_size_per_layer_input": 32,
        "num_kv_shared_layers": 4,
        "use_double_wide_mlp": True,
    },
    "e4b": {
        "layer_types": [_S, _S, _F, _S, _F, _S, _S, _F],
        "num_key_value_heads": 2,
        "hidden_size_per_layer_input": 32,
        "num_kv_shared_layers": 3,
    },
    "moe": {
        "layer_types": [_S, _S, _F, _S, _F],
        "num_key_value_heads": 2,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0,
        "enable_moe_block": True,
        "num_experts": 8,
        "top_k_experts": 2,
        "moe_intermediate_size": 64,
        "use_bidirectional_attention": "vision",
    },
    "dense": {
        "layer_types": [_S, _F, _S, _S, _F],
        "num_key_value_heads": 4,
        "num_global_key_value_heads": 2,
        "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0,
        "use_bidirectional_attention": "vision",
    },
    "unified": {
        "layer_types": [_S, _S, _F, _S, _F],
        "num_key_value_heads": 2,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0,
        "use_bidirectional_attention": "vision",
    },
}

_VISION: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "position_embedding_size": 4096,
}

_AUDIO: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "output_proj_dims": 64,
    "subsampling_conv_channels": [128, 8],
    "use_clipped_linears": True,
}

# The 12B's eyes and ears, as published but for their width.
_UNIFIED: dict[str, dict[str, Any]] = {
    "vision_config": {
        "model_type": "gemma4_unified_vision",
        "patch_size": 16,
        "pooling_kernel_size": 3,
        "model_patch_size": 48,
        "mm_embed_dim": 96,
        "mm_posemb_size": 1120,
        "num_soft_tokens": 280,
        "output_proj_dims": 96,
    },
    "audio_config": {
        "model_type": "gemma4_unified_audio",
        "audio_embed_dim": 640,
        "hidden_size": 640,
        "output_proj_dims": 640,
        "audio_samples_per_token": 640,
    },
}
_FRAMES = {
    "feature_extractor_type": "Gemma4UnifiedAudioFeatureExtractor",
    "audio_samples_per_token": 640,
    "feature_size": 640,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
    "sampling_rate": 16_000,
}


def raw_config(variant: str, spelling: str = "published") -> dict[str, Any]:
    """`config.json` of a variant in one of the two spellings, `"published"` or `"per_layer"`."""
    small = variant in ("e2b", "e4b")
    text = {**_TEXT, **_TEXT_OF[variant], "num_hidden_layers": len(_TEXT_OF[variant]["layer_types"])}
    published = {
        "model_type": "gemma4",
        "architectures": ["Gemma4ForConditionalGeneration"],
        "text_config": {**text, "model_type": "gemma4_text"},
        "vision_config": {
            **_VISION,
            "model_type": "gemma4_vision",
            "use_clipped_linears": small,
            "standardize": not small,
        },
        "audio_config": {**_AUDIO, "model_type": "gemma4_audio"} if small else None,
        "image_token_id": SPECIAL_IDS["<|image|>"],
        "video_token_id": SPECIAL_IDS["<|video|>"],
        "audio_token_id": SPECIAL_IDS["<|audio|>"],
        "boi_token_id": SPECIAL_IDS["<|image>"],
        "eoi_token_id": SPECIAL_IDS["<image|>"],
        "boa_token_id": SPECIAL_IDS["<|audio>"],
        "eoa_token_index": SPECIAL_IDS["<audio|>"],
        "tie_word_embeddings": True,
        "vocab_size": _TEXT["vocab_size"],  # mlx-lm reads it here
    }
    if variant == "unified":
        published |= copy.deepcopy(_UNIFIED) | {
            "model_type": "gemma4_unified",
            "architectures": ["Gemma4UnifiedForConditionalGeneration"],
            "text_config": {**text, "model_type": "gemma4_unified_text"},
        }
    if spelling == "published":
        return published
    return json.loads(_classes(variant)[0](**published).to_json_string(use_diff=False))


def _classes(variant: str) -> tuple[Any, Any]:
    """transformers' classes of a variant's configuration and model."""
    if variant == "unified":
        return Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration
    return Gemma4Config, Gemma4ForConditionalGeneration


def _randomise(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size, std: float) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * std

    def uniform(shape: torch.Size, low: float, high: float) -> torch.Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied to the embeddings
        last = name.rsplit(".", 1)[-1]
        if last in ("input_min", "output_min"):
            value = uniform(tensor.shape, -3.0, -1.5)
        elif last in ("input_max", "output_max"):
            value = uniform(tensor.shape, 1.5, 3.0)
        elif last in ("layer_scalar", "scale", "per_expert_scale", "std_scale"):
            value = uniform(tensor.shape, 0.7, 1.2)
        elif last in ("std_bias", "per_dim_scale", "bias"):
            value = normal(tensor.shape, 0.3)
        elif name.endswith(("q_norm.weight", "k_norm.weight")):
            # The attention scale is 1, so these set its temperature: at 1 the softmax of random queries and keys is so
            # sharp that rounding decides which key wins, and two exact implementations part ways.
            value = 0.5 + normal(tensor.shape, 0.1)
        elif re.search(r"(norm|norm_1|norm_2|patch_ln1|patch_ln2)\.weight$", name) or "norm" in name.split(".")[-2]:
            value = 1 + normal(tensor.shape, 0.2)
        elif "embed_tokens_per_layer" in name:
            value = normal(tensor.shape, 0.25)
        elif "embed_tokens" in name:
            # Small beside what the layers add: the table is the head as well, and a model whose embeddings outweigh its
            # layers says its last token again, whatever the layers do.
            value = normal(tensor.shape, 0.02)
        elif last in ("position_embedding_table", "pos_embedding"):
            value = normal(tensor.shape, 0.3)
        elif tensor.ndim >= 2:
            fan_in = math.prod(tensor.shape[1:]) if tensor.ndim != 3 or "conv" in name else tensor.shape[-1]
            value = normal(tensor.shape, 1.2 / math.sqrt(fan_in))
        else:
            raise AssertionError(f"no recipe for {name}")
        with torch.no_grad():
            tensor.copy_(value)


def build_reference(variant: str, seed: int = 0, spelling: str = "published") -> PreTrainedModel:
    """The transformers model of a variant, fp32, with random weights in every part."""
    config, whole = _classes(variant)
    model = whole(config(**raw_config(variant, spelling))).eval()
    _randomise(model, seed)
    return model


def build_checkpoint(
    folder: Path, variant: str, seed: int = 0, spelling: str = "published", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Write a checkpoint folder and return the reference model it holds, converted to `dtype`."""
    model = build_reference(variant, seed, spelling)
    if dtype == torch.float32:
        model.save_pretrained(folder)
    else:
        model.to(dtype).save_pretrained(folder)
        # `to` rounded the rotary frequencies too, which are not weights: as loaded from the file they are exact.
        model = _classes(variant)[1].from_pretrained(folder, dtype=dtype).eval()
    config = {**raw_config(variant, spelling), "dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    write_tokenizer(folder)
    if variant == "unified":
        path = folder / "processor_config.json"
        settings = json.loads(path.read_text()) | {
            "feature_extractor": _FRAMES,
            "processor_class": "Gemma4UnifiedProcessor",
        }
        path.write_text(json.dumps(settings))
    return model


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, in standard deviations of the reference."""
    return float(np.abs(ours - theirs).max() / theirs.std())
