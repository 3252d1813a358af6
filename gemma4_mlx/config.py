"""`config.json` → frozen dataclasses: everything that gives a Gemma 4 its shape, and nothing else.

Two spellings exist and both are read: the published one (`global_head_dim`, `num_global_key_value_heads`) and the one
transformers 5.2x and newer write (`per_layer_config`, the overrides of single layers keyed by their index as a string).
Unknown keys are dropped; a value no Gemma 4 can have is a `ConfigError` that names its key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from .errors import ConfigError

SLIDING = "sliding_attention"
FULL = "full_attention"

LayerType = Literal["sliding_attention", "full_attention"]

#: What `model_type` in a config.json can say; the second is a decoder alone.
MODEL_TYPES = ("gemma4", "gemma4_text")

# Keys of which a checkpoint may hold only the value this code implements; anything else would run and be wrong.
_FIXED_TEXT = {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "tie_word_embeddings": True}
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

    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    layer_types: tuple[LayerType, ...]
    head_dim: int = 256
    global_head_dim: int = 512
    num_global_key_value_heads: int | None = None
    vocab_size: int = 262_144
    vocab_size_per_layer_input: int = 262_144
    hidden_size_per_layer_input: int = 0
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
    final_logit_softcapping: float | None = 30.0
    rms_norm_eps: float = 1e-6
    pad_token_id: int = 0
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

    def kv_source(self, layer: int) -> int:
        """The layer whose keys and values this layer attends to: itself, or for a KV-shared layer the last
        non-shared layer of its own kind."""
        if layer < self.first_kv_shared_layer:
            return layer
        kind = self.layer_types[layer]
        return max(i for i in range(self.first_kv_shared_layer) if self.layer_types[i] == kind)

    @property
    def bidirectional_images(self) -> bool:
        """Whether the tokens of one image see each other in both directions (sliding layers only)."""
        return self.use_bidirectional_attention == "vision"

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TextConfig:
        where = "text_config"
        _check_fixed(raw, _FIXED_TEXT, where)
        values = _known(cls, raw)
        layers = _positive(raw, "num_hidden_layers", where)
        values["layer_types"] = _layer_types(raw.get("layer_types"), layers, where)
        values["sliding_rope"] = _rope(raw, SLIDING, cls.sliding_rope, where)
        values["full_rope"] = _rope(raw, FULL, cls.full_rope, where)
        if raw.get("pad_token_id") is None:
            values.pop("pad_token_id", None)
        if raw.get("per_layer_config") is not None:
            # In this spelling a full layer without an override is shaped like a sliding one.
            values["global_head_dim"] = raw.get("head_dim", cls.head_dim)
            values.update(_full_layer_overrides(raw["per_layer_config"], values["layer_types"], where))
        elif not raw.get("attention_k_eq_v"):
            # transformers' published-spelling reader: the override of kv heads belongs to the k = v models alone.
            values["num_global_key_value_heads"] = None
        config = _build(cls, values, where)
        config._check(where)
        return config

    def _check(self, where: str) -> None:
        for key in (
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "global_head_dim",
            "vocab_size",
            "sliding_window",
            "max_position_embeddings",
        ):
            _require(_is_count(getattr(self, key)), where, key, getattr(self, key), "a positive integer")
        _require(self.rms_norm_eps > 0, where, "rms_norm_eps", self.rms_norm_eps, "a positive number")
        for key in ("head_dim", "global_head_dim"):
            _require(getattr(self, key) % 2 == 0, where, key, getattr(self, key), "even (RoPE rotates pairs)")
        for key in ("num_key_value_heads", "num_global_key_value_heads"):
            heads = getattr(self, key)
            if heads is not None:
                fits = _is_count(heads) and self.num_attention_heads % heads == 0
                _require(fits, where, key, heads, f"a divisor of num_attention_heads ({self.num_attention_heads})")
        cap = self.final_logit_softcapping
        _require(cap is None or cap > 0, where, "final_logit_softcapping", cap, "null or a positive number")
        self._check_kv_sharing(where)
        if self.hidden_size_per_layer_input:
            for key in ("hidden_size_per_layer_input", "vocab_size_per_layer_input"):
                _require(_is_count(getattr(self, key)), where, key, getattr(self, key), "a positive integer")
        if self.enable_moe_block:
            for key in ("num_experts", "top_k_experts", "moe_intermediate_size"):
                _require(_is_count(getattr(self, key)), where, key, getattr(self, key), "a positive integer")
            assert self.num_experts
            assert self.top_k_experts
            few_enough = self.top_k_experts <= self.num_experts
            _require(
                few_enough, where, "top_k_experts", self.top_k_experts, f"at most num_experts ({self.num_experts})"
            )
        _require(
            self.use_bidirectional_attention in (None, "vision"),
            where,
            "use_bidirectional_attention",
            self.use_bidirectional_attention,
            'null or "vision"',
        )

    def _check_kv_sharing(self, where: str) -> None:
        shared = self.num_kv_shared_layers
        in_range = isinstance(shared, int) and 0 <= shared < self.num_hidden_layers
        _require(in_range, where, "num_kv_shared_layers", shared, f"0 to {self.num_hidden_layers - 1}")
        own = set(self.layer_types[: self.first_kv_shared_layer])
        orphans = set(self.layer_types[self.first_kv_shared_layer :]) - own
        _require(not orphans, where, "num_kv_shared_layers", shared, f"such that a layer of kind {orphans} is left")


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower. `position_embedding_size` counts table rows per axis; `patch_size` is in pixels."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
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
        _check_fixed(raw, _FIXED_VISION, where)
        values = _known(cls, raw)
        rope = raw.get("rope_parameters") or {}
        values["rope_theta"] = rope.get("rope_theta", cls.rope_theta)
        config = _build(cls, values, where)
        for field in dataclasses.fields(cls):
            if field.type == "int":
                value = getattr(config, field.name)
                _require(_is_count(value), where, field.name, value, "a positive integer")
        _require(config.head_dim % 4 == 0, where, "head_dim", config.head_dim, "a multiple of 4 (RoPE over two axes)")
        return config


@dataclass(frozen=True)
class AudioConfig:
    """The audio conformer.

    Attributes:
        attention_window: keys a token sees: itself and `attention_window - 1` before it. transformers and the published
            word error rates use 12 where `attention_context_left` says 13 (its mask is exclusive); the makers' JAX code
            uses 13. `load(..., audio_window=13)` compares the two.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    output_proj_dims: int
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
        _check_fixed(raw, _FIXED_AUDIO, where)
        values = _known(cls, raw)
        channels = raw.get("subsampling_conv_channels", cls.subsampling_conv_channels)
        two = isinstance(channels, list | tuple) and len(channels) == 2 and all(_is_count(c) for c in channels)
        _require(two, where, "subsampling_conv_channels", channels, "two positive integers")
        values["subsampling_conv_channels"] = tuple(channels)
        left = raw.get("attention_context_left", cls.attention_context_left)
        _require(_is_count(left) and left > 1, where, "attention_context_left", left, "an integer of at least 2")
        values.setdefault("attention_window", left - 1)
        config = _build(cls, values, where)
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "output_proj_dims", "conv_kernel_size"):
            _require(_is_count(getattr(config, key)), where, key, getattr(config, key), "a positive integer")
        divides = config.hidden_size % config.num_attention_heads == 0
        _require(divides, where, "num_attention_heads", config.num_attention_heads, "a divisor of hidden_size")
        config.check_window()
        return config

    def check_window(self) -> None:
        """Raise `ValueError` for a window the relative positions of the checkpoint do not reach."""
        # The sinusoids reach back attention_context_left - 1 tokens; beyond that the reference has no position.
        if not _is_count(self.attention_window) or self.attention_window > self.attention_context_left:
            longest = self.attention_context_left
            raise ValueError(f"audio_window must be 1 to {longest} for this checkpoint, not {self.attention_window!r}")


@dataclass(frozen=True)
class Config:
    """A whole Gemma 4: the decoder, the towers it has, the placeholder ids, and how its weights are quantized."""

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
            raise ConfigError(f"config.json: model_type is {model_type!r}, not 'gemma4': choose a Gemma 4 checkpoint")
        if model_type == "gemma4_text":
            raw = {**raw, "text_config": raw}
        if not isinstance(raw.get("text_config"), Mapping):
            raise ConfigError("config.json: text_config is missing: this is not a Gemma 4 checkpoint's config.json")
        values = {k: v for k, v in _known(cls, raw).items() if v is not None}
        values["text"] = TextConfig.from_dict(raw["text_config"])
        values["vision"] = VisionConfig.from_dict(raw["vision_config"]) if raw.get("vision_config") else None
        values["audio"] = AudioConfig.from_dict(raw["audio_config"]) if raw.get("audio_config") else None
        if raw.get("eoa_token_index") is not None:  # the published spelling of this one id
            values["eoa_token_id"] = raw["eoa_token_index"]
        values["quantization"] = raw.get("quantization") or raw.get("quantization_config")
        return _build(cls, values, "config.json")


_T = TypeVar("_T")


def _known(cls: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in raw.items() if key in names}


def _build(cls: type[_T], values: dict[str, Any], where: str) -> _T:
    required = [
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and values.get(field.name) is None
    ]
    if required:
        raise ConfigError(f"{where}: {', '.join(required)} missing: a Gemma 4 config.json gives a value")
    return cls(**values)


def _require(condition: bool, where: str, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{where}: {key} is {value!r}, must be {expected}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _positive(raw: Mapping[str, Any], key: str, where: str) -> int:
    value = raw.get(key)
    _require(_is_count(value), where, key, value, "a positive integer")
    assert isinstance(value, int)
    return value


def _check_fixed(raw: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> None:
    for key, value in fixed.items():
        _require(raw.get(key, value) == value, where, key, raw.get(key), repr(value))


def _layer_types(raw: object, layers: int, where: str) -> tuple[LayerType, ...]:
    if raw is None:
        # transformers' default: every sixth layer sees everything.
        raw = [SLIDING if (i + 1) % 6 else FULL for i in range(layers)]
    valid = isinstance(raw, list | tuple) and all(kind in (SLIDING, FULL) for kind in raw)
    _require(valid, where, "layer_types", raw, f'a list of "{SLIDING}" and "{FULL}"')
    assert isinstance(raw, list | tuple)
    _require(len(raw) == layers, where, "layer_types", f"{len(raw)} long", f"num_hidden_layers ({layers}) long")
    # The last layer of a Gemma 4 is always full attention; the reference forces it.
    return (*raw[:-1], FULL)


def _rope(raw: Mapping[str, Any], kind: str, default: RopeConfig, where: str) -> RopeConfig:
    given = (raw.get("rope_parameters") or {}).get(kind)
    if given is None:
        return default
    rope_type = given.get("rope_type", "default")
    _require(rope_type in ("default", "proportional"), where, f"rope_parameters.{kind}.rope_type", rope_type, "known")
    factor = given.get("factor", 1.0)
    _require(factor == 1.0, where, f"rope_parameters.{kind}.factor", factor, "1")
    fraction = given.get("partial_rotary_factor", 1.0) if rope_type == "proportional" else 1.0
    _require(0 < fraction <= 1, where, f"rope_parameters.{kind}.partial_rotary_factor", fraction, "in (0, 1]")
    theta = given.get("rope_theta", default.theta)
    _require(theta > 0, where, f"rope_parameters.{kind}.rope_theta", theta, "positive")
    return RopeConfig(theta=theta, rotated_fraction=fraction)


def _full_layer_overrides(per_layer: Mapping[str, Any], kinds: tuple[LayerType, ...], where: str) -> dict[str, Any]:
    """`per_layer_config` → the two numbers in which full layers differ; index keys may be zero-padded strings."""
    try:
        overrides = {int(index): dict(values) for index, values in per_layer.items()}
    except (TypeError, ValueError, AttributeError):
        raise ConfigError(f"{where}: per_layer_config must map layer indices to values, not {per_layer!r}") from None
    full_layers = [i for i, kind in enumerate(kinds) if kind == FULL]
    found: dict[str, Any] = {}
    for ours, theirs in (("global_head_dim", "head_dim"), ("num_global_key_value_heads", "num_key_value_heads")):
        values = {overrides.get(i, {}).get(theirs) for i in full_layers}
        _require(
            len(values) == 1,
            where,
            f"per_layer_config {theirs}",
            sorted(map(str, values)),
            "the same on all full layers",
        )
        (value,) = values
        if value is not None:
            found[ours] = value
    strangers = sorted({f"layer {i}" for i in overrides if i not in full_layers and overrides[i]})
    _require(not strangers, where, "per_layer_config", strangers, "about full-attention layers only")
    return found
