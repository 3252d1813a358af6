"""Descriptions of tools as programs keep them → the one form that chat templates read.

Hosts of tools agree on JSON Schema and on nothing round it: OpenAI's Chat Completions nest it under `function`, its
Responses do not, MCP calls it `inputSchema`, Anthropic `input_schema`. Templates read
`{"type": "function", "function": {"name", "description", "parameters"}}` and, of a schema, little more than `type`,
`properties`, `required`, `items`, `enum`, `description` and `nullable`. What other schema words say in these terms is
said in them, because a template would leave it out in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .sources import reason
from .tool_functions import Tool

_STRUCTURE = ("properties", "required", "items", "description", "type")
_PARAMETERS = ("parameters", "inputSchema", "input_schema", "parametersJsonSchema")
_RESULTS = ("response", "responseJsonSchema", "outputSchema", "output_schema", "returns")
# A few parts that refer to one another many times can spell out to more than a prompt could ever hold.
_MOST_PARTS = 10_000


def read_tools(tools: Sequence[Any] | None) -> list[dict[str, Any]] | None:
    """Tool descriptions in the form chat templates read; None without tools.

    Args:
        tools: functions (see `tool_functions.Tool`), or JSON descriptions in the form of OpenAI (with `function` or
            without, strict or not), of MCP (`inputSchema`), of Anthropic (`input_schema`), of Gemini or Bedrock, or
            just a name and `parameters`.

    Raises:
        ValueError: `tools` is not a list of functions with docstring and types, or JSON descriptions with a name.
    """
    if not tools:
        return None
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
        raise ValueError(f"tools are a {type(tools).__name__}: give a list of functions or JSON descriptions")
    return [_read_tool(tool, number) for number, tool in enumerate(tools, start=1)]


def _read_tool(tool: Any, number: int) -> dict[str, Any]:
    if callable(tool):
        tool = Tool.of(tool).description
    function = tool.get("function") or tool.get("toolSpec") or tool if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError(f"tool {number} needs a JSON description with a name, such as {{'name': …, 'parameters': …}}")
    name = function["name"]
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(function)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"tool {number} ({name}) is not plain JSON: {reason(error)}") from error
    schema = _parameters_of(plain)
    if schema is not None and not (isinstance(schema, dict) and isinstance(schema.get("properties") or {}, dict)):
        raise ValueError(f"tool {number} ({name}) has parameters that are no JSON schema: give an object")
    described = {"name": name, "description": plain.get("description") or ""}
    if schema:
        try:
            described["parameters"] = {"type": "object"} | _Schema(schema).in_plain_words(schema)
        except (_TooLarge, RecursionError) as error:
            raise ValueError(f"tool {number} ({name}) has parameters without end: describe them with less") from error
    if isinstance(plain.get("response"), dict):
        described["response"] = plain["response"]
    return {"type": "function", "function": described}


def _parameters_of(described: Mapping[str, Any]) -> Any:
    """The schema of a tool's parameters, or None. Under a name of its own it is known by its properties."""
    others = [key for key in described if key not in _RESULTS and _has_properties(described[key])]
    schema = next((described[key] for key in (*_PARAMETERS, *others) if described.get(key) is not None), None)
    if isinstance(schema, dict) and len(schema) == 1:
        (inner,) = schema.values()
        if "properties" not in schema and _has_properties(inner):  # Bedrock's {"json": …}, Vercel's {"jsonSchema": …}
            return inner
    return schema


def _has_properties(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("properties"), dict)


class _TooLarge(Exception):  # noqa: N818  becomes a ValueError that names the tool
    pass


class _Schema:
    """The schema of a tool's parameters, with the parts it refers to."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._parts = 0

    def in_plain_words(self, node: Any, within: tuple[str, ...] = ()) -> dict[str, Any]:
        """`node` with references followed, and alternatives and lists of types said as one type.

        Args:
            within: the references that led here. One that leads back to itself ends as an object of any kind.
        """
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _TooLarge
        if not isinstance(node, dict):  # True: anything goes
            return {}
        if isinstance(reference := node.get("$ref"), str):
            rest = {key: value for key, value in node.items() if key != "$ref"}
            if reference in within:
                return {"type": "object"} | rest
            return self.in_plain_words({**self._part(reference), **rest}, (*within, reference))
        words = {key: value for key, value in node.items() if key not in ("$defs", "definitions", "anyOf", "oneOf")}
        choices = node.get("anyOf") or node.get("oneOf")
        if isinstance(choices, list) and choices:
            words = _one_of([self.in_plain_words(choice, within) for choice in choices]) | words
        if isinstance(words.get("allOf"), list):
            for part in words.pop("allOf"):
                words = _all_of(words, self.in_plain_words(part, within))
        if isinstance(words.get("type"), list):
            words = _with_one_type(words)
        if "const" in words:
            words["enum"] = [words.pop("const")]
        if "type" not in words and (implied := _implied_type(words)):
            words["type"] = implied
        # Null says the same as nothing, but templates ask only whether the word is there.
        words = {key: value for key, value in words.items() if value is not None or key not in _STRUCTURE}
        if words.get("type") == "object":
            words.setdefault("properties", {})  # without them, templates take other words for names of properties
        if isinstance(words.get("properties"), dict):
            words["properties"] = {n: self.in_plain_words(item, within) for n, item in words["properties"].items()}
        if isinstance(words.get("items"), dict):
            words["items"] = self.in_plain_words(words["items"], within)
        return words

    def _part(self, reference: str) -> dict[str, Any]:
        """What `#/$defs/name` refers to; {} if it is not in here."""
        target: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        return target if isinstance(target, dict) else {}


def _one_of(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Alternatives as a single schema: the first that is not null, and whether null may be; of objects, all members."""
    values = [choice for choice in choices if choice.get("type") != "null"]
    nullable = {"nullable": True} if len(values) < len(choices) else {}
    if not values:
        return {"type": "null"}
    if len(values) > 1 and all(_has_properties(choice) for choice in values):
        return {**_either_of(values), **nullable}
    if all(choice.get("type") == values[0].get("type") and isinstance(choice.get("enum"), list) for choice in values):
        return {**values[0], "enum": [value for choice in values for value in choice["enum"]], **nullable}
    return {**values[0], **nullable}


def _either_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Objects of several kinds as one: every property of any, and of those asked for the ones that all ask for."""
    properties: dict[str, Any] = {}
    for name in dict.fromkeys(name for choice in objects for name in choice["properties"]):
        properties[name] = _one_of([choice["properties"][name] for choice in objects if name in choice["properties"]])
    asked = [choice.get("required") or [] for choice in objects]
    required = [name for name in asked[0] if all(name in names for names in asked)]
    return {**objects[0], "type": "object", "properties": properties, "required": required}


def _all_of(words: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """What holds of a value that is both."""
    both = more | words
    for key in ("properties", "required"):
        first, second = words.get(key), more.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            both[key] = first | second
        elif isinstance(first, list) and isinstance(second, list):
            both[key] = [*first, *(name for name in second if name not in first)]
    return both


def _with_one_type(words: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's strict form says `["string", "null"]` for what may be left out."""
    types = [kind for kind in words["type"] if kind != "null"]
    nullable = {"nullable": True} if len(types) < len(words["type"]) else {}
    return {**words, "type": types[0] if types else "null", **nullable}


def _implied_type(words: Mapping[str, Any]) -> str | None:
    if "properties" in words:
        return "object"
    if "items" in words:
        return "array"
    values = words.get("enum")
    if isinstance(values, list) and values:
        kinds = {bool: "boolean", str: "string", int: "integer", float: "number"}
        return kinds.get(type(values[0]))
    return None
