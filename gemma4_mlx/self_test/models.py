"""Models to compute with: random ones with the shapes of every published size, and the float32 twin of any model."""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..config import Config
from ..model import Gemma4

# Every way in which published checkpoints are packed: arguments of `mx.quantize`.
PACKINGS: dict[str, dict[str, Any]] = {
    "4 bits": {"group_size": 64, "bits": 4, "mode": "affine"},
    "4 bits, groups of 32": {"group_size": 32, "bits": 4, "mode": "affine"},
    "8 bits": {"group_size": 64, "bits": 8, "mode": "affine"},
    "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    "mxfp8": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
    "nvfp4": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
}

_SMALL_SIZE = {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 256, "sliding_window": 512}
_LARGE_SIZE = {"hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "sliding_window": 1024}
# Hidden size and heads are those of the published config.json files. What only makes a layer larger is cut: the MLP to
# 1,024, the experts to eight of 352, of which each token uses all, so that rounding cannot choose other ones.
SIZES: dict[str, dict[str, Any]] = {
    "e2b": {"hidden_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 1, "use_double_wide_mlp": True}
    | _SMALL_SIZE,
    "e4b": {"hidden_size": 2560, "num_attention_heads": 8, "num_key_value_heads": 2} | _SMALL_SIZE,
    "12b": {"hidden_size": 3840, "num_attention_heads": 16, "num_key_value_heads": 8, "num_global_key_value_heads": 1}
    | _LARGE_SIZE,
    "26b": {"hidden_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 8, "num_global_key_value_heads": 2}
    | {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 8, "moe_intermediate_size": 352}
    | _LARGE_SIZE,
    "31b": {"hidden_size": 5376, "num_attention_heads": 32, "num_key_value_heads": 16, "num_global_key_value_heads": 4}
    | _LARGE_SIZE,
}
# One layer of each kind; the sizes that share keys and values have another pair that does.
_PAIR = ["sliding_attention", "full_attention"]


def random_model(size: str, **changes: Any) -> Gemma4:
    """A float32 model with a size's hidden width and heads, its weights drawn from a fixed seed.

    Args:
        size: of `SIZES`.
        changes: to its config.
    """
    text = SIZES[size] | {"intermediate_size": 1024, "vocab_size": 512, "vocab_size_per_layer_input": 512} | changes
    text["layer_types"] = _PAIR * (2 if text.get("num_kv_shared_layers") else 1)
    text["num_hidden_layers"] = len(text["layer_types"])
    model = Gemma4(Config.from_dict({"model_type": "gemma4", "text_config": text}))
    return with_random_weights(model)


def with_random_weights(model: Gemma4) -> Gemma4:
    """`model` with matrices of unit gain, drawn from a fixed seed; norms and scales stay as they are built."""
    key = mx.random.key(4)
    weights = []
    for name, array in arrays_of(model):
        if array.ndim >= 2:
            key, one = mx.random.split(key)
            gain = 3**0.5 * array.shape[-1] ** -0.5 if "embed_tokens" not in name else 1.0
            weights.append((name, mx.random.uniform(-gain, gain, array.shape, key=one)))
    model.load_weights(weights, strict=False)
    mx.eval(model.parameters())
    return model


def arrays_of(model: Gemma4) -> list[tuple[str, mx.array]]:
    """Every weight with its name."""
    return cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))


def copied(model: Gemma4, dtype: mx.Dtype, packing: dict[str, Any] | None = None) -> Gemma4:
    """`model` in another type; with a packing every matrix that can be packed is."""
    copy = Gemma4(model.config)
    copy.load_weights([(name, array.astype(dtype)) for name, array in arrays_of(model)])
    if packing is not None:
        columns = packing["group_size"]
        nn.quantize(
            copy,
            class_predicate=lambda _, module: (
                dict(packing)
                if hasattr(module, "to_quantized") and module.weight.shape[-1] % max(columns, 32) == 0
                else False
            ),
        )
    mx.eval(copy.parameters())
    return copy


def float32_twin(model: Gemma4) -> Gemma4:
    """A model with the same weights, unpacked and in float32: what `model` means, whatever it is stored in."""
    packed = {path: module for path, module in model.named_modules() if "scales" in module}
    weights = []
    for name, array in arrays_of(model):
        path, _, leaf = name.rpartition(".")
        if path not in packed:
            weights.append((name, array.astype(mx.float32)))
        elif leaf == "weight":
            module = packed[path]
            unpacked = mx.dequantize(
                array, module.scales, module.get("biases"), module.group_size, module.bits, mode=module.mode
            )
            weights.append((name, unpacked.astype(mx.float32)))
        elif leaf == "bias":
            weights.append((name, array.astype(mx.float32)))
    twin = Gemma4(model.config)
    with mx.stream(mx.cpu):
        twin.load_weights(weights)
        mx.eval(twin.parameters())
    return twin
