"""Schemas as Pydantic, OpenAPI and OpenAI write them: what they allow may come, what they forbid may not."""

from __future__ import annotations

import datetime
import decimal
import enum
import itertools
import json
import re
import uuid
from typing import Annotated, Any, Literal

import jsonschema
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gemma4_mlx as g4
from gemma4_mlx.generation.answers import end_of_turn_ids
from gemma4_mlx.generation.distinct_items import DistinctItems
from gemma4_mlx.generation.json_schema import enforceable
from gemma4_mlx.generation.schema import SchemaConstraint
from gemma4_mlx.generation.thought_first import ThoughtFirst
from parity import pair


def follows(schema: Any, text: str) -> bool:
    """Whether an answer with this schema may be `text`, to its end."""
    checkpoint = pair("e2b")
    tokenizer = checkpoint.processor.tokenizer
    constraint = SchemaConstraint(schema, tokenizer, checkpoint.model.config.text.vocab_size, [1])
    for token in [*tokenizer.encode(tokenizer.literal(text)), 1]:
        if not constraint.allowed()[token] or not constraint.accept(token):
            return False
    return True


def answer(schema: Any, seed: int = 0, max_tokens: int = 600, **options: Any) -> g4.generation.Generation:
    checkpoint = pair("e2b")
    return g4.generate(
        checkpoint.model,
        checkpoint.processor,
        "Say it",
        schema=schema,
        max_tokens=max_tokens,
        temperature=1.0,
        seed=seed,
        **options,
    )


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, pydantic.Field(ge=0, le=9)]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    good: bool


class Order(pydantic.BaseModel):
    identifier: uuid.UUID
    at: datetime.datetime
    day: datetime.date
    password: Annotated[pydantic.SecretStr, pydantic.Field(max_length=4)]
    file: Annotated[bytes, pydantic.Field(max_length=4)]
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
    price: Annotated[decimal.Decimal, pydantic.Field(max_digits=4, decimal_places=2)] | None
    colours: set[Colour]
    numbers: Annotated[set[Annotated[int, pydantic.Field(ge=0, le=50)]], pydantic.Field(max_length=3)]
    stock: dict[Colour, Annotated[int, pydantic.Field(ge=0, le=9)]]
    pair: tuple[bool, Literal[1, "a"]]
    next: Order | None = None


ORDER = {
    "identifier": "12345678-1234-4234-8234-1234567890ab",
    "at": "2026-07-15T10:30:00Z",
    "day": "2026-07-15",
    "password": "ab",
    "file": "ab",
    "pet": {"kind": "dog", "good": True},
    "price": None,
    "colours": ["blue", "red"],
    "numbers": [3, 1],
    "stock": {"red": 1},
    "pair": [True, "a"],
}


def test_a_pydantic_model_of_many_kinds_is_followed() -> None:
    schema = Order.model_json_schema()
    assert follows(schema, json.dumps(ORDER))
    assert Order.model_validate(ORDER)
    for change in (
        {"day": "today"},
        {"pet": {"kind": "dog", "lives": 3}},
        {"colours": ["red", "red"]},
        {"numbers": [3, 3]},
        {"stock": {"green": 1}},
        {"pair": [True, "b"]},
    ):
        assert not follows(schema, json.dumps({**ORDER, **change})), change


OPENAPI = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**63 - 1, "example": 7},
        "count": {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1, "readOnly": True},
        "share": {"type": "number", "format": "double", "minimum": -1.7976931348623157e308, "maximum": 1e300},
        "code": {"type": "string", "format": "byte", "maxLength": 4, "xml": {"name": "x"}},
        "note": {"type": "string", "nullable": True, "maxLength": 3},
        "size": {"$ref": "#/components/schemas/Size"},
    },
    "required": ["id", "note"],
    "additionalProperties": False,
    "discriminator": {"propertyName": "id"},
    "components": {"schemas": {"Size": {"type": "string", "enum": ["s", "m"], "format": "size"}}},
}


def test_an_openapi_schema_is_followed() -> None:
    full = {"id": 2**62, "count": -5, "share": -0.5, "code": "YQ==", "note": None, "size": "m"}
    assert follows(OPENAPI, json.dumps(full))
    assert follows(OPENAPI, '{"id": 0, "note": "abc"}')
    assert not follows(OPENAPI, '{"id": -1, "note": "abc"}')
    assert not follows(OPENAPI, '{"id": 9223372036854775808, "note": null}')
    assert not follows(OPENAPI, '{"id": 0, "note": "abc", "size": "l"}')


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda schema: {"name": "x", "strict": True, "schema": schema},
        lambda schema: {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        lambda schema: {"type": "json_schema", "name": "x", "strict": True, "schema": schema},
        lambda schema: json.dumps({"name": "x", "strict": True, "schema": schema}),
    ],
)
def test_openais_wrappers_are_taken_off(wrapped: Any) -> None:
    schema = wrapped({"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": False})
    assert follows(schema, '{"a": true}')
    assert not follows(schema, '{"b": true}')


def test_a_property_called_schema_is_no_wrapper() -> None:
    schema = {"type": "object", "properties": {"schema": {"type": "integer"}}, "required": ["schema"]}
    assert follows(schema, '{"schema": 1}')
    assert not follows(schema, "{}")


ZOD_EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
PYDANTIC_DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        ({"type": "string", "format": "iri"}, '"x"', "1"),
        ({"type": "string", "format": "ipvanyaddress", "maxLength": 2}, '"x"', '"xyz"'),
        ({"enum": ["a"], "format": "date"}, '"a"', '"b"'),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, "-5", "9223372036854775808"),
        ({"type": "integer", "maximum": 2**64 - 1}, "5", "18446744073709551616"),
        ({"type": "integer", "minimum": 2**53 + 1}, "9007199254740994", "9007199254740992"),
        ({"type": "integer", "exclusiveMinimum": -(2**70)}, "5", "x"),
        ({"type": "number", "minimum": -1e308, "maximum": 1e308}, "-0.5", "true"),
        ({"type": "number", "exclusiveMaximum": 2**64}, "0.5", "99999999999999999999999"),
        ({"const": 2**60}, str(2**60), str(2**60 + 1)),
        ({"enum": [2**53]}, "9007199254740992", "9007199254740993"),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": False}, "[1, 1]", "[a]"),
        (
            {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True, "minItems": 1},
            '["b", "a"]',
            '["a", "a"]',
        ),
        ({"type": "array", "items": {"type": "boolean"}, "uniqueItems": True}, "[]", "[true, true]"),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, '["a", "ab"]', '["a", "a"]'),
        ({"type": "array", "items": {"type": "number"}, "uniqueItems": True}, "[1, 10]", "[1, 1.0]"),
        ({"type": "array", "uniqueItems": True}, "[1, true, [1], {}]", '[{"a": 1, "b": 2}, {"b": 2, "a": 1}]'),
        ({"propertyNames": {"pattern": "^a"}, "type": "object"}, '{"ab": 1}', '{"b": 1}'),
        ({"propertyNames": {"maxLength": 2}, "type": "object"}, '{"ab": 1}', '{"abc": 1}'),
        ({"propertyNames": {"enum": ["x", "y"]}, "type": "object"}, '{"y": 1}', '{"z": 1}'),
        ({"propertyNames": {"format": "uuid"}, "type": "object"}, '{"z": 1}', "[]"),
        ({"$schema": "https://spec.openapis.org/oas/3.1/dialect/base", "type": "integer"}, "1", '"a"'),
        ({"type": "integer", "x-order": 3, "externalDocs": {}}, "1", '"a"'),
        ({"type": "string", "format": "email", "pattern": ZOD_EMAIL}, '"a.b+c@ex-a.co.uk"', '"a..b@example.org"'),
        ({"type": "string", "pattern": ZOD_EMAIL}, '"a@b.org"', '".a@b.org"'),
        ({"anyOf": [{"type": "number"}, {"type": "string", "pattern": PYDANTIC_DECIMAL}]}, '"-0.5"', '"-."'),
    ],
)
def test_what_a_keyword_allows_may_come_and_what_it_forbids_may_not(schema: Any, yes: str, no: str) -> None:
    assert follows(schema, yes)
    assert not follows(schema, no)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"const": 2**53 + 1}, "#/const: 9007199254740993"),
        ({"properties": {"a/b": {"enum": ["x", {"n": [10**30]}]}}}, "#/properties/a~1b/enum/1: 1000000"),
        ({"properties": {"a": {"not": {}}}}, "#/properties/a/not"),
        ({"anyOf": [{"type": "null"}, {"dependentRequired": {}}]}, "#/anyOf/1/dependentRequired"),
        ({"items": {"type": "integer", "minimum": 2**70}}, "#/items/minimum"),
        ({"properties": {"a": {"type": "number", "maximum": -1e30}}}, "#/properties/a/maximum"),
        ({"$defs": {"A": {"type": "strin"}}, "$ref": "#/$defs/A"}, r"#/\$defs/A/type"),
        ({"properties": {"a": {"type": "string", "pattern": "(?!x)"}}}, "#/properties/a/pattern"),
        ({"properties": {"a": {"minLength": "x"}}}, "#/properties/a/minLength"),
        ({"properties": {"a": {"$ref": "#/$defs/B"}}}, r"#/properties/a/\$ref"),
        ({"properties": {"a": {"propertyNames": {"not": {}}}}}, "#/properties/a/propertyNames"),
        ({"name": "x", "schema": {"properties": {"a": {"if": {}}}}}, "#/schema/properties/a/if"),
        ({"name": "x", "schema": {"properties": {"a": {"type": "x"}}}}, "#/schema/properties/a/type"),
        ({"items": {"enum": [1, 2]}, "type": "array", "uniqueItems": True, "minItems": 3}, "#/minItems"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_place(schema: Any, place: str) -> None:
    with pytest.raises(ValueError, match=f"the schema cannot be followed at {place}") as error:
        follows(schema, "1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("pattern", "letters"), [(ZOD_EMAIL, "a.'-@"), (PYDANTIC_DECIMAL, "01.+-")])
def test_a_known_pattern_without_looking_around_means_the_same(pattern: str, letters: str) -> None:
    rewritten = re.compile(enforceable({"pattern": pattern}).schema["pattern"])
    assert "(?" not in rewritten.pattern
    behind = "@a.aa" if "@" in letters else ""
    for length in range(7):
        for text in map("".join, itertools.product(letters, repeat=length)):
            for whole in {text, text + behind}:
                assert bool(rewritten.search(whole)) == bool(re.search(pattern, whole, re.ASCII)), whole


def test_what_is_wrong_with_a_pattern_is_told() -> None:
    with pytest.raises(ValueError, match=r"at #/properties/a/pattern: look-around, .* is not supported"):
        follows({"properties": {"a": {"type": "string", "pattern": "^(?!x)y$"}}}, "1")


@pytest.mark.parametrize("schema", ['{"const": NaN}', '{"minimum": 1e999}', {"const": float("inf")}, {"const": {1}}])
def test_what_json_does_not_have_is_told(schema: Any) -> None:
    with pytest.raises(ValueError, match="the schema is not JSON"):
        follows(schema, "1")


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10_000),
    items=st.sampled_from(
        [
            {"type": "string", "maxLength": 3},
            {"type": "integer"},
            {"enum": ["a", "b", "c"]},
            {"type": "boolean"},
            {"type": "number", "minimum": 0, "maximum": 9},
            {"type": "integer", "minimum": 0, "maximum": 120},
            {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
        ]
    ),
    names=st.sampled_from([{"maxLength": 3, "minLength": 1}, {"pattern": "^[ab]{1,3}$"}, {"enum": ["x", "y"]}]),
    limit=st.sampled_from([2**31, 2**53, 2**62, 2**63 - 1, 2**64, 10**25, 1e18, 1e300]),
)
def test_every_answer_is_valid_by_the_schema_as_given(seed: int, items: Any, names: Any, limit: float) -> None:
    schema = {
        "type": "object",
        "properties": {
            "set": {"type": "array", "items": items, "uniqueItems": True, "maxItems": 2},
            "map": {"type": "object", "propertyNames": names, "additionalProperties": {"type": "boolean"}},
            "whole": {"type": "integer", "minimum": -limit, "exclusiveMaximum": limit},
            "number": {"type": "number", "exclusiveMinimum": 0, "maximum": limit, "format": "float"},
        },
        "required": ["set", "map", "whole", "number"],
        "additionalProperties": False,
    }
    out = answer(schema, seed)
    if out.finish_reason == "stop":
        jsonschema.validate(json.loads(out.text), schema)
    else:
        assert out.finish_reason == "length"


def test_an_answer_with_a_schema_may_repeat_itself_and_is_not_cut() -> None:
    schema = {"type": "array", "items": {"const": 0}, "minItems": 150, "maxItems": 150}
    out = answer(schema, max_tokens=1000)
    assert (json.loads(out.text), out.finish_reason) == ([0] * 150, "stop")
    endless = {"type": "string", "pattern": "^a*$", "minLength": 1500}
    out = answer(endless, max_tokens=400)
    assert (out.finish_reason, len(out.tokens)) == ("length", 400)


@given(st.lists(st.integers(0, 9) | st.text(max_size=2) | st.lists(st.integers(0, 1), max_size=2), max_size=6))
def test_a_repeated_item_is_refused_where_it_would_be_complete(items: list[Any]) -> None:
    distinct = DistinctItems(None)
    text = json.dumps({'a"b': [items]})
    taken = all(distinct.feed(letter) for letter in text)
    keys = [json.dumps(item) for item in items]
    inner = [len(set(item)) == len(item) for item in items if isinstance(item, list)]
    assert taken == (len(set(keys)) == len(keys) and all(inner))


def test_no_item_begins_when_every_one_has_been_written() -> None:
    schema = {"type": "array", "items": {"type": "string", "pattern": "^(yes|no)$"}, "uniqueItems": True}
    assert follows(schema, '["yes", "no"]')
    assert not follows(schema, '["yes", "no", "')
    assert not follows(schema, '["yes", "y')
    endless = {"type": "string", "pattern": "^a{60}$"}
    assert not follows({"type": "array", "items": endless, "uniqueItems": True}, json.dumps(["a" * 60, "a"]))


# Schemas and thoughts


def test_a_thought_may_come_before_the_answer() -> None:
    tokenizer = pair("e2b").processor.tokenizer
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    constraint = constraint_after("<|turn>model\n", schema, thinking=True)
    accept(constraint, "<|channel>thought\nWell, {} [ and <eos literally")
    assert not constraint.answer_begun
    for end in ("<turn|>", "<eos>", "<|tool_call>", "<|channel>"):
        assert not constraint.allowed()[tokenizer.token_id(end)]
    accept(constraint, "<channel|>")
    assert constraint.answer_begun
    accept(constraint, '{"a": true}<turn|>')


def constraint_after(prompt: str, schema: Any, thinking: bool) -> ThoughtFirst:
    checkpoint = pair("e2b")
    tokenizer, size = checkpoint.processor.tokenizer, checkpoint.model.config.text.vocab_size
    ends = end_of_turn_ids(checkpoint.processor)
    answer = SchemaConstraint(schema, tokenizer, size, ends)
    return ThoughtFirst(answer, tokenizer, tokenizer.encode(prompt), thinking, ends, size)


def accept(constraint: ThoughtFirst, text: str) -> None:
    for token in pair("e2b").processor.tokenizer.encode(text):
        assert constraint.allowed()[token], text
        assert constraint.accept(token)


def refuses(constraint: ThoughtFirst, text: str) -> bool:
    (token, *_) = pair("e2b").processor.tokenizer.encode(text)
    return not constraint.allowed()[token]


def test_the_answer_begins_where_the_prompts_own_thought_ends() -> None:
    whole = {"type": "integer"}
    for opened, rest in (("thought\n", ""), ("thought", "\n"), ("", "thought\n"), ("thought\nSo far", "")):
        constraint = constraint_after(f"<|turn>model\n<|channel>{opened}", whole, thinking=True)
        accept(constraint, f"{rest}Well<channel|>12<turn|>")
    for closed in ("", "<|channel>thought\n<channel|>"):
        constraint = constraint_after(f"<|turn>model\n{closed}", whole, thinking=False)
        assert refuses(constraint, "<|channel>")
        assert refuses(constraint, "W")
        accept(constraint, "12<turn|>")


def test_a_model_that_may_think_need_not_and_a_channel_of_another_name_is_not_opened() -> None:
    accept(constraint_after("<|turn>model\n", {"type": "integer"}, thinking=True), "12<turn|>")
    constraint = constraint_after("<|turn>model\n", {"type": "integer"}, thinking=True)
    accept(constraint, "<|channel>")
    assert refuses(constraint, "final")
    constraint = constraint_after("<|turn>model\n", {"type": "integer"}, thinking=True)
    accept(constraint, "1")
    assert refuses(constraint, "<|channel>")


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_with_a_thought_every_answer_that_ends_is_valid(seed: int) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    out = answer(schema, seed, max_tokens=100, thinking=True)
    if out.finish_reason == "stop":
        jsonschema.validate(json.loads(out.text), schema)
    else:
        assert out.finish_reason in ("length", "loop")


def test_an_object_with_named_members_gets_no_others_unless_the_schema_asks_for_them() -> None:
    schema = {"properties": {"a": {"type": "integer"}}, "type": "object"}
    assert follows(schema, '{"a": 1}')
    assert not follows(schema, '{"a": 1, "b": 1}')
    assert follows({**schema, "additionalProperties": True}, '{"a": 1, "b": 1}')
    assert follows({**schema, "required": ["b"]}, '{"a": 1, "b": 1}')
    both = {"allOf": [schema, {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}]}
    assert follows(both, '{"a": 1, "b": 1}')
    assert follows({"type": "object", "properties": {}}, '{"a": 1}')


def test_a_schema_that_is_nested_too_deeply_is_told() -> None:
    with pytest.raises(ValueError, match="the schema"):
        follows('{"items":' * 900 + "{}" + "}" * 900, "1")


def test_a_whole_number_of_any_length_may_be_an_item() -> None:
    distinct = DistinctItems(None)
    assert distinct.feed(f"[{'1' * 5000}, {'1' * 5001},")
    assert not distinct.feed(f" {'1' * 5000},")


@pytest.mark.parametrize("name", ["a", "items", "properties", "$defs", "a/b~c"])
def test_a_set_is_one_under_whatever_name_and_another_array_may_repeat_items(name: str) -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    unique = {"anyOf": [{**numbers, "uniqueItems": True}, {"type": "null"}]}
    schema = {"type": "object", "properties": {name: unique, "other": numbers}, "required": [name]}
    assert follows(schema, json.dumps({name: [1, 2], "other": [1, 1]}))
    assert not follows(schema, json.dumps({name: [1, 1]}))
    within = {"type": "object", "properties": {name: {"type": "array", "items": {**numbers, "uniqueItems": True}}}}
    assert follows(within, json.dumps({name: [[1, 2], [2, 1]]}))
    assert not follows(within, json.dumps({name: [[1, 1]]}))


@pytest.mark.parametrize("keyword", ["type", "format"])
@pytest.mark.parametrize("wrong", [{}, [[]], [{"a": 1}], ["string", {}], {"type": "string"}])
def test_a_type_or_a_format_that_is_no_name_is_refused_with_its_place(keyword, wrong):
    with pytest.raises(ValueError, match=f"#/properties/a/{keyword}: a {keyword} is a name"):
        enforceable({"type": "object", "properties": {"a": {keyword: wrong}}})
