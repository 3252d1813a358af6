"""`gemma4-mlx serve` as Anthropic's own client sees it."""

from __future__ import annotations

import base64
import io

import anthropic
import pytest

import gemma4_mlx as g4
from demo_inputs import demo_pictures
from served import address

HELLO = [{"role": "user", "content": "Hello!"}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "now", "input_schema": {**CITY, "additionalProperties": False}}
SETTINGS = {"model": "demo", "max_tokens": 40}


@pytest.fixture(scope="module")
def client():
    return anthropic.Anthropic(base_url=address(), api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo")


def greedy(**more) -> dict:
    return {**SETTINGS, "messages": HELLO, "extra_body": {"temperature": 0}, **more}


def test_an_answer_and_its_stream_are_the_library_s(client, demo):
    system = [{"type": "text", "text": "Be brief."}]
    alone = g4.generate(*demo, [{"role": "system", "content": "Be brief."}, *HELLO], temperature=0, max_tokens=40)
    answer = client.messages.create(**greedy(system=system))
    assert answer.content[0].text == alone.text
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens == alone.stats.prompt_tokens
    assert client.messages.count_tokens(model="demo", system=system, messages=HELLO).input_tokens == (
        alone.stats.prompt_tokens
    )
    with client.messages.stream(**greedy(system=system)) as stream:
        assert "".join(stream.text_stream) == alone.text
        assert stream.get_final_message().usage.output_tokens == answer.usage.output_tokens


def test_an_answer_says_why_it_ended(client):
    assert client.messages.create(**greedy(max_tokens=3)).stop_reason == "max_tokens"
    stopped = client.messages.create(**greedy(stop_sequences=[" me"]))
    assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text) == (
        "stop_sequence",
        " me",
        "Hello! Ask",
    )


def test_it_sees(client):
    [(image, sentence)] = demo_pictures(1, seed=5)
    file = io.BytesIO()
    image.save(file, "PNG")
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(file.getvalue()).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is in this picture?"}]
    assert client.messages.create(**greedy(messages=[{"role": "user", "content": content}])).content[0].text == sentence


def test_a_call_that_must_come_comes_and_its_result_is_answered(client):
    settings = greedy(tools=[WEATHER], max_tokens=60)
    one = {"disable_parallel_tool_use": True}
    answer = client.messages.create(**settings, tool_choice={"type": "any", **one})
    assert answer.stop_reason == "tool_use"
    [call] = answer.content
    assert call.input["city"] in ("Rome", "Oslo")
    with client.messages.stream(**settings, tool_choice={"type": "tool", "name": "weather", **one}) as stream:
        [streamed] = stream.get_final_message().content
    assert (streamed.name, streamed.input) == (call.name, call.input)
    turns = [
        *HELLO,
        {"role": "assistant", "content": [call.model_dump(exclude_none=True)]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]},
    ]
    assert client.messages.create(**{**settings, "messages": turns, "max_tokens": 4}).usage.output_tokens == 4


def test_thoughts_are_blocks_of_their_own(client, demo):
    alone = g4.generate(*demo, HELLO, temperature=0, max_tokens=40, thinking=True)
    answer = client.messages.create(**greedy(thinking={"type": "adaptive"}))
    assert "".join(block.thinking for block in answer.content if block.type == "thinking") == alone.thought
    assert "".join(block.text for block in answer.content if block.type == "text") == alone.text


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"messages": []}, "messages"),
        ({"extra_body": {"temperature": 2}}, "temperature"),
        ({"extra_body": {"container": "x"}}, "container"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice.name"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}
                ]
            },
            "no address",
        ),
        ({"messages": [{"role": "user", "content": "Hello! " * 9000}]}, "context"),
    ],
)
def test_what_is_wrong_is_a_bad_request(client, wrong, said):
    with pytest.raises(anthropic.BadRequestError, match=said) as caught:
        client.messages.create(**greedy(**wrong))
    assert caught.value.body["type"] == "error"
