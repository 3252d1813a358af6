"""Answers with a schema parse and validate, whatever the model would rather have said."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gemma4_mlx as g4
from command_line import run
from gemma4_mlx.generation.schema import SchemaConstraint
from parity import pair

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}

LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.integers(0, 50).map(lambda low: {"type": "integer", "minimum": low, "maximum": low + 20}),
    st.lists(st.text("abcXYZ é日", min_size=1, max_size=5), min_size=1, max_size=4, unique=True).map(
        lambda words: {"enum": words}
    ),
    st.sampled_from(["^[a-c]{2,4}$", r"^\d{4}-\d{2}$", "^(yes|no)$"]).map(lambda p: {"type": "string", "pattern": p}),
    st.integers(1, 6).map(lambda n: {"type": "string", "maxLength": n}),
)


def containers(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    arrays = st.tuples(inner, st.integers(0, 2)).map(
        lambda t: {"type": "array", "items": t[0], "minItems": t[1], "maxItems": t[1] + 1}
    )
    objects = st.dictionaries(st.sampled_from(["a", "b", "long name", "é"]), inner, min_size=1, max_size=3).map(
        lambda p: {"type": "object", "properties": p, "required": sorted(p), "additionalProperties": False}
    )
    return arrays | objects


SCHEMAS = st.recursive(LEAVES, containers, max_leaves=4)


@settings(max_examples=100)
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_every_answer_validates(schema: dict[str, Any], seed: int) -> None:
    checkpoint = pair("e2b")
    answer = g4.generate(
        checkpoint.model, checkpoint.processor, "Say it", schema=schema, max_tokens=400, temperature=1.0, seed=seed
    )
    assert answer.finish_reason == "stop"
    jsonschema.validate(json.loads(answer.text), schema)


def test_a_schema_may_be_text_and_greedy_answers_follow_it_too() -> None:
    checkpoint = pair("dense")
    answer = g4.generate(
        checkpoint.model, checkpoint.processor, "Who?", schema=json.dumps(PERSON), temperature=0, max_tokens=200
    )
    jsonschema.validate(json.loads(answer.text), PERSON)
    assert "\n" not in answer.text


def test_after_a_stop_in_the_middle_the_cache_holds_what_was_handed_out() -> None:
    checkpoint = pair("e2b")
    model, tokenizer = checkpoint.model, checkpoint.processor.tokenizer
    cache = model.make_cache()
    constraint = SchemaConstraint(PERSON, tokenizer, model.config.text.vocab_size, [1])
    stream = g4.generate_tokens(model, [40, 41, 42], max_tokens=50, cache=cache, constraint=constraint)
    tokens = [next(stream) for _ in range(4)]
    stream.close()
    assert {layer_cache.offset for layer_cache in cache} == {3 + len(tokens)}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("{", "the schema is not JSON"),
        ("[1]", "a JSON schema is an object, not list"),
        ({"type": "strin"}, "the schema cannot be followed at #/type: .*strin"),
        ({"$ref": "#/nowhere"}, "the schema cannot be followed"),
    ],
)
def test_a_schema_that_is_none_is_told_in_one_line(schema: Any, reason: str) -> None:
    checkpoint = pair("e2b")
    with pytest.raises(ValueError, match=reason) as error:
        g4.generate(checkpoint.model, checkpoint.processor, "Hi", schema=schema)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("other", [{"stop": "x"}, {"tools": [{"name": "weather", "parameters": {}}]}])
def test_a_schema_excludes_what_is_not_json(other: dict[str, Any]) -> None:
    checkpoint = pair("e2b")
    with pytest.raises(ValueError, match="leave them out"):
        g4.generate(checkpoint.model, checkpoint.processor, "Hi", schema=PERSON, **other)


def test_ask_with_a_schema_prints_json_and_nothing_else(tmp_path: Any) -> None:
    file = tmp_path / "person.json"
    file.write_text(json.dumps(PERSON))
    done = run("ask", "Who?", "--schema", str(file), "-m", str(pair("e2b").folder), "--max-tokens", "300")
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(done.stdout), PERSON)
    file.write_text("{")
    done = run("ask", "Who?", "--schema", str(file), "-m", str(pair("e2b").folder))
    assert done.returncode == 1
    assert "the schema is not JSON" in done.stderr
