"""Descriptions of tools in the forms of their hosts: what templates write of them is the same."""

from __future__ import annotations

from typing import Any

import pytest

from conversations import USER, processor, theirs
from published_templates import BUILT_IN, TEMPLATES

# Descriptions of the same tool, and whether it comes through as it would in the form that templates read.
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "where"}, "days": {"type": "integer"}},
    "required": ["city"],
}
DESCRIBED = {"name": "look", "description": "Looks"}
SAME_TOOL: dict[str, dict[str, Any]] = {
    "OpenAI": {"type": "function", "function": {**DESCRIBED, "parameters": PARAMETERS}},
    "OpenAI strict": {"type": "function", "function": {**DESCRIBED, "strict": True, "parameters": PARAMETERS}},
    "OpenAI without function": {"type": "function", **DESCRIBED, "strict": True, "parameters": PARAMETERS},
    "bare": {**DESCRIBED, "parameters": PARAMETERS},
    "MCP": {**DESCRIBED, "title": "Look", "inputSchema": PARAMETERS, "annotations": {"readOnlyHint": True}},
    "Anthropic": {**DESCRIBED, "input_schema": PARAMETERS, "cache_control": {"type": "ephemeral"}},
    "Anthropic custom": {"type": "custom", **DESCRIBED, "input_schema": PARAMETERS},
    "Gemini": {**DESCRIBED, "parametersJsonSchema": PARAMETERS, "response": None},
    "Bedrock": {"toolSpec": {**DESCRIBED, "inputSchema": {"json": PARAMETERS}}},
    "Vercel": {"type": "function", **DESCRIBED, "inputSchema": {"jsonSchema": PARAMETERS}},
    "a name of its own": {**DESCRIBED, "args_schema": PARAMETERS, "outputSchema": {"properties": {"x": {}}}},
    "no type of parameters": {**DESCRIBED, "parameters": {k: v for k, v in PARAMETERS.items() if k != "type"}},
}


@pytest.mark.parametrize("form", SAME_TOOL)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_tool_in_any_host_s_form_keeps_its_parameters(template: str, form: str) -> None:
    ours = processor(template).render([USER], tools=[SAME_TOOL[form]])
    assert ours == theirs(template, [USER], [SAME_TOOL["OpenAI"]])
    assert "city" in ours


@pytest.mark.parametrize("form", [DESCRIBED, {**DESCRIBED, "parameters": None}, {**DESCRIBED, "inputSchema": {}}])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_tool_without_parameters_is_a_tool(template: str, form: dict[str, Any]) -> None:
    ours = processor(template).render([USER], tools=[form])
    assert ours == theirs(template, [USER], [{"type": "function", "function": DESCRIBED}])


@pytest.mark.parametrize("description", [None, ""])
def test_a_tool_without_a_description_is_not_called_none(description: str | None) -> None:
    for template in TEMPLATES:
        ours = processor(template).render([USER], tools=[{"name": "look", "description": description}])
        assert 'declaration:look{description:<|"|><|"|>}' in ours


ONE_TYPE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "strict and optional": ({"type": ["string", "null"]}, {"type": "string", "nullable": True}),
    "Pydantic and optional": (
        {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "where"},
        {"type": "string", "nullable": True, "description": "where"},
    ),
    "a reference": ({"$ref": "#/$defs/Unit"}, {"type": "string", "enum": ["C", "F"]}),
    "a reference with words": (
        {"allOf": [{"$ref": "#/$defs/Unit"}], "description": "in"},
        {"type": "string", "enum": ["C", "F"], "description": "in"},
    ),
    "a list of references": (
        {"type": "array", "items": {"$ref": "#/$defs/Unit"}},
        {"type": "array", "items": {"type": "string", "enum": ["C", "F"]}},
    ),
    "a constant": ({"const": "C"}, {"type": "string", "enum": ["C"]}),
    "constants to choose from": (
        {"oneOf": [{"const": "C"}, {"const": "F"}]},
        {"type": "string", "enum": ["C", "F"]},
    ),
    "an object with any keys": (
        {"type": "object", "title": "Unit", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {}, "title": "Unit", "additionalProperties": {"type": "integer"}},
    ),
    "a choice without a type": ({"enum": ["C", "F"]}, {"type": "string", "enum": ["C", "F"]}),
}


@pytest.mark.parametrize("name", ONE_TYPE)
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_a_template_would_leave_out_of_a_schema_is_said_in_words_it_reads(template: str, name: str) -> None:
    given, read = ONE_TYPE[name]
    units = {"Unit": {"type": "string", "enum": ["C", "F"]}}

    def tool(schema: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
        parameters = {"type": "object", "properties": {"unit": schema}, **more}
        return [{"type": "function", "function": {**DESCRIBED, "parameters": parameters}}]

    ours = processor(template).render([USER], tools=tool(given, **{"$defs": units}))
    assert ours == theirs(template, [USER], tool(read))


def test_a_schema_without_end_is_cut_or_refused_in_one_line() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    itself = {"name": "look", "parameters": {"$ref": "#/$defs/Node", "$defs": {"Node": node}}}
    assert "next" in processor(BUILT_IN).render([USER], tools=[itself])
    doubling = {str(n): {"properties": {k: {"$ref": f"#/$defs/{n + 1}"} for k in "abcd"}} for n in range(12)}
    with pytest.raises(ValueError, match="parameters without end"):
        processor(BUILT_IN).render(
            [USER], tools=[{"name": "look", "parameters": {"$ref": "#/$defs/0", "$defs": doubling}}]
        )


NUMBER, WORD = {"type": "integer"}, {"type": "string"}


def described(schema: dict[str, Any]) -> str:
    rendered: str = processor(BUILT_IN).render([USER], tools=[{"name": "look", "parameters": schema}])
    return rendered


@pytest.mark.parametrize("key", ["oneOf", "anyOf"])
def test_of_alternative_objects_every_member_is_told_and_only_what_all_ask_for_is_required(key: str) -> None:
    cat = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": NUMBER}, "required": ["kind", "lives"]}
    dog = {"type": "object", "properties": {"kind": {"const": "dog"}, "name": WORD}, "required": ["kind"]}
    kind = {"type": "string", "enum": ["cat", "dog"]}
    both = {
        "type": "object",
        "properties": {"kind": kind, "lives": NUMBER, "name": WORD},
        "required": ["kind"],
    }
    assert described({key: [cat, dog]}) == described(both)
    within = {"type": "object", "properties": {"pet": {key: [cat, dog, {"type": "null"}]}}}
    assert described(within) == described({"type": "object", "properties": {"pet": {**both, "nullable": True}}})


def test_members_of_all_parts_of_a_schema_are_told() -> None:
    first = {"type": "object", "properties": {"a": NUMBER}, "required": ["a"]}
    second = {"type": "object", "properties": {"b": WORD}, "required": ["b"]}
    both = {"type": "object", "properties": {"a": NUMBER, "b": WORD}, "required": ["a", "b"]}
    assert described({"allOf": [first, second]}) == described(both)
    assert described({**first, "allOf": [second]}) == described(both)
