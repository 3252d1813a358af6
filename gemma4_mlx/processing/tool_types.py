"""The types a tool's parameters may have: their JSON schemas, and whether a value is one."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, Union

_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean"}
_NAMES = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON schema of a Python type. Raises TypeError with the type's name for one that has none."""
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        (one, *others) = [argument for argument in arguments if argument is not type(None)]
        if not others:
            return {**schema_of(one), "nullable": True}
    elif origin is Literal:
        return _choices(list(arguments), kind)
    elif inspect.isclass(kind) and issubclass(kind, Enum):
        return _choices([member.value for member in kind], kind)
    elif origin is list or kind is list:
        return {"type": "array", **({"items": schema_of(arguments[0])} if _holds_one_type(arguments) else {})}
    elif kind is dict or (origin is dict and arguments[0] is str):
        if _holds_one_type(arguments):
            schema_of(arguments[1])
        return {"type": "object"}
    raise TypeError(getattr(kind, "__name__", None) or str(kind))


def _holds_one_type(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments) and arguments[-1] is not Any


def _choices(values: list[Any], kind: Any) -> dict[str, Any]:
    (of, *others) = {type(value) for value in values}
    if others or of not in (str, int):
        raise TypeError(str(kind))
    return {"type": _SIMPLE[of], "enum": values}


def fitted(value: Any, kind: Any, where: str) -> Any:
    """`value` as a `kind`: whole numbers pass as floats, and floats that are whole as integers. Raises ValueError."""
    if kind in _SIMPLE:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if type(value) is not kind:
            raise ValueError(f"{where} must be {_NAMES[_SIMPLE[kind]]}, not {json.dumps(value, ensure_ascii=False)}")
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return fitted(value, next(a for a in arguments if a is not type(None)), where)
    if origin is Literal:
        return _chosen(value, {argument: argument for argument in arguments}, where)
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return _chosen(value, {member.value: member for member in kind}, where)
    container = origin or kind
    if not isinstance(value, container):
        raise ValueError(f"{where} must be {'a list' if container is list else 'an object'}")
    if not _holds_one_type(arguments):
        return value
    if container is list:
        return [fitted(item, arguments[0], f"{where}[{number}]") for number, item in enumerate(value)]
    return {key: fitted(item, arguments[1], f"{where}.{key}") for key, item in value.items()}


def _chosen(value: Any, choices: Mapping[Any, Any], where: str) -> Any:
    for choice, meant in choices.items():
        if type(choice) is type(value) and choice == value:
            return meant
    raise ValueError(f"{where} must be one of {', '.join(map(str, choices))}, not {value}")
