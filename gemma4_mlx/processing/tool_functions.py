"""Python functions as tools of the model: their JSON descriptions, and the check of what a model calls them with.

A tool is a function with a docstring and a type for every parameter. What the model gives is checked against the types
before the function sees it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .tool_types import fitted, schema_of

# Google's docstring style: "Args:", then "name (type): what it is", continued on deeper lines.
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?):\s*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


@dataclasses.dataclass(frozen=True)
class Tool:
    """One function.

    Attributes:
        description: its JSON description, in the form chat templates take.
        types: parameter name → type.
        required: parameters without a default.
    """

    function: Callable[..., Any]
    description: dict[str, Any]
    types: Mapping[str, Any]
    required: Sequence[str]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Tool:
        """A function's JSON description, from its signature and its docstring.

        Raises:
            ValueError: it is no plain function, or lacks a docstring or a type; in one line.
        """
        name = getattr(function, "__name__", None)
        if inspect.isclass(function) or not callable(function) or not isinstance(name, str) or name == "<lambda>":
            raise ValueError(f"{name or type(function).__name__} is no function: a tool is one that has a name")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ValueError(f"{name} is async: a tool is an ordinary function, which may call asyncio.run")
        documentation = inspect.getdoc(function)
        if not documentation:
            raise ValueError(f"{name} has no docstring: say what it does, so that the model knows when to call it")
        try:
            hints, signature = typing.get_type_hints(function), inspect.signature(function)
        except Exception as error:  # annotations are code, too
            said = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{name} has a type that means nothing ({said})") from error
        said_of = _documented_arguments(documentation)
        properties: dict[str, Any] = {}
        for parameter in signature.parameters.values():
            properties[parameter.name] = _schema(parameter, hints, name)
            if parameter.name in said_of:
                properties[parameter.name]["description"] = said_of[parameter.name]
        required = [each.name for each in signature.parameters.values() if each.default is each.empty]
        section = _SECTION.search(documentation)
        summary = documentation[: section.start()].strip() if section else documentation
        about = {
            "name": name,
            "description": " ".join(summary.split()),
            "parameters": {"type": "object", "properties": properties, "required": required},
        }
        types_of = {parameter: hints[parameter] for parameter in properties}
        return cls(function, {"type": "function", "function": about}, types_of, required)

    @property
    def name(self) -> str:
        """What the model calls it."""
        return str(self.description["function"]["name"])

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments a model gave, as the function's types want them. Raises ValueError, for the model to read."""
        if unknown := arguments.keys() - self.types.keys():
            raise ValueError(f"there is no parameter {', '.join(sorted(unknown))}; there are: {', '.join(self.types)}")
        if missing := [name for name in self.required if name not in arguments]:
            raise ValueError(f"{', '.join(missing)} must be given")
        return {name: fitted(value, self.types[name], name) for name, value in arguments.items()}


def _schema(parameter: inspect.Parameter, hints: Mapping[str, Any], function: str) -> dict[str, Any]:
    name = parameter.name
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise ValueError(f"{function} takes {parameter}: a tool's parameters go by name, one by one")
    if name not in hints:
        raise ValueError(f"{function} has no type for {name}: write {name}: str, or what it is")
    try:
        return schema_of(hints[name])
    except TypeError as error:
        raise ValueError(f"{function}: {name} is {error}: use str, int, float, bool, list, dict or Literal") from None


def as_json(value: Any) -> Any:
    """A function's result as plain JSON; what JSON does not know becomes text."""
    return json.loads(json.dumps(value, default=_plainer, skipkeys=True), parse_constant=lambda _: None)


def _plainer(value: Any) -> Any:
    """What stands for an object that JSON does not know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, set | frozenset):
        return list(value)
    for name in ("tolist", "model_dump"):  # of NumPy and MLX, and of pydantic
        if callable(method := getattr(value, name, None)) and not isinstance(value, type):
            return method()
    return str(value)


def _documented_arguments(documentation: str) -> dict[str, str]:
    """What the "Args:" section says of each parameter."""
    said: dict[str, str] = {}
    section, indent, name = "", None, ""
    for line in documentation.splitlines():
        if header := _SECTION.match(line):
            section = header[1]
            continue
        if section not in ("Args", "Arguments", "Parameters"):
            continue
        found = _ARGUMENT.match(line)
        if found and (indent is None or len(found[1]) <= indent):
            indent, name = len(found[1]), found[2]
            said[name] = found[3].strip()
        elif name and line.strip():
            said[name] = f"{said[name]} {line.strip()}".strip()
    return said
