"""Answers with a schema, or a class of pydantic's kind, and what becomes of them: `Generation.parsed`."""

from __future__ import annotations

import json
import pickle
from typing import Literal

import pytest

import gemma4_mlx as g4
from gemma4_mlx.generation.schema import SchemaConstraint

RED = {
    "type": "object",
    "properties": {"colour": {"enum": ["red"]}, "sides": {"type": "integer", "minimum": 3, "maximum": 3}},
    "required": ["colour", "sides"],
}


class Shape:
    """What pydantic.BaseModel offers, without pydantic."""

    def __init__(self, colour: str, sides: int) -> None:
        self.colour, self.sides = colour, sides

    @classmethod
    def model_json_schema(cls):
        return RED

    @classmethod
    def model_validate_json(cls, text: str):
        return cls(**json.loads(text))


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo")


@pytest.mark.parametrize("schema", [RED, json.dumps(RED)], ids=["dict", "text"])
def test_an_answer_with_a_json_schema_is_parsed_into_plain_json(demo, schema):
    out = g4.generate(*demo, "Which shape?", schema=schema, temperature=0)
    assert out.parsed == {"colour": "red", "sides": 3}
    assert str(out) == '{"colour": "red", "sides": 3}'


def test_an_answer_with_a_class_is_an_instance_of_it(demo):
    out = g4.generate(*demo, "Which shape?", schema=Shape, temperature=0)
    assert (type(out.parsed), out.parsed.colour, out.parsed.sides) == (Shape, "red", 3)
    assert pickle.loads(pickle.dumps(out)).parsed.sides == 3


def test_a_stream_with_a_class_ends_in_the_same_instance(demo):
    with g4.stream_generate(*demo, "Which shape?", schema=Shape, temperature=0) as stream:
        for _ in stream:
            pass
    assert stream.result().parsed.colour == "red"


def test_without_a_schema_there_is_nothing_to_parse(demo):
    assert g4.generate(*demo, "Hello", max_tokens=2, temperature=0).parsed is None


def test_an_answer_that_was_cut_off_says_so_when_it_is_parsed(demo):
    out = g4.generate(*demo, "Which shape?", schema=Shape, max_tokens=2, temperature=0)
    with pytest.raises(ValueError, match=r"ended before its JSON did \(finish_reason 'length'\): give it more"):
        _ = out.parsed


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (dict, "schema is the class dict: give a JSON schema, or a class that derives from pydantic"),
        (Shape("red", 3), "schema is a Shape"),
        (3, "schema is a int"),
        ([RED], "schema is a list"),
    ],
)
def test_what_is_no_schema_is_refused_in_a_line(demo, schema, says):
    with pytest.raises(ValueError, match=says):
        g4.generate(*demo, "Hello", schema=schema)


def test_extra_keys_come_only_where_the_schema_allows_them(demo):
    model, processor = demo
    for others, allowed in (({}, False), ({"additionalProperties": {"type": "integer"}}, True)):
        constraint = SchemaConstraint({**RED, **others}, processor.tokenizer, model.config.text.vocab_size, [1])
        for token in processor.tokenizer.encode('{"colour": "red", "sides": 3'):
            assert constraint.accept(token)
        (comma,) = processor.tokenizer.encode(",")
        assert bool(constraint.allowed()[comma]) is allowed


def test_a_pydantic_class_with_all_it_can_say_gives_an_instance(demo):
    pydantic = pytest.importorskip("pydantic", reason="pydantic is not among what the tests install")

    class Side(pydantic.BaseModel):
        length: int = pydantic.Field(ge=1, le=9)

    class Polygon(pydantic.BaseModel):
        colour: Literal["red", "green"] = pydantic.Field(alias="color")
        sides: list[Side] = pydantic.Field(min_length=1, max_length=2)
        note: Literal["none"] | None = None

    out = g4.generate(*demo, "Which shape?", schema=Polygon, temperature=0)
    assert isinstance(out.parsed, Polygon)
    assert out.parsed.sides[0].length in range(1, 10)

    class Picky(Polygon):
        @pydantic.field_validator("colour")
        @classmethod
        def never(cls, colour: str) -> str:
            raise ValueError("not that colour")

    out = g4.generate(*demo, "Which shape?", schema=Picky, temperature=0)
    with pytest.raises(ValueError, match="not that colour"):
        _ = out.parsed

    class Anything(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        thing: Side.__class__

    with pytest.raises(ValueError, match=r"schema|followed") as caught:
        g4.generate(*demo, "Which shape?", schema=Anything)
    assert "\n" not in str(caught.value)
