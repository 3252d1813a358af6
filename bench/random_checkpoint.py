"""A checkpoint with random weights and the depth of a real size, for measuring speed.

Speed does not depend on what the weights are, only on how many there are and in how many steps they are used. Written
in Hugging Face's layout, so that this package and its peers read the same file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from gemma4_mlx.config import Config
from gemma4_mlx.model import Gemma4

E2B_LAYERS = (["sliding_attention"] * 4 + ["full_attention"]) * 7


def e2b_like(hidden_size: int, intermediate_size: int, vocab_size: int, head_dim: int = 64) -> dict[str, Any]:
    """`config.json` of a model with E2B's 35 layers, 20 of them KV-shared, at another width."""
    text = {
        "model_type": "gemma4_text",
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": len(E2B_LAYERS),
        "layer_types": E2B_LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": head_dim,
        "global_head_dim": 2 * head_dim,
        "vocab_size": vocab_size,
        "vocab_size_per_layer_input": vocab_size,
        "hidden_size_per_layer_input": 64,
        "num_kv_shared_layers": 20,
        "use_double_wide_mlp": True,
        "sliding_window": 512,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 131_072,
        "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0, "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
        },
    }
    return {
        "model_type": "gemma4",
        "vocab_size": vocab_size,
        "text_config": text,
        "vision_config": _SMALLEST_VISION,  # mlx-vlm does not load a checkpoint without one
        "audio_config": None,
    }


_SMALLEST_VISION = {
    "model_type": "gemma4_vision",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "position_embedding_size": 64,
    "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
    "use_clipped_linears": False,
    "standardize": False,
}


def write_random_checkpoint(folder: Path, raw_config: dict[str, Any], dtype: mx.Dtype = mx.float32) -> None:
    """Write `config.json` and `model.safetensors` with random weights of a sensible scale."""
    folder.mkdir(parents=True, exist_ok=True)
    mx.random.seed(0)
    weights = {}
    for name, shape in _shapes(Gemma4(Config.from_dict(raw_config))).items():
        if len(shape) == 1:
            weights[f"model.{name}"] = mx.ones(shape, dtype)
        else:
            weights[f"model.{name}"] = (mx.random.normal(shape) * shape[-1] ** -0.5).astype(dtype)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(raw_config))


def _shapes(model: Gemma4) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in tree_flatten(model.parameters())}


def packed_e2b_like(hidden_size: int, intermediate_size: int) -> dict[str, Any]:
    """`config.json` with E2B's layers, vocabulary and per-layer tables, its width small."""
    raw = e2b_like(hidden_size, intermediate_size, vocab_size=262_144)
    raw["text_config"]["hidden_size_per_layer_input"] = 256
    return raw


def write_packed_checkpoint(
    folder: Path, raw_config: dict[str, Any], dtype: mx.Dtype = mx.float32, bits: int = 4, group_size: int = 64
) -> None:
    """Write a checkpoint as mlx-vlm's `convert -q` would: all of the decoder packed, mlx-vlm's names.

    What is not packed is float32, because MLX's CPU backend emulates bf16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mx.random.seed(0)
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in _shapes(Gemma4(Config.from_dict(raw_config))).items():
        name = name.replace("language_model.", "language_model.model.")
        if len(shape) != 2 or "language_model" not in name or shape[-1] % group_size:
            ones = len(shape) == 1
            weights[name] = (mx.ones(shape) if ones else mx.random.normal(shape) * 0.05).astype(dtype)
            continue
        base = name.removesuffix("weight")
        # Uniform words are uniform integers of `bits` bits; scale and bias centre them, with a spread of 1 / sqrt(n).
        scale = 12**0.5 / 2**bits * shape[-1] ** -0.5
        groups = (shape[0], shape[1] // group_size)
        words = mx.array(rng.integers(0, 2**32, (shape[0], shape[1] * bits // 32), dtype=np.uint32))
        weights[f"{base}weight"] = words
        weights[f"{base}scales"] = mx.full(groups, scale, dtype)
        weights[f"{base}biases"] = mx.full(groups, -scale * (2**bits - 1) / 2, dtype)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    quantization = {"group_size": group_size, "bits": bits, "mode": "affine"}
    (folder / "config.json").write_text(json.dumps({**raw_config, "quantization": quantization}))
