"""`config.json` → frozen dataclasses: everything that gives a Gemma 4 its shape, and nothing else.

Two spellings exist and both are read: the published one (`global_head_dim`, `num_global_key_value_heads`) and the one
transformers 5.2x and newer write (`per_layer_config`, the overrides of single layers keyed by their index as a string).
Unknown keys are dropped; what is left out is what transformers takes for it; a value no Gemma 4 can have is a
`ConfigError` that names its key. Sizes have upper bounds, so that a file from anywhere is refused before anything is
built from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .config_values import (
    LARGEST_OTHER,
    check_fixed,
    is_whole,
    known_values,
    mapping,
    positive_number,
    require,
    shown,
)
from .errors import ConfigError

SLIDING = "sliding_attention"
FULL = "full_attention"

LayerType = Literal["sliding_attention", "full_attention"]

#: What `model_type` in a config.json can say; the second is a decoder alone.
MODEL_TYPES = ("gemma4", "gemma4_text")

# Keys of which a checkpoint may hold only the value this code implements; anything else would run and be wrong.
_FIXED_TEXT = {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False}
_FIXED_VISION = {"hidden_activation": "gelu_pytorch_tanh"}
_FIXED_AUDIO = {"hidden_act": "silu", "attention_context_right": 0}


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
    use_bidirectional_attention: str | None = None
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
        where = "text_config"
        check_fixed(raw, _FIXED_TEXT, where)
        values = known_values(cls, raw, where)
        layers = values.get("num_hidden_layers", cls.num_hidden_layers)
        values["layer_types"] = _layer_types(raw.get("layer_types"), layers, where)
        values["sliding_rope"] = _rope(raw, SLIDING, cls.sliding_rope, where)
        values["full_rope"] = _rope(raw, FULL, cls.full_rope, where)
        if raw.get("per_layer_config") is not None:
            # In this spelling a full layer without an override is shaped like a sliding one.
            values["global_head_dim"] = values.get("head_dim", cls.head_dim)
            overrides = _full_layer_overrides(raw["per_layer_config"], values["layer_types"], where)
            values.update(known_values(cls, overrides, where))
        elif not raw.get("attention_k_eq_v"):
            # transformers' published-spelling reader: the override of kv heads belongs to the k = v models alone.
            values["num_global_key_value_heads"] = None
        config = cls(**values)
        config._check(where)
        return config

    def _check(self, where: str) -> None:
        self._check_positive(
            where,
            "hidden_size",
            "num_hidden_layers",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "global_head_dim",
            "vocab_size",
            "sliding_window",
            "max_position_embeddings",
        )
        require(self.rms_norm_eps > 0, where, "rms_norm_eps", self.rms_norm_eps, "a positive number")
        for key in ("head_dim", "global_head_dim"):
            require(getattr(self, key) % 2 == 0, where, key, getattr(self, key), "even (RoPE rotates pairs)")
        for key in ("num_key_value_heads", "num_global_key_value_heads"):
            heads = getattr(self, key)
            if heads is not None:
                fits = heads > 0 and self.num_attention_heads % heads == 0
                require(fits, where, key, heads, f"a divisor of num_attention_heads ({self.num_attention_heads})")
        cap = self.final_logit_softcapping
        require(cap is None or cap > 0, where, "final_logit_softcapping", cap, "null or a positive number")
        self._check_kv_sharing(where)
        if self.hidden_size_per_layer_input:
            self._check_positive(where, "hidden_size_per_layer_input", "vocab_size_per_layer_input")
        if self.enable_moe_block:
            self._check_positive(where, "num_experts", "top_k_experts", "moe_intermediate_size")
            assert self.num_experts
            assert self.top_k_experts
            few_enough = self.top_k_experts <= self.num_experts
            require(few_enough, where, "top_k_experts", self.top_k_experts, f"at most num_experts ({self.num_experts})")
        require(
            self.use_bidirectional_attention in (None, "vision"),
            where,
            "use_bidirectional_attention",
            self.use_bidirectional_attention,
            'null or "vision"',
        )

    def _check_positive(self, where: str, *keys: str) -> None:
        for key in keys:
            value = getattr(self, key)
            require(value is not None and value > 0, where, key, value, "a positive integer")

    def _check_kv_sharing(self, where: str) -> None:
        shared = self.num_kv_shared_layers
        in_range = 0 <= shared < self.num_hidden_layers
        require(in_range, where, "num_kv_shared_layers", shared, f"0 to {self.num_hidden_layers - 1}")
        own = set(self.layer_types[: self.first_kv_shared_layer])
        orphans = set(self.layer_types[self.first_kv_shared_layer :]) - own
        require(not orphans, where, "num_kv_shared_layers", shared, f"such that a layer of kind {orphans} is left")


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
        where = "vision_config"
        check_fixed(raw, _FIXED_VISION, where)
        values = known_values(cls, raw, where)
        rope = mapping(raw.get("rope_parameters"), where, "rope_parameters")
        values["rope_theta"] = positive_number(rope, "rope_theta", cls.rope_theta, f"{where}: rope_parameters")
        config = cls(**values)
        for field in dataclasses.fields(cls):
            if field.type == "int":
                value = getattr(config, field.name)
                require(value > 0, where, field.name, value, "a positive integer")
        require(config.rms_norm_eps > 0, where, "rms_norm_eps", config.rms_norm_eps, "a positive number")
        require(config.head_dim % 4 == 0, where, "head_dim", config.head_dim, "a multiple of 4 (RoPE over two axes)")
        return config


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
        where = "audio_config"
        check_fixed(raw, _FIXED_AUDIO, where)
        values = known_values(cls, raw, where)
        channels = raw.get("subsampling_conv_channels", cls.subsampling_conv_channels)
        two = isinstance(channels, list | tuple) and len(channels) == 2
        two = two and all(is_whole(c) and 0 < c <= LARGEST_OTHER for c in channels) and channels[0] >= 4
        require(two, where, "subsampling_conv_channels", channels, "two positive integers, the first at least 4")
        values["subsampling_conv_channels"] = tuple(map(int, channels))
        left = values.get("attention_context_left", cls.attention_context_left)
        require(left > 1, where, "attention_context_left", left, "an integer of at least 2")
        window = values.setdefault("attention_window", left - 1)
        require(0 < window <= left, where, "attention_window", window, f"1 to {left}")
        config = cls(**values)
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "output_proj_dims", "conv_kernel_size"):
            require(getattr(config, key) > 0, where, key, getattr(config, key), "a positive integer")
        for key in ("rms_norm_eps", "attention_logit_cap", "gradient_clipping"):
            require(getattr(config, key) > 0, where, key, getattr(config, key), "a positive number")
        divides = config.hidden_size % config.num_attention_heads == 0
        require(divides, where, "num_attention_heads", config.num_attention_heads, "a divisor of hidden_size")
        return config

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
    vision: VisionConfig | None = None
    audio: AudioConfig | None = None
    image_token_id: int = 258_880
    video_token_id: int = 258_884
    audio_token_id: int = 258_881
    boi_token_id: int = 255_999
    eoi_token_id: int = 258_882
    boa_token_id: int = 256_000
    eoa_token_id: int = 258_883
    dtype: str | None = None
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
        model_type = raw.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ConfigError(
                f"config.json: model_type is {shown(model_type)}, not 'gemma4': choose a Gemma 4 checkpoint"
            )
        if model_type == "gemma4_text":
            raw = {**raw, "text_config": raw}
        text = raw.get("text_config")
        if not isinstance(text, Mapping):
            raise ConfigError("config.json: text_config is missing: this is not a Gemma 4 checkpoint's config.json")
        ids = {key: value for key, value in raw.items() if key.endswith("_token_id") and value is not None}
        values = known_values(cls, ids, "config.json")
        # As in transformers, the head of the whole model is the top's business.
        values["text"] = TextConfig.from_dict({**text, "tie_word_embeddings": raw.get("tie_word_embeddings", True)})
        # An empty object is a tower of transformers' default shape.
        if (vision := raw.get("vision_config")) is not None:
            values["vision"] = VisionConfig.from_dict(mapping(vision, "config.json", "vision_config"))
        if (audio := raw.get("audio_config")) is not None:
            values["audio"] = AudioConfig.from_dict(mapping(audio, "config.json", "audio_config"))
        if raw.get("eoa_token_index") is not None:  # the published spelling of this one id
            values |= known_values(cls, {"eoa_token_id": raw["eoa_token_index"]}, "config.json")
        values["dtype"] = _stored_dtype(raw) or _stored_dtype(text)
        values["quantization"] = _quantization(raw)
        return cls(**values)


def _stored_dtype(raw: Mapping[str, Any]) -> str | None:
    """The precision that `dtype`, or `torch_dtype` of older files, names; None for one that nothing computes in."""
    names = {"float64": "float32", "float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}
    for key in ("dtype", "torch_dtype"):
        if isinstance(value := raw.get(key), str):
            return names.get(value.removeprefix("torch."))
    return None


def _quantization(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    # MLX's tools write `quantization`. `quantization_config` is everybody's; without a method it says how the model was
    # trained, and the makers' unquantized checkpoints of that training have it too.
    if isinstance(ours := raw.get("quantization"), Mapping) and ours:
        return ours
    config = raw.get("quantization_config")
    return config if isinstance(config, Mapping) and config.get("quant_method") else None


def _layer_types(raw: object, layers: int, where: str) -> tuple[LayerType, ...]:
    require(layers > 0, where, "num_hidden_layers", layers, "a positive integer")
    if raw is None:
        # transformers' default: every sixth layer sees everything.
        raw = [SLIDING if (i + 1) % 6 else FULL for i in range(layers)]
    valid = isinstance(raw, list | tuple) and all(kind in (SLIDING, FULL) for kind in raw)
    require(valid, where, "layer_types", raw, f'a list of "{SLIDING}" and "{FULL}"')
    assert isinstance(raw, list | tuple)
    require(len(raw) == layers, where, "layer_types", f"{len(raw)} long", f"num_hidden_layers ({layers}) long")
    # The last layer of a Gemma 4 is always full attention; the reference forces it.
    return (*raw[:-1], FULL)


def _rope(raw: Mapping[str, Any], kind: str, default: RopeConfig, where: str) -> RopeConfig:
    by_kind = mapping(raw.get("rope_parameters"), where, "rope_parameters")
    require(by_kind.keys() <= {SLIDING, FULL}, where, "rope_parameters", by_kind, "an object by kind of layer")
    if by_kind.get(kind) is None:
        return default
    where = f"{where}: rope_parameters.{kind}"
    given = mapping(by_kind[kind], where, "it")
    rope_type = given.get("rope_type") or "default"
    require(rope_type in ("default", "proportional"), where, "rope_type", rope_type, "default or proportional")
    factor = positive_number(given, "factor", 1.0, where)
    require(factor == 1.0, where, "factor", factor, "1")
    fraction = 1.0
    if rope_type == "proportional":
        fraction = positive_number(given, "partial_rotary_factor", 1.0, where)
    require(fraction <= 1, where, "partial_rotary_factor", fraction, "in (0, 1]")
    return RopeConfig(theta=positive_number(given, "rope_theta", default.theta, where), rotated_fraction=fraction)


def _full_layer_overrides(per_layer: Any, kinds: tuple[LayerType, ...], where: str) -> dict[str, Any]:
    """`per_layer_config` → the two numbers in which full layers differ; index keys may be zero-padded strings."""
    try:
        overrides = {int(index): dict(values) for index, values in per_layer.items()}
    except (TypeError, ValueError, AttributeError):
        raise ConfigError(
            f"{where}: per_layer_config must map layer indices to values, not {shown(per_layer)}"
        ) from None
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
