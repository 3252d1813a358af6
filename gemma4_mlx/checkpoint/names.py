"""The names tensors have in the checkpoints people share → the names they have in `Gemma4`.

Ours are Hugging Face's without the leading `model.`. Three layouts are read:

- Hugging Face: `model.language_model.layers…`, fused `experts.gate_up_proj`, convolutions in torch's order;
- mlx-vlm and mlx-lm: `language_model.model.layers…`, `experts.switch_glu.gate_proj…`, convolutions in MLX's order;
- third-party quantizations that keep Hugging Face's prefix on MLX tensors.
"""

from __future__ import annotations

import re

from ..config import Config

_SHARED_KV = re.compile(r"language_model\.layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm|v_norm)\.")
_BOUND = re.compile(r"\.(input|output)_(min|max)$")


def canonical_name(stored: str) -> str:
    """A stored tensor or module name → ours.

    >>> canonical_name("model.language_model.layers.0.mlp.up_proj.weight")
    'language_model.layers.0.mlp.up_proj.weight'
    >>> canonical_name("language_model.model.layers.0.experts.switch_glu.up_proj.scales")
    'language_model.layers.0.experts.up_proj.scales'
    """
    name = stored.removeprefix("model.")
    # A text-only checkpoint has the decoder at the top.
    if name.startswith(("layers.", "embed_tokens", "norm.", "per_layer_")):
        name = f"language_model.{name}"
    name = name.replace("language_model.model.", "language_model.", 1)
    return name.replace(".experts.switch_glu.", ".experts.")


def is_unused(name: str, config: Config) -> bool:
    """Whether a tensor, by our name, is one that checkpoints may carry though the model never reads it.

    These are the keys and values of KV-shared layers, clip bounds where the config says nothing is clipped, precomputed
    rotary tables, and a copy of the tied head.
    """
    if match := _SHARED_KV.match(name):
        return int(match[1]) >= config.text.first_kv_shared_layer
    if "rotary_emb." in name or name in ("lm_head.weight", "language_model.lm_head.weight"):
        return True
    if _BOUND.search(name):
        tower = {"vision_tower": config.vision, "audio_tower": config.audio}.get(name.split(".")[0])
        return tower is not None and not tower.use_clipped_linears
    return False
