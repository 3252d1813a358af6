"""Values out of a `config.json`: each of its kind and within bounds, or a `ConfigError` that names its key."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ConfigError
from .shown import shown

# The largest value of a whole number; four times what the largest Gemma has, and more. Building a model takes time and
# memory by its layers and by what is worked out in advance from a head's or a window's size.
_LARGEST = {
    "num_hidden_layers": 1_000,
    "num_attention_heads": 1 << 12,
    "head_dim": 1 << 14,
    "global_head_dim": 1 << 14,
    "hidden_size_per_layer_input": 1 << 16,
    "vocab_size": 1 << 24,
    "vocab_size_per_layer_input": 1 << 24,
    "sliding_window": 1 << 30,
    "max_position_embeddings": 1 << 30,
    "num_experts": 1 << 14,
    "patch_size": 1 << 10,
    "pooling_kernel_size": 1 << 8,
    "conv_kernel_size": 1 << 8,
    "attention_context_left": 1 << 10,
}
LARGEST_OTHER = 1 << 20


def known_values(cls: type, raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of `raw` that are fields of `cls` and are plain numbers, switches or texts, each of its kind."""
    values = {}
    for field in dataclasses.fields(cls):
        if field.name not in raw or (kind := _KINDS.get(str(field.type))) is None:
            continue
        value, (optional, fits, expected) = raw[field.name], kind
        if value is None and field.name in _NULL_IS_DEFAULT:
            continue
        if not (value is None and optional):
            require(fits(value), where, field.name, value, expected)
            if expected == _WHOLE:
                largest = _LARGEST.get(field.name, LARGEST_OTHER)
                if field.name.endswith("_token_id"):
                    largest = _LARGEST["vocab_size"]
                require(0 <= value <= largest, where, field.name, value, f"a positive integer of at most {largest}")
                value = int(value)
        values[field.name] = value
    return values


def is_whole(value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e38 and math.isfinite(value)


_WHOLE = "a positive integer"
# Kinds of fields by annotation: whether null will do, the test of a value, and what it is called.
_KINDS: dict[str, tuple[bool, Callable[[Any], bool], str]] = {
    "int": (False, is_whole, _WHOLE),
    "int | None": (True, is_whole, _WHOLE),
    "float": (False, is_number, "a number"),
    "float | None": (True, is_number, "null or a number"),
    "bool": (False, lambda value: isinstance(value, bool), "true or false"),
    "str | None": (True, lambda value: isinstance(value, str), "null or a text"),
}
# Switches that are off and ids that are nobody's are written as null too.
_NULL_IS_DEFAULT = frozenset(
    {"pad_token_id", "use_double_wide_mlp", "attention_k_eq_v", "enable_moe_block", "standardize"}
    | {"use_clipped_linears", "tie_word_embeddings"}
)


def mapping(value: object, where: str, key: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    require(isinstance(value, Mapping), where, key, value, "an object")
    assert isinstance(value, Mapping)
    return value


def positive_number(raw: Mapping[str, Any], key: str, default: float, where: str) -> float:
    value = raw.get(key)
    if value is None:
        return default
    require(is_number(value) and value > 0, where, key, value, "a positive number")
    assert isinstance(value, int | float)
    return value


def require(condition: bool, where: str, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{where}: {key} is {shown(value)}, must be {expected}")


def check_fixed(raw: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> None:
    for key, value in fixed.items():
        given = raw.get(key, value)
        # Some write null for what they leave at its default.
        require(given is None or given == value, where, key, given, repr(value))
