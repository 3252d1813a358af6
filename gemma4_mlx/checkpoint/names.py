"""The names tensors have in the checkpoints people share → the names they have in `Gemma4`.

Ours are Hugging Face's without the leading `model.`. Three layouts are read:

- Hugging Face: `model.language_model.layers…`, fused `experts.gate_up_proj`, convolutions in torch's order;
- mlx-vlm and mlx-lm: `language_model.model.layers…`, `experts.switch_glu.gate_proj…`, convolutions in MLX's order;
- third-party quantizations that keep Hugging Face's prefix on MLX tensors.

The 12B's eyes have two names in these, `vision_embedder.*` and, of newer versions of transformers, `embed_vision.*`.
"""

from __future__ import annotations

import re

from ..config import AudioConfig, Config, VisionConfig

#: Tops of the names of what sees, and of what hears.
VISION_PARTS = ("vision_tower", "vision_embedder", "embed_vision")
AUDIO_PARTS = ("audio_tower", "embed_audio")

_SHARED_KV = re.compile(r"language_model\.layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm|v_norm)\.")
# What newer versions of transformers call the 12B's eyes.
_EMBED_VISION = re.compile(r"^embed_vision\.(?=(patch_ln1|patch_dense|patch_ln2|pos_embedding|pos_norm)\b)")
_MEASURED = re.compile(r"\.([qkv]_scale|(input|output)_scale)$")
# What compressed-tensors and the makers' mobile checkpoints add to packed weights and need not be known.
_BESIDE_PACKED = re.compile(r"\.(weight_shape|(input|output)_activation_scale|[kv]_cache_scale)$")
# What these call a packed weight and its scale → what a linear layer of the second has.
_PACKED = {".weight_packed": ".weight", ".embedding_quantized": ".weight", ".embedding_scale": ".weight_scale"}
# What Ollama calls MLX's scales and biases.
_PACKED |= {".weight.scale": ".scales", ".weight.bias": ".biases"}
_BOUND = re.compile(r"\.(input|output)_(min|max)$")


def canonical_name(stored: str) -> str:
    """A stored tensor or module name → ours.

    >>> canonical_name("model.language_model.layers.0.mlp.up_proj.weight")
    'language_model.layers.0.mlp.up_proj.weight'
    >>> canonical_name("language_model.model.layers.0.experts.switch_glu.up_proj.scales")
    'language_model.layers.0.experts.up_proj.scales'
    """
    # Adapters that were merged into their model leave the first prefix.
    name = stored.removeprefix("base_model.model.").removeprefix("model.")
    # A text-only checkpoint has the decoder at the top; the head stands at the top of every one.
    if name.startswith(("layers.", "embed_tokens", "norm.", "per_layer_", "lm_head.")):
        name = f"language_model.{name}"
    name = name.replace("language_model.model.", "language_model.", 1)
    name = _EMBED_VISION.sub("vision_embedder.", name).replace("embed_vision.multimodal_embedder.", "embed_vision.")
    for theirs, ours in _PACKED.items():
        if name.endswith(theirs):
            name = name.removesuffix(theirs) + ours
    return name.replace(".experts.switch_glu.", ".experts.")


def is_unused(name: str, config: Config) -> bool:
    """Whether a tensor, by our name, is one that checkpoints may carry though the model never reads it.

    These are the keys and values of KV-shared layers, clip bounds where the config says nothing is clipped, precomputed
    rotary tables, the ranges of activations and caches that a quantizer measured, and a tower the config has not.
    """
    match = _SHARED_KV.match(name)
    if match and int(match[1]) >= config.text.first_kv_shared_layer:
        return True
    if "rotary_emb." in name or _MEASURED.search(name) or _BESIDE_PACKED.search(name):
        return True
    part = name.split(".")[0]
    if (config.vision is None and part in VISION_PARTS) or (config.audio is None and part in AUDIO_PARTS):
        return True
    if _BOUND.search(name):
        tower = {"vision_tower": config.vision, "audio_tower": config.audio}.get(name.split(".")[0])
        return isinstance(tower, VisionConfig | AudioConfig) and not tower.use_clipped_linears
    return False
