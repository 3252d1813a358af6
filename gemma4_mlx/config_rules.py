"""What `config.json` of a Gemma 4 may say: its spellings, its defaults, and which values must fit together.

Two spellings exist and both are read: the published one (`global_head_dim`, `num_global_key_value_heads`) and the one
transformers 5.2x and newer write (`per_layer_config`, the overrides of single layers keyed by their index as a string).
Unknown keys are dropped; what is left out is what transformers takes for it; a value no Gemma 4 can have is a
`ConfigError` that names its key.

The dataclasses are in `config`, which calls this file and hands them in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from .config_json import check_fixed, read_fields, read_object, read_positive, require, whole_number
from .errors import ConfigError
from .shown import shown

if TYPE_CHECKING:
    from .config import AudioConfig, Config, LayerType, RopeConfig, TextConfig, VisionConfig

SLIDING = "sliding_attention"
FULL = "full_attention"

# Keys of which a checkpoint may hold only the value this code implements; anything else would run and be wrong.
_FIXED_TEXT = {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False}
_FIXED_VISION = {"hidden_activation": "gelu_pytorch_tanh"}
_FIXED_AUDIO = {"hidden_act": "silu", "attention_context_right": 0}

# Whole numbers that may be 0: what they count can be absent.
_MAY_BE_ZERO = {"num_kv_shared_layers", "hidden_size_per_layer_input", "vocab_size_per_layer_input", "pad_token_id"}

# What `dtype` names → the precision that is computed in.
_PRECISIONS = {"float64": "float32", "float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}

Whole = TypeVar("Whole", bound="Config")
Text = TypeVar("Text", bound="TextConfig")


def read_whole(cls: type[Whole], parts_of: Mapping[str, Mapping[str, type]], raw: Mapping[str, Any]) -> Whole:
    """A parsed `config.json` → a `cls`.

    Args:
        parts_of: `model_type` → the parts that it has, by the name of their field, and the class each is read by.
    """
    where = "config.json"
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in parts_of:
        raise ConfigError(f"{where}: model_type is {shown(model_type)}, not 'gemma4': choose a Gemma 4 checkpoint")
    if model_type.endswith("_text"):
        raw = {**raw, "text_config": raw}
    text = raw.get("text_config")
    if not isinstance(text, Mapping):
        raise ConfigError(f"{where}: text_config is missing: this is not a Gemma 4 checkpoint's config.json")
    dtype = _precision(raw, where) or _precision(text, "text_config")
    values = read_fields(cls, {**raw, "dtype": dtype}, where)
    if (index := raw.get("eoa_token_index")) is not None:  # the published spelling of this one id
        values["eoa_token_id"] = whole_number(index, where, "eoa_token_index")
    values["quantization"] = _quantization(raw, where)
    for name, part in parts_of[model_type].items():
        # An empty object is a tower of transformers' default shape, null is none.
        if (given := raw.get(f"{name}_config")) is not None:
            of_part = dict(read_object(given, where, f"{name}_config"))
            if name == "text":  # as in transformers, the head of the whole model is the top's business
                read_fields(part, {"tie_word_embeddings": of_part.get("tie_word_embeddings")}, "text_config")
                of_part["tie_word_embeddings"] = raw.get("tie_word_embeddings")
            values[name] = part.from_dict(of_part)  # type: ignore[attr-defined]
    return cls(**values)


def read_text(cls: type[Text], rope: type[RopeConfig], raw: Mapping[str, Any]) -> Text:
    where = "text_config"
    check_fixed(raw, _FIXED_TEXT, where)
    values = read_fields(cls, {**raw, "layer_types": _layer_types(cls, raw, where)}, where)
    # The last layer of a Gemma 4 is always full attention; the reference forces it.
    values["layer_types"] = (*values["layer_types"][:-1], FULL)
    values["sliding_rope"] = _rope(rope, raw, SLIDING, cls.sliding_rope, where)
    values["full_rope"] = _rope(rope, raw, FULL, cls.full_rope, where)
    if raw.get("per_layer_config") is not None:
        # In this spelling a full layer without an override is shaped like a sliding one.
        values["global_head_dim"] = values.get("head_dim", cls.head_dim)
        overrides = _full_layer_overrides(raw["per_layer_config"], values["layer_types"], where)
        values.update(read_fields(cls, overrides, where))
    elif not raw.get("attention_k_eq_v"):
        # transformers' published-spelling reader: the override of kv heads belongs to the k = v models alone.
        values["num_global_key_value_heads"] = None
    config = cls(**values)
    _check_text(config, where)
    return config


def read_vision(cls: type[VisionConfig], raw: Mapping[str, Any]) -> VisionConfig:
    where = "vision_config"
    check_fixed(raw, _FIXED_VISION, where)
    rope = read_object(raw.get("rope_parameters"), where, "rope_parameters")
    theta = read_positive(rope, "rope_theta", cls.rope_theta, f"{where}: rope_parameters")
    config = cls(**read_fields(cls, {**raw, "rope_theta": theta}, where))
    check_sizes(config, where)
    require(config.head_dim % 4 == 0, where, "head_dim", config.head_dim, "a multiple of 4 (RoPE over two axes)")
    return config


def read_audio(cls: type[AudioConfig], raw: Mapping[str, Any]) -> AudioConfig:
    where = "audio_config"
    check_fixed(raw, _FIXED_AUDIO, where)
    values = read_fields(cls, raw, where)
    left = values.get("attention_context_left", cls.attention_context_left)
    require(left > 1, where, "attention_context_left", left, "an integer of at least 2")
    window = values.setdefault("attention_window", left - 1)
    require(0 < window <= left, where, "attention_window", window, f"1 to {left}")
    config = cls(**values)
    check_sizes(config, where)
    for key in ("attention_logit_cap", "gradient_clipping"):
        require(getattr(config, key) > 0, where, key, getattr(config, key), "a positive number")
    channels = config.subsampling_conv_channels
    two = channels[0] >= 4 and channels[1] > 0
    require(two, where, "subsampling_conv_channels", channels, "two positive integers, the first at least 4")
    divides = config.hidden_size % config.num_attention_heads == 0
    require(divides, where, "num_attention_heads", config.num_attention_heads, "a divisor of hidden_size")
    return config


def check_sizes(config: Any, where: str) -> None:
    """Make sure that every size of a part is at least 1, but for those that may be 0, and `rms_norm_eps` above 0."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if type(value) is int and field.name not in _MAY_BE_ZERO:
            require(value > 0, where, field.name, value, "a positive integer")
    require(config.rms_norm_eps > 0, where, "rms_norm_eps", config.rms_norm_eps, "a positive number")


def _check_text(config: TextConfig, where: str) -> None:
    check_sizes(config, where)
    for key in ("head_dim", "global_head_dim"):
        require(getattr(config, key) % 2 == 0, where, key, getattr(config, key), "even (RoPE rotates pairs)")
    for key in ("num_key_value_heads", "num_global_key_value_heads"):
        heads = getattr(config, key)
        fits = heads is None or config.num_attention_heads % heads == 0
        require(fits, where, key, heads, f"a divisor of num_attention_heads ({config.num_attention_heads})")
    cap = config.final_logit_softcapping
    require(cap is None or cap > 0, where, "final_logit_softcapping", cap, "null or a positive number")
    shared = config.num_kv_shared_layers
    require(shared < config.num_hidden_layers, where, "num_kv_shared_layers", shared, "less than num_hidden_layers")
    first = config.first_kv_shared_layer
    orphans = set(config.layer_types[first:]) - set(config.layer_types[:first])
    require(not orphans, where, "num_kv_shared_layers", shared, f"such that a layer of kind {orphans} is left")
    if config.hidden_size_per_layer_input:
        rows = config.vocab_size_per_layer_input
        require(rows > 0, where, "vocab_size_per_layer_input", rows, "a positive integer")
    if config.enable_moe_block:
        for key in ("num_experts", "top_k_experts", "moe_intermediate_size"):
            require(getattr(config, key) is not None, where, key, None, "a positive integer")
        experts, chosen = config.num_experts or 0, config.top_k_experts or 0
        require(chosen <= experts, where, "top_k_experts", chosen, f"at most num_experts ({experts})")


def _precision(raw: Mapping[str, Any], where: str) -> str | None:
    """The precision that `dtype`, or `torch_dtype` of older files, names; None for one that nothing computes in."""
    for key in ("dtype", "torch_dtype"):
        if (value := raw.get(key)) is not None:
            require(isinstance(value, str), where, key, value, "null or a text")
            return _PRECISIONS.get(value.removeprefix("torch."))
    return None


def _quantization(raw: Mapping[str, Any], where: str) -> Mapping[str, Any] | None:
    # MLX's tools write `quantization`. `quantization_config` is everybody's; without a method it says how the model was
    # trained, and the makers' unquantized checkpoints of that training have it too.
    ours, everybodys = (read_object(raw.get(key), where, key) for key in ("quantization", "quantization_config"))
    return ours or (everybodys if everybodys.get("quant_method") else None)


def _layer_types(cls: type[TextConfig], raw: Mapping[str, Any], where: str) -> tuple[LayerType, ...] | list[LayerType]:
    key = "num_hidden_layers"
    layers = read_fields(cls, {key: raw[key]} if key in raw else {}, where).get(key, cls.num_hidden_layers)
    require(layers > 0, where, key, layers, "a positive integer")
    given = raw.get("layer_types")
    if given is None:
        # transformers' default: every sixth layer sees everything.
        return [SLIDING if (i + 1) % 6 else FULL for i in range(layers)]  # type: ignore[misc]
    kinds: tuple[LayerType, ...] = read_fields(cls, {"layer_types": given}, where)["layer_types"]
    require(len(kinds) == layers, where, "layer_types", f"{len(kinds)} long", f"{key} ({layers}) long")
    return kinds


def _rope(cls: type[RopeConfig], raw: Mapping[str, Any], kind: str, default: RopeConfig, where: str) -> RopeConfig:
    by_kind = read_object(raw.get("rope_parameters"), where, "rope_parameters")
    require(by_kind.keys() <= {SLIDING, FULL}, where, "rope_parameters", by_kind, "an object by kind of layer")
    if by_kind.get(kind) is None:
        return default
    given = read_object(by_kind[kind], where, f"rope_parameters.{kind}")
    where = f"{where}: rope_parameters.{kind}"
    rope_type = given.get("rope_type")
    require(
        rope_type in (None, "default", "proportional"), where, "rope_type", rope_type, "'default' or 'proportional'"
    )
    factor = read_positive(given, "factor", 1.0, where)
    require(factor == 1.0, where, "factor", factor, "1")
    fraction = 1.0
    if rope_type == "proportional":
        fraction = read_positive(given, "partial_rotary_factor", 1.0, where)
    require(fraction <= 1, where, "partial_rotary_factor", fraction, "in (0, 1]")
    return cls(theta=read_positive(given, "rope_theta", default.theta, where), rotated_fraction=fraction)


def _full_layer_overrides(per_layer: Any, kinds: tuple[LayerType, ...], where: str) -> dict[str, Any]:
    """`per_layer_config` → the two numbers in which full layers differ; index keys may be zero-padded strings."""
    try:
        overrides = {int(index): values for index, values in per_layer.items()}
        fits = all(isinstance(values, Mapping) for values in overrides.values())
    except (TypeError, ValueError, AttributeError):
        fits = False
    require(fits, where, "per_layer_config", per_layer, "an object of objects by the index of a layer")
    full_layers = [i for i, kind in enumerate(kinds) if kind == FULL]
    found: dict[str, Any] = {}
    for ours, theirs in (("global_head_dim", "head_dim"), ("num_global_key_value_heads", "num_key_value_heads")):
        values = [overrides.get(i, {}).get(theirs) for i in full_layers]
        same = all(value == values[0] for value in values)
        require(same, where, f"per_layer_config {theirs}", values, "the same on all full layers")
        if values[0] is not None:
            found[ours] = values[0]
    strangers = sorted({f"layer {i}" for i in overrides if i not in full_layers and overrides[i]})
    require(not strangers, where, "per_layer_config", strangers, "about full-attention layers only")
    return found
