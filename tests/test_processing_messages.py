"""Chats that cannot be used: each is one clear line, and says what to do."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4_mlx.errors import Gemma4Error, InputError
from processing_reference import ids_of, our_processor

USER = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}
CALLING = {
    "role": "assistant",
    "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": {}}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "nothing"}
SOUND = {"type": "audio", "audio": np.zeros(1600, np.float32)}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


REFUSED: dict[str, tuple[Any, str]] = {
    "no messages": ([], "message list is empty"),
    "a single dict": (USER, "give a string or a list of messages"),
    "a number": (7, "give a string or a list of messages"),
    "a message that is a string": (["Hello"], "message 1 is a str"),
    "no role": ([{"content": "Hello"}], "message 1 has role None"),
    "an unknown role": ([{"role": "robot", "content": "Hello"}], "message 1 has role 'robot'"),
    "an unknown part": ([user({"type": "smell", "smell": "rose"})], "part of type 'smell'"),
    "a text part without text": ([user({"type": "text"})], "text part without text"),
    "an image part without an image": ([user({"type": "image"})], "a part with 0 sources"),
    "an image part with two images": (
        [user({"type": "image", "image": "a.png", "url": "b.png"})],
        "a part with 2 sources",
    ),
    "Ollama's pictures that are no list": ([{**USER, "images": "AAAA"}], "images that are a str"),
    "a tool result without a call": ([USER, RESULT], "answers no tool call"),
    "a tool result after an answer": ([USER, ANSWER, RESULT], "answers no tool call"),
    "more results than calls": ([USER, CALLING, RESULT, RESULT], "message 4 .tool. answers no tool call"),
    "a result of another call": ([USER, CALLING, {**RESULT, "tool_call_id": "c2"}], "call 'c2', which was not made"),
    "a last call without a result": ([USER, CALLING], "the last tool call has no result"),
    "a call without a name": (
        [USER, {"role": "assistant", "tool_calls": [{"function": {}}]}],
        "a tool call without a name",
    ),
    "calls that are no list": ([USER, {"role": "assistant", "tool_calls": {"a": 1}}], "tool_calls that are not a list"),
    "a tool result that is no JSON": (
        [USER, CALLING, {**RESULT, "content": {"x": object()}}],
        "message 3 .tool. holds a result that is not plain JSON",
    ),
    "a thought that is no JSON": (
        [USER, {**ANSWER, "reasoning": {1, 2}}, USER],
        "message 2 .assistant. has a set as its thought",
    ),
    "content that is a number": ([{"role": "user", "content": 7}], "message 1 .user. has a int as content"),
    "arguments that are no JSON": (
        [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "{"}}]}, RESULT],
        "message 2 .assistant. calls look with arguments that are not JSON",
    ),
    "arguments that are no object": (
        [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "[1]"}}]}, RESULT],
        "message 2 .assistant. calls look with arguments that are a list",
    ),
    "a lone surrogate": ("caf\ud800", "not valid Unicode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_chat_that_cannot_be_used_is_refused_in_one_line(name: str) -> None:
    messages, words = REFUSED[name]
    with pytest.raises(InputError, match=words) as caught:
        our_processor()(messages)
    assert "\n" not in str(caught.value)


def test_a_sound_for_a_size_that_does_not_hear_says_which_sizes_do() -> None:
    with pytest.raises(InputError, match="e2b, e4b or 12b"):
        our_processor("dense")([user(SOUND)])


def test_nothing_is_opened_before_all_messages_are_read() -> None:
    missing = {"type": "image", "image": "/nowhere/at/all.png"}
    with pytest.raises(InputError, match="part of type 'smell'"):
        our_processor()([user(missing, {"type": "smell"})])
    with pytest.raises(InputError, match="does not exist"):
        our_processor()([user(missing)])


@pytest.mark.parametrize("image_tokens", [0, -70, 71, 281, 2240, None])
def test_a_budget_gemma_was_not_trained_with_is_a_value_error(image_tokens: Any) -> None:
    with pytest.raises(ValueError, match="70, 140, 280, 560, 1120"):
        our_processor()("Hello", image_tokens=image_tokens)


@pytest.mark.parametrize("tools", [["look"], [{}], [{"function": {"name": "look", "parameters": object()}}]])
def test_a_tool_that_is_no_json_description_is_a_value_error(tools: Any) -> None:
    with pytest.raises(ValueError, match="tool 1"):
        our_processor()("Hello", tools=tools)


def test_a_bare_function_description_is_a_tool_too() -> None:
    function = {"name": "look", "description": "Looks", "parameters": {"type": "object", "properties": {}}}
    wrapped = [{"type": "function", "function": function}]
    assert ids_of(our_processor()("Hello", tools=[function])) == ids_of(our_processor()("Hello", tools=wrapped))


def test_results_given_with_the_calls_let_the_model_or_the_user_go_on() -> None:
    answered = {**CALLING, "tool_responses": [{"name": "look", "response": "nothing"}]}
    our_processor()([USER, answered])
    our_processor()([USER, {**answered, "content": "Nothing there."}, USER])


def test_a_call_may_be_the_last_message_where_the_model_is_not_asked() -> None:
    assert our_processor().render([USER, CALLING], add_generation_prompt=False).endswith("<tool_call|>")


def test_two_calls_may_be_answered_in_any_order() -> None:
    calls = [{"id": identifier, "function": {"name": "look", "arguments": {}}} for identifier in ("a", "b")]
    results = [{"role": "tool", "tool_call_id": identifier, "content": identifier} for identifier in ("b", "a")]
    our_processor()([USER, {"role": "assistant", "tool_calls": calls}, *results])


PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "video", "smell"])},
    optional={"text": st.text(max_size=5) | st.none(), "image": st.integers() | st.just("/nowhere.png")},
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "robot"])},
    optional={
        "content": st.text(max_size=5) | st.lists(PARTS, max_size=3) | st.none() | st.integers(),
        "tool_calls": st.lists(st.just({"function": {"name": "look"}}) | st.integers(), max_size=2) | st.none(),
        "tool_call_id": st.text(max_size=2) | st.integers(),
    },
)


@given(st.lists(MESSAGES, max_size=4))
@settings(max_examples=200)
def test_whatever_a_chat_holds_it_is_used_or_refused_by_an_error_of_ours(messages: list[dict[str, Any]]) -> None:
    with contextlib.suppress(Gemma4Error):
        assert our_processor()(messages).input_ids.shape[0] == 1
