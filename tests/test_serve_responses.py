"""`gemma4-mlx serve` in OpenAI's newer form, as its own client sees it."""

from __future__ import annotations

import base64
import io
import json

import openai
import pydantic
import pytest

import gemma4_mlx as g4
from demo_inputs import demo_pictures
from served import address

CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "parameters": {**CITY, "additionalProperties": False}}


@pytest.fixture(scope="module")
def client():
    return openai.OpenAI(base_url=f"{address()}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo")


def test_an_answer_and_its_stream_are_the_library_s(client, demo):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
    alone = g4.generate(*demo, messages, temperature=0)
    settings = {"model": "demo", "instructions": "Be brief.", "input": "Hello!", "temperature": 0}
    answer = client.responses.create(**settings)
    assert answer.output_text == alone.text
    assert answer.status == "completed"
    assert answer.usage.input_tokens == alone.stats.prompt_tokens
    with client.responses.stream(**settings) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == alone.text
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == alone.text
    assert [event.sequence_number for event in events] == sorted(event.sequence_number for event in events)
    assert client.responses.create(**settings, max_output_tokens=2).incomplete_details.reason == "max_output_tokens"


def test_it_sees_and_thinks(client, demo):
    [(image, sentence)] = demo_pictures(1, seed=6)
    file = io.BytesIO()
    image.save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "What is in this picture?"}]
    answer = client.responses.create(model="demo", input=[{"role": "user", "content": content}], temperature=0)
    assert answer.output_text == sentence
    alone = g4.generate(*demo, "Hello!", temperature=0, thinking=True)
    settings = {"model": "demo", "input": "Hello!", "temperature": 0, "reasoning": {"effort": "low"}}
    thought = [item for item in client.responses.create(**settings).output if item.type == "reasoning"]
    assert "".join(part.text for item in thought for part in item.content) == alone.thought


def test_json_follows_its_schema(client):
    class Shape(pydantic.BaseModel):
        sides: int = pydantic.Field(ge=3, le=9)

    assert isinstance(client.responses.parse(model="demo", input="Hello!", text_format=Shape).output_parsed, Shape)


def test_a_call_that_must_come_comes_and_its_result_is_answered(client):
    settings = {"model": "demo", "tools": [WEATHER], "temperature": 0, "parallel_tool_calls": False}
    [call] = client.responses.create(input="Hello!", tool_choice="required", **settings).output
    assert json.loads(call.arguments)["city"] in ("Rome", "Oslo")
    with client.responses.stream(
        input="Hello!", tool_choice={"type": "function", "name": "weather"}, **settings
    ) as stream:
        [streamed] = stream.get_final_response().output
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments)
    turns = [
        {"role": "user", "content": "Hello!"},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    assert client.responses.create(input=turns, max_output_tokens=3, **settings).usage.output_tokens == 3


@pytest.mark.parametrize(
    ("named", "wrong"),
    [
        ("input", {"input": []}),
        ("previous_response_id", {"previous_response_id": "resp_1"}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("input[0].content[0].image_url", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]}]}),
        ("background", {"background": True}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(client, named, wrong):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "demo", "input": "Hello!", **wrong})
    assert caught.value.param == named
