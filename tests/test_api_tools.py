"""Functions as tools of a script: `tools=[function]`, `Generation.message`, and the loop of `run_tools`."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest

import gemma4_mlx as g4
from gemma4_mlx.processing.tool_functions import as_json
from scripted_model import ScriptedModel

PARIS = '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>'
OSLO = '<|tool_call>call:get_weather{city:<|"|>Oslo<|"|>}<tool_call|>'


def get_weather(city: str, days: int = 1) -> dict:
    """The weather in a city.

    Args:
        city: its name
    """
    if city == "Oslo":
        raise FileNotFoundError("no station there")
    return {"degrees": 21}


DESCRIPTION = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "its name"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo")


@pytest.fixture
def writing(demo):
    """Model and processor; the model writes these texts, one a prompt."""
    model, processor = demo
    return lambda *texts: (ScriptedModel(processor, model.config, *texts), processor)


def test_a_function_is_told_to_the_model_as_its_description_is(demo):
    _, processor = demo
    assert processor.render("Hi", tools=[get_weather]) == processor.render("Hi", tools=[DESCRIPTION])
    both = processor.render("Hi", tools=[get_weather, {**DESCRIPTION["function"], "name": "other"}])
    assert "get_weather" in both
    assert "other" in both


def undocumented(city: str) -> str: ...


def untyped(city) -> str:
    """A city."""


async def later(city: str) -> str:
    """A city."""


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        (undocumented, "undocumented has no docstring"),
        (untyped, "untyped has no type for city: write city: str"),
        (later, "later is async"),
        (lambda city: city, "<lambda> is no function"),
        (functools.partial(get_weather, "Paris"), "partial is no function"),
        (dict, "dict is no function"),
        ("get_weather", "tool 1 needs a JSON description"),
    ],
)
def test_what_is_no_tool_is_refused_by_name(demo, tool, says):
    with pytest.raises(ValueError, match=says):
        g4.generate(*demo, "Hi", tools=[tool])


def test_an_answer_and_its_results_go_into_the_history_by_the_calls_ids(writing):
    model, processor = writing(PARIS + OSLO, "It is mild.")
    messages = [{"role": "user", "content": "Where is it warm?"}]
    asked = g4.generate(model, processor, messages, tools=[get_weather], temperature=0)
    first, second = asked.tool_calls
    assert asked.finish_reason == "tool_call"
    assert first.id != second.id
    messages.append(asked.message())
    assert [call["id"] for call in messages[-1]["tool_calls"]] == [first.id, second.id]
    messages.append({"role": "tool", "tool_call_id": second.id, "content": "cold"})
    messages.append({"role": "tool", "tool_call_id": first.id, "content": {"degrees": 21}})
    prompt = processor.render(messages, tools=[get_weather])
    assert prompt.index("degrees:21") < prompt.index("cold")  # in the order of the calls
    out = g4.generate(model, processor, messages, tools=[get_weather], temperature=0)
    assert out.message() == {"role": "assistant", "content": "It is mild."}


def test_a_call_is_the_same_whatever_its_id():
    assert g4.ToolCall("f", {"a": 1}) == g4.ToolCall("f", {"a": 1})
    assert str(g4.ToolCall("f", {})) == "ToolCall(name='f', arguments={})"


def test_functions_are_run_until_the_model_has_said_all(writing):
    messages = [{"role": "user", "content": "Where is it warm?"}]
    out = g4.run_tools(
        *writing(f"<|channel>thought\nHm.<channel|>{PARIS}", OSLO, "In Paris."), messages, [get_weather], temperature=0
    )
    assert str(out) == "In Paris."
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert messages[1]["reasoning_content"] == "Hm."
    assert messages[2]["content"] == {"degrees": 21}
    assert messages[4]["content"] == {"error": "FileNotFoundError: no station there"}
    assert messages[2]["tool_call_id"] == messages[1]["tool_calls"][0]["id"]
    assert messages[5] == {"role": "assistant", "content": "In Paris."}


def test_each_call_is_asked_about_and_a_no_is_told_to_the_model(writing):
    asked = []

    def may_run(call: g4.ToolCall) -> bool:
        asked.append((call.name, call.arguments))
        return call.arguments["city"] != "Paris"

    messages = [{"role": "user", "content": "Where is it warm?"}]
    g4.run_tools(*writing(PARIS + OSLO, "Who knows."), messages, [get_weather], may_run, temperature=0)
    assert asked == [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Oslo"})]
    assert messages[2]["content"] == {"error": "the user did not allow this call"}
    assert messages[3]["content"] == {"error": "FileNotFoundError: no station there"}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("<|tool_call>call:get_weather{}<tool_call|>", "city must be given"),
        ("<|tool_call>call:get_weather{city:3}<tool_call|>", "city must be a text, not 3"),
        ("<|tool_call>call:get_time{}<tool_call|>", "there is no function get_time; there are: get_weather"),
    ],
)
def test_a_call_that_fits_no_function_is_told_to_the_model_and_not_asked_about(writing, call, error):
    messages = [{"role": "user", "content": "Hi"}]
    g4.run_tools(*writing(call, "Sorry."), messages, [get_weather], temperature=0)
    assert messages[2]["content"] == {"error": error}
    assert messages[3]["content"] == "Sorry."


def test_a_model_that_never_stops_calling_is_stopped_and_its_history_can_be_gone_on_from(writing):
    model, processor = writing(PARIS, PARIS, PARIS, "Enough.")
    messages = [{"role": "user", "content": "Hi"}]
    out = g4.run_tools(model, processor, messages, [get_weather], max_rounds=2, temperature=0)
    assert [call.name for call in out.tool_calls] == ["get_weather"]
    assert messages[-1]["content"] == {"error": "not run: there were too many rounds of calls"}
    messages.append({"role": "user", "content": "And?"})
    assert str(g4.generate(model, processor, messages, temperature=0)) == "Enough."


def test_an_interrupt_in_a_function_leaves_the_rounds_that_were_whole(writing):
    def stop(city: str) -> str:
        """Ends the program."""
        raise KeyboardInterrupt

    messages = [{"role": "user", "content": "Hi"}]
    calls = PARIS, PARIS.replace("get_weather", "stop")
    with pytest.raises(KeyboardInterrupt):
        g4.run_tools(*writing(*calls), messages, [get_weather, stop], temperature=0)
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]


def test_no_call_is_run_of_an_answer_that_was_asked_to_end(writing):
    ran = []

    def note(city: str) -> str:
        """Notes a city."""
        ran.append(city)
        return city

    steps = iter(range(1000))
    call = PARIS.replace("get_weather", "note")
    out = g4.run_tools(
        *writing(call + "and so on" * 20), "Hi", [note], temperature=0, should_stop=lambda: next(steps) > 40
    )
    assert out.finish_reason == "stopped"
    assert (bool(out.tool_calls), ran) == (True, [])


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([DESCRIPTION], "tool 1 is a description, which cannot be run"),
        ([get_weather, get_weather], "two tools called get_weather"),
        (get_weather, "tools are a function: give a list"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(demo, tools, says):
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(ValueError, match=says):
        g4.run_tools(*demo, messages, tools)
    assert len(messages) == 1


def test_results_are_told_in_plain_json():
    class Model:
        def model_dump(self) -> dict:
            return {"unit": "C"}

    @dataclasses.dataclass
    class Day:
        degrees: float

    result = {
        "a": np.float32(1.5),
        "b": np.arange(2),
        "c": {3},
        "d": Model(),
        "e": [Day(21.0)],
        "f": Path("x"),
        "g": dict,
    }
    assert as_json(result) == {
        "a": 1.5,
        "b": [0, 1],
        "c": [3],
        "d": {"unit": "C"},
        "e": [{"degrees": 21.0}],
        "f": "x",
        "g": "<class 'dict'>",
    }
