"""Functions from a file as tools: their descriptions, the check of arguments, results and errors, and the rounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from gemma4_mlx.app.chat.conversation import Conversation
from gemma4_mlx.app.tools.tool_rounds import MOST_ROUNDS, Permission, answer_in_rounds
from gemma4_mlx.app.tools.tools_file import load_tools
from hypothesis import given
from hypothesis import strategies as st

import gemma4_mlx as g4
from call_texts import events
from command_line import checkpoint, run
from gemma4_mlx.errors import InputError
from gemma4_mlx.generation import Generation, ToolCall
from gemma4_mlx.generation.channels import ChannelParser, Chunk
from gemma4_mlx.generation.tool_functions import Tools

TOOLS = '''
"""Tools for a test."""
import dataclasses
from enum import Enum
from json import dumps  # not a tool
from typing import Literal, Optional


class Unit(Enum):
    celsius = "C"
    kelvin = "K"


@dataclasses.dataclass
class Day:
    degrees: float
    note: str


def weather(city: str, days: int = 1, unit: Unit = Unit.celsius, at: Optional[list[int]] = None) -> dict:
    """The weather in a city,
    day by day.

    Args:
        city: where, such as
            Paris or Rome
        days (int): how many: 1 to 7

    Returns:
        degrees
    """
    print("asked for", city)
    return {"city": city, "days": days, "unit": unit.name, "at": at}


def half(number: float) -> float:
    """Half of a number."""
    return number / 2


def mood(of: "Literal['good', 'bad']") -> Day:
    """A mood."""
    return Day(degrees=float("nan"), note=of)


def broken() -> str:
    """Always fails."""
    raise RuntimeError("the sensor\\nis off")


def _private(x):
    pass
'''


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "tools.py"
    path.write_text(TOOLS)
    return path


@pytest.fixture
def tools(file) -> Tools:
    return load_tools(file)


def test_functions_are_described_by_their_types_and_docstrings(tools):
    assert tools.names == ["weather", "half", "mood", "broken"]
    assert tools.descriptions[0] == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city, day by day.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "where, such as Paris or Rome"},
                    "days": {"type": "integer", "description": "how many: 1 to 7"},
                    "unit": {"type": "string", "enum": ["C", "K"]},
                    "at": {"type": "array", "items": {"type": "integer"}, "nullable": True},
                },
                "required": ["city"],
            },
        },
    }
    assert tools.descriptions[2]["function"]["parameters"]["properties"] == {
        "of": {"type": "string", "enum": ["good", "bad"]}
    }


def test_descriptions_are_those_of_transformers(file):
    from transformers.utils import get_json_schema

    documented = (
        'def half(number: float) -> float:\n    """Half of a number.\n\n    Args:\n        number: it\n    """\n'
    )
    scope: dict = {}
    exec(documented, scope)
    theirs = get_json_schema(scope["half"])["function"]
    file.write_text(documented)
    ours = load_tools(file).descriptions[0]["function"]
    assert {key: theirs[key] for key in ours} == ours


def test_a_call_gets_its_arguments_as_the_types_want_them(tools, capsys):
    result = tools.call("weather", {"city": "Rome", "days": 2.0, "unit": "K", "at": [9, 12]})
    assert result == {"city": "Rome", "days": 2, "unit": "kelvin", "at": [9, 12]}
    assert capsys.readouterr() == ("", "asked for Rome\n")
    assert tools.call("half", {"number": 3}) == {"value": 1.5}
    assert tools.call("mood", {"of": "bad"}) == {"degrees": None, "note": "bad"}


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("weather", {}, "city must be given"),
        ("weather", {"city": 3}, "city must be a text, not 3"),
        ("weather", {"city": "Rome", "days": 1.5}, "days must be a whole number, not 1.5"),
        ("weather", {"city": "Rome", "days": True}, "days must be a whole number, not true"),
        ("weather", {"city": "Rome", "unit": "F"}, "unit must be one of C, K, not F"),
        ("weather", {"city": "Rome", "at": ["noon"]}, 'at[0] must be a whole number, not "noon"'),
        ("weather", {"city": "Rome", "at": "noon"}, "at must be a list"),
        ("weather", {"town": "Rome", "city": "Rome"}, "there is no parameter town; there are: city, days, unit, at"),
        ("mood", {"of": "odd"}, "of must be one of good, bad, not odd"),
        ("broken", {}, "RuntimeError: the sensor is off"),
        ("nothing", {}, "there is no function nothing; there are: weather, half, mood, broken"),
    ],
)
def test_what_goes_wrong_is_told_to_the_model(tools, name, arguments, error):
    assert tools.call(name, arguments) == {"error": error}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["city", "days", "unit", "at", "of", "number", "x"]), json_values))
def test_whatever_a_model_gives_the_result_is_json_the_template_takes(arguments):
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tools.py"
        path.write_text(TOOLS)
        tools = load_tools(path)
    for name in tools.names:
        result = tools.call(name, arguments)
        assert isinstance(result, dict)
        json.dumps(result, allow_nan=False)


def test_a_list_and_a_dict_may_hold_anything_or_one_type(file):
    file.write_text(
        "from typing import Any\n"
        "def f(any: dict[str, Any], all: list[Any], each: dict[str, float]):\n    'x'\n    return any, all, each\n"
    )
    tools = load_tools(file)
    anything = {"any": {"a": [None]}, "all": [{}, 1], "each": {"b": 1}}
    assert tools.call("f", anything) == {"value": [{"a": [None]}, [{}, 1], {"b": 1.0}]}
    assert tools.call("f", {**anything, "each": {"b": "1"}}) == {"error": 'each.b must be a number, not "1"'}


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("x = 1\n1 / 0\n", r"tools\.py line 2 raised ZeroDivisionError: division by zero"),
        ("def f(:\n", r"tools\.py.* raised SyntaxError"),
        ("import sys; sys.exit(3)\n", r"tools\.py line 1 raised SystemExit: 3"),
        ("x = 1\n", r"tools\.py has no functions"),
        ("def f(a: int): pass\n", "f has no docstring"),
        ("def f(a):\n    'x'\n", "f has no type for a"),
        ("def f(a: set):\n    'x'\n", "f: a is set: use str"),
        ("def f(a: int | str):\n    'x'\n", "f: a is"),
        ("def f(a: dict[int, str]):\n    'x'\n", "f: a is dict"),
        ("def f(a: dict[str, set]):\n    'x'\n", "f: a is set: use str"),
        ("def f(a: 'Nothing'):\n    'x'\n", "f has a type that means nothing"),
        ("def f(*a: int):\n    'x'\n", r"f takes \*a"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_that_says_why(file, source, error):
    file.write_text(source)
    with pytest.raises(InputError, match=error) as raised:
        load_tools(file)
    assert "\n" not in str(raised.value) or "SyntaxError" in error


def test_a_file_of_tools_that_raises_ends_the_command_with_one_line(file):
    file.write_text("raise RuntimeError('no key')\n")
    for command in (["chat"], ["ask", "hello"]):
        finished = run(*command, "--tools", file, model=checkpoint(), stdin="")
        assert finished.returncode == 1
        assert finished.stdout == ""
        assert finished.stderr.count("\n") == 1
        assert "line 1 raised RuntimeError: no key" in finished.stderr


def generation(written: str) -> Generation:
    """What the model would have been heard to say, had it written this: read by the parser that reads real answers."""
    parser = ChannelParser()
    chunks: list[Chunk] = []
    for number, event in enumerate(events(written)):
        chunks += parser.control(event) if number % 2 else parser.text(event)
    chunks += parser.finish()
    calls: list[ToolCall] = [chunk.tool_call for chunk in chunks if chunk.tool_call is not None]
    text = "".join(chunk.text for chunk in chunks if chunk.kind == "answer")
    thought = "".join(chunk.text for chunk in chunks if chunk.kind == "thought")
    return Generation(text, thought, calls, [], "tool_call" if calls else "stop", None, parser.unread_calls)


HALF = ToolCall("half", {"number": 8})
CALL = "<|tool_call>call:half{number:8}<tool_call|>"


def test_calls_are_run_and_their_results_read_until_the_model_answers(tools, capsys):
    conversation = Conversation()
    exchange = conversation.begin("half of half of 8?", [])
    messages = conversation.messages()
    prompts, written = [], iter([f"<|channel>thought\ntwice<channel|>{CALL}", f"{CALL}{CALL}", "It is 2."])
    processor = g4.load(checkpoint())[1]

    def generate(replies):
        # The real processor must be able to read what is handed on to it.
        prompts.append(processor.render([*messages, *replies], tools=tools.descriptions))
        return generation(next(written))

    def keep(replies):
        exchange.replies = replies

    answer = answer_in_rounds(generate, tools, lambda call: True, keep)
    assert answer.text == "It is 2."
    assert [message["role"] for message in exchange.replies] == [
        "assistant",
        "tool",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    assert exchange.replies[1]["content"] == {"value": 4.0}
    assert exchange.replies[0]["reasoning_content"] == "twice"
    assert "response:half{value:4.0}" in prompts[1]
    assert prompts[2].count("call:half") == 3
    identifiers = [call["id"] for message in exchange.replies for call in message.get("tool_calls", [])]
    assert identifiers == [m["tool_call_id"] for m in exchange.replies if m["role"] == "tool"]
    assert len(set(identifiers)) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "half(number=8)" in shown.err


def test_a_call_that_is_not_allowed_is_told_to_the_model_and_not_run(tools):
    kept = []
    written = iter([CALL, "then not"])
    answer_in_rounds(lambda replies: generation(next(written)), tools, lambda call: False, kept.append)
    assert kept[-1][1]["content"] == {"error": "the user did not allow this call"}


def test_rounds_without_end_are_stopped(tools, capsys):
    kept = []
    answer_in_rounds(lambda replies: generation(CALL), tools, lambda call: True, kept.append)
    assert sum(message["role"] == "tool" for message in kept[-1]) == MOST_ROUNDS
    assert kept[-1][-1]["role"] == "assistant"
    assert "tool_calls" not in kept[-1][-1]
    assert f"stopped after {MOST_ROUNDS} rounds" in capsys.readouterr().err


def test_calls_of_a_model_that_has_no_tools_are_ignored():
    kept = []
    answer_in_rounds(lambda replies: generation(f"hm {CALL}"), None, lambda call: True, kept.append)
    assert kept == [[{"role": "assistant", "content": "hm "}]]


def test_without_anybody_to_ask_nothing_is_run(capsys):
    assert not Permission(granted=False)(HALF)
    assert "--yes" in capsys.readouterr().err
    assert Permission(granted=True)(HALF)


def test_a_call_that_cannot_be_read_is_not_run_and_said(tools, capsys):
    answer = answer_in_rounds(
        lambda replies: generation("<|tool_call>call:half{number:8:9}<tool_call|>"),
        tools,
        lambda name: pytest.fail("run without a call"),
        lambda replies: None,
    )
    assert answer.text == "call:half{number:8:9}"
    assert "cannot be read" in capsys.readouterr().err
