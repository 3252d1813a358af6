"""`gemma4-mlx serve` as OpenAI's own client sees it: answers, streams, pictures, sound, tools, JSON, errors."""

from __future__ import annotations

import base64
import io
import json
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pydantic
import pytest

import gemma4_mlx as g4
from command_line import only_line, run
from demo_inputs import RECORDINGS, demo_pictures
from gemma4_mlx.speech.prompts import speech_prompt
from served import address, metric, served, wait_until_idle

HELLO = [{"role": "user", "content": "Hello!"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def client():
    return openai.OpenAI(base_url=f"{address()}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo")


def test_the_model_is_listed_and_a_wrong_name_is_not_found(client):
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")


def test_an_answer_is_the_library_s_and_its_tokens_are_counted(client, demo):
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "What is MLX?"}]
    answer = client.chat.completions.create(model="any", messages=messages, temperature=0, max_completion_tokens=9)
    alone = g4.generate(*demo, messages, temperature=0, max_tokens=9)
    assert answer.choices[0].message.content == alone.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 9
    assert answer.usage.prompt_tokens == alone.stats.prompt_tokens
    again = client.chat.completions.create(model="any", messages=messages, temperature=0, max_tokens=9)
    assert again.usage.prompt_tokens_details.cached_tokens == alone.stats.prompt_tokens - 1
    assert again.choices[0].message.content == alone.text


def test_a_stream_adds_up_to_the_answer_and_ends_with_its_usage(client):
    settings = {"model": "demo", "messages": HELLO, "temperature": 0}
    whole = client.chat.completions.create(**settings)
    stream = list(client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in stream if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert stream[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in stream}) == 1


def test_eight_at_once_get_what_each_gets_alone(client):
    questions = ["How do I chat?", "What is MLX?", "Hello!", "Does my data leave this Mac?"] * 2

    def ask(question: str) -> str:
        stream = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": question}], temperature=0, max_tokens=24, stream=True
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    alone = [ask(question) for question in questions[:4]] * 2
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, questions)) == alone


def test_a_seed_makes_an_answer_repeatable_and_stop_strings_end_it(client):
    def ask(**more) -> str:
        answer = client.chat.completions.create(model="demo", messages=HELLO, max_tokens=12, **more)
        return answer.choices[0].message.content

    assert ask(seed=5, temperature=2, top_p=0.99) == ask(seed=5, temperature=2, top_p=0.99)
    assert ask(temperature=0, stop=[" me"]) == "Hello! Ask"
    assert ask(seed=5, temperature=2, extra_body={"top_k": 1}) == ask(temperature=0)


def test_it_sees(client):
    [(image, sentence)] = demo_pictures(1, seed=4)
    file = io.BytesIO()
    image.save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is in this picture?"}]
    answer = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": content}], temperature=0
    )
    assert answer.choices[0].message.content == sentence


def test_it_hears(client):
    recording = RECORDINGS[0]
    data = base64.b64encode(recording.path.read_bytes()).decode()
    content = [
        {"type": "text", "text": speech_prompt("English", None)},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
    ]
    answer = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": content}], temperature=0
    )
    assert answer.choices[0].message.content == recording.transcript


def test_a_required_call_comes_streamed_or_not_and_its_result_is_answered(client):
    settings = {"model": "demo", "tools": [WEATHER], "seed": 1, "parallel_tool_calls": False}
    answer = client.chat.completions.create(messages=HELLO, tool_choice="required", **settings).choices[0]
    assert answer.finish_reason == "tool_calls"
    assert answer.message.content is None
    [call] = answer.message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")
    named = {"type": "function", "function": {"name": "weather"}}
    with client.chat.completions.stream(messages=HELLO, tool_choice=named, **settings) as stream:
        [streamed] = stream.get_final_completion().choices[0].message.tool_calls
    assert (streamed.function.name, streamed.function.arguments) == ("weather", call.function.arguments)
    turns = [
        *HELLO,
        answer.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    last = client.chat.completions.create(messages=turns, max_tokens=5, **settings)
    assert last.usage.completion_tokens == 5


def test_json_follows_its_schema_also_after_a_thought(client):
    class Shape(pydantic.BaseModel):
        sides: int = pydantic.Field(ge=3, le=9)
        name: str = pydantic.Field(max_length=8)

    parsed = client.chat.completions.parse(model="demo", messages=HELLO, response_format=Shape, seed=2)
    assert isinstance(parsed.choices[0].message.parsed, Shape)
    free = client.chat.completions.create(
        model="demo", messages=HELLO, response_format={"type": "json_object"}, seed=2, max_tokens=400
    )
    assert free.choices[0].finish_reason == "length" or isinstance(json.loads(free.choices[0].message.content), dict)


def test_thoughts_come_beside_the_answer(client, demo):
    thought = g4.generate(*demo, HELLO, thinking=True, temperature=0).thought
    for more in ({"reasoning_effort": "high"}, {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}):
        message = client.chat.completions.create(model="demo", messages=HELLO, temperature=0, **more).choices[0].message
        assert (getattr(message, "reasoning_content", None) or "") == thought
    settings = {"model": "demo", "messages": HELLO, "temperature": 0, "reasoning_effort": "low"}
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**settings, stream=True)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == thought


@pytest.mark.parametrize(
    ("named", "wrong"),
    [
        ("logprobs", {"logprobs": True}),
        ("n", {"n": 2}),
        ("temperature", {"temperature": 3}),
        ("max_tokens", {"max_tokens": 0}),
        ("frequency_penalty", {"frequency_penalty": 0.5}),
        ("tool_choice", {"tool_choice": "required"}),
        ("messages", {"messages": []}),
        ("messages[0].role", {"messages": [{"role": "wizard", "content": ""}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"type": "image", "image": "x"}]}]}),
        ("hocus_pocus", {"extra_body": {"hocus_pocus": 1}}),
        ("reasoning_effort", {"reasoning_effort": "immense"}),
        (None, {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}),
        ("messages", {"messages": [{"role": "user", "content": "Hello! " * 9000}]}),
    ],
)
def test_what_is_wrong_is_a_bad_request_that_names_it(client, named, wrong):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**{"model": "demo", "messages": HELLO, "stream": stream, **wrong})
        assert caught.value.param == named
        assert caught.value.type == "invalid_request_error"


def test_a_closed_connection_frees_its_place_at_once(client):
    written = metric("generated_tokens_total")
    settings = {"model": "demo", "temperature": 2.0, "extra_body": {"top_k": 0}, "max_tokens": 4000, "top_p": 1}
    for _ in range(3):
        stream = client.chat.completions.create(messages=HELLO, stream=True, **settings)
        next(iter(stream))
        stream.close()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(
            messages=[{"role": "user", "content": "Hello! " * 2000}], **settings
        )
    wait_until_idle()
    assert metric("generated_tokens_total") - written < 1000


def test_too_many_at_once_are_told_when_to_come_again():
    process, url = served("--parallel", "1")
    try:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        long = [{"role": "user", "content": "Hello! " * 2000}]
        refused = []

        def ask(_: int) -> None:
            try:
                client.chat.completions.create(model="demo", messages=long, max_tokens=1)
            except openai.RateLimitError as error:
                refused.append(int(error.response.headers["retry-after"]))

        with ThreadPoolExecutor(14) as pool:
            list(pool.map(ask, range(14)))
        assert len(refused) == 5
        assert min(refused) >= 1
    finally:
        process.kill()
        process.wait()


def test_on_sigterm_what_runs_is_finished_and_the_end_is_zero():
    process, url = served()
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    settings = {"model": "demo", "messages": HELLO, "temperature": 0}
    stream = client.chat.completions.create(**settings, stream=True)
    text = next(stream).choices[0].delta.content
    threading.Timer(0.05, process.send_signal, [signal.SIGTERM]).start()
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        time.sleep(0.02)
    assert text == "Hello! Ask me about gemma4-mlx."
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"Traceback" not in said
    assert b"Ask me" not in said


def test_a_port_that_is_taken_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished: subprocess.CompletedProcess[str] = run("serve", "-m", "demo", "--port", str(port))
    assert finished.returncode == 1
    assert f"port {port} is taken" in only_line(finished.stderr)
