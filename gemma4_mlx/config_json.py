"""A JSON object → the values of a dataclass's fields, each of the kind its annotation says, or a `ConfigError`.

This file knows dataclasses and JSON. What a Gemma 4 may hold besides is in `config_rules`. Sizes have upper bounds, so
that a file from anywhere is refused before anything is built from it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError

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
_LARGEST_ID = 1 << 24
_LARGEST_OTHER = 1 << 20


def read_fields(cls: type, raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of `raw` that are fields of the dataclass `cls`. Other keys are dropped.

    Null stands for the default where the field can be switched off or is an id: some programs write it so.

    Args:
        cls: its annotations say what each key may hold. A field that is a dataclass itself, or an object of any keys,
            is left to the caller.
        raw: a parsed JSON object.
        where: what an error calls the object.

    Raises:
        ConfigError: a value is of another kind or out of bounds; the key is named.
    """
    values = {}
    for name, kind in _kinds(cls).items():
        if name in raw and not (raw[name] is None and (kind is bool or _is_id(name))):
            values[name] = _read(kind, raw[name], where, name)
    return values


@cache
def _kinds(cls: type) -> dict[str, Any]:
    """The annotations of the fields that JSON values stand in."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if _is_plain(hints[field.name])}


def _is_plain(kind: Any) -> bool:
    if get_origin(kind) in (Union, UnionType, tuple):
        return all(part in (NoneType, ...) or _is_plain(part) for part in get_args(kind))
    return kind in (bool, int, float, str) or get_origin(kind) is Literal


def _read(kind: Any, value: object, where: str, key: str) -> Any:
    """`value` as `kind` has it: 24.0 is a whole number, a list becomes a tuple."""
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
        return _read(kind, value, where, key)
    if kind is int:
        return whole_number(value, where, key)
    if kind is float:
        require(is_number(value), where, key, value, "a number")
    elif kind is bool:
        require(isinstance(value, bool), where, key, value, "true or false")
    elif kind is str:
        require(isinstance(value, str), where, key, value, "a text")
    elif get_origin(kind) is Literal:
        allowed = get_args(kind)
        require(isinstance(value, str) and value in allowed, where, key, value, " or ".join(map(repr, allowed)))
    else:
        parts = get_args(kind)
        require(isinstance(value, list | tuple), where, key, value, "a list")
        assert isinstance(value, list | tuple)
        if parts[-1] is ...:
            parts = parts[:1] * len(value)
        require(len(value) == len(parts), where, key, value, f"{len(parts)} values")
        return tuple(_read(part, item, where, key) for part, item in zip(parts, value, strict=True))
    return value


def whole_number(value: object, where: str, key: str) -> int:
    is_whole = value.is_integer() if isinstance(value, float) else type(value) is int
    largest = _LARGEST_ID if _is_id(key) else _LARGEST.get(key, _LARGEST_OTHER)
    expected = f"a positive integer of at most {largest}" if is_whole else "a positive integer"
    require(is_whole and 0 <= value <= largest, where, key, value, expected)  # type: ignore[operator]
    return int(value)  # type: ignore[call-overload]


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e38 and math.isfinite(value)


def _is_id(key: str) -> bool:
    return key.endswith(("_token_id", "_token_index"))


def read_object(value: object, where: str, key: str) -> Mapping[str, Any]:
    """An object inside an object; null is an empty one."""
    if value is None:
        return {}
    require(isinstance(value, Mapping), where, key, value, "an object")
    assert isinstance(value, Mapping)
    return value


def read_positive(raw: Mapping[str, Any], key: str, default: float, where: str) -> float:
    """A number above 0; null or none is the default."""
    value = raw.get(key)
    if value is None:
        return default
    require(is_number(value) and value > 0, where, key, value, "a positive number")
    assert isinstance(value, int | float)
    return value


def check_fixed(raw: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> None:
    """Make sure that keys of which one value is implemented hold that one; null is what some write for it."""
    for key, value in fixed.items():
        given = raw.get(key)
        same = type(given) is type(value) or (is_number(given) and is_number(value))
        require(given is None or (same and given == value), where, key, given, repr(value))


def require(condition: bool, where: str, key: str, value: object, expected: str) -> None:
    """Raise `ConfigError` unless the condition holds."""
    if not condition:
        raise ConfigError(f"{where}: {key} is {shown(value)}, must be {expected}")


def shown(value: object) -> str:
    """A value from a file, in a line of its own size."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
