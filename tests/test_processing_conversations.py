"""Histories as programs keep them: every template renders each, as transformers renders its documented form.

The documented form stands beside each history, written by hand: results in place as `tool_responses`, arguments as
objects, parts of Hugging Face's types. Where a template renders a history as it stands, that is its documented form.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from conversations import ANSWER, MORE, SYSTEM, USER, call, calling, in_place, processor, result, theirs, written
from gemma4_mlx.generation import ToolCall
from published_templates import REAL, TEMPLATES, WHY_NO_REAL_ONES


def answered(content: Any, documented: Any) -> tuple[list[Any], list[Any]]:
    """A history that ends in a tool's result."""
    return [USER, calling(call()), result(content)], [USER, in_place(calling(call()), documented)]


PICTURE = {"type": "image", "image": "one.png"}
SAID = {"type": "text", "text": "What is this?"}

# Name → the history, and its documented form; None: as it stands.
HISTORIES: dict[str, tuple[list[Any], list[Any] | None]] = {
    "one question": ([USER], None),
    "two questions in a row": ([USER, MORE], None),
    "a question after a result": (
        [USER, calling(call()), result("12"), MORE],
        [USER, in_place(calling(call()), "12"), MORE],
    ),
    "content null": ([{"role": "user", "content": None}, {"role": "assistant", "content": None}, MORE], None),
    "content empty": ([{"role": "user", "content": []}, {"role": "assistant", "content": []}, MORE], None),
    "no content": ([USER, {"role": "assistant"}, MORE], [USER, {"role": "assistant", "content": ""}, MORE]),
    "the assistant first": ([ANSWER, USER], None),
    "the result of a call that was cut away": ([result("12"), ANSWER, USER], [ANSWER, USER]),
    "the assistant first after the system": ([SYSTEM, ANSWER, USER], None),
    "the assistant twice": ([USER, ANSWER, ANSWER, MORE], None),
    "the assistant last": ([USER, ANSWER], None),
    "a later system message": ([USER, ANSWER, SYSTEM, MORE], None),
    "two system messages": ([SYSTEM, SYSTEM, USER], None),
    "only a system message": ([SYSTEM], None),
    "a developer's message": ([{**SYSTEM, "role": "developer"}, USER], None),
    "a system message in two parts": (
        [
            {
                "role": "system",
                "content": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
            },
            USER,
        ],
        None,
    ),
    "an object as result": answered(
        {"degrees": 12.5, "wet": False, "wind": [None, {"a b": 1}]},
        {"degrees": 12.5, "wet": False, "wind": [None, {"a b": 1}]},
    ),
    "a text as result": answered("12 degrees", "12 degrees"),
    "a number as result": answered(12, 12),
    "a truth as result": answered(True, True),
    "null as result": answered(None, None),
    "a list as result": answered([1, "two", None], [1, "two", None]),
    "an empty list as result": answered([], []),
    "a list of objects as result": answered([{"type": "river", "name": "Tiber"}], [{"type": "river", "name": "Tiber"}]),
    "parts as result": answered([{"type": "text", "text": "12 "}, {"type": "text", "text": "degrees"}], "12 degrees"),
    "Ollama's result": (
        [USER, calling(call()), {"role": "tool", "tool_name": "look", "content": "12"}],
        [USER, in_place(calling(call()), "12")],
    ),
    "LangChain's calls": (
        [
            USER,
            calling({"type": "tool_call", "id": "c1", "name": "look", "args": {"city": "Rome"}}),
            {"role": "tool", "tool_call_id": "c1", "content": "12"},
        ],
        [USER, in_place(calling(call(arguments={"city": "Rome"})), "12")],
    ),
    "Gemini's texts": (
        [{"role": "user", "parts": [{"text": "Hello"}]}, {"role": "model", "parts": [{"text": "Hi"}]}, MORE],
        [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, MORE],
    ),
    "a refusal": (
        [USER, {"role": "assistant", "content": None, "refusal": "No."}, MORE],
        [USER, {"role": "assistant", "content": "No."}, MORE],
    ),
    "arguments as JSON text": (
        [USER, calling(call(arguments='{"city": "Rome", "days": [1, 2], "at": null}')), result("12")],
        [USER, in_place(calling(call(arguments={"city": "Rome", "days": [1, 2], "at": None})), "12")],
    ),
    "arguments as JSON text in JSON text": (
        [USER, calling(call(arguments='"{\\"city\\": \\"Rome\\"}"')), result("12")],
        [USER, in_place(calling(call(arguments={"city": "Rome"})), "12")],
    ),
    "arguments empty, null and left out": (
        [
            USER,
            calling(
                call(arguments=""),
                {"id": "c2", "function": {"name": "look", "arguments": None}},
                {"id": "c3", "function": {"name": "look"}},
            ),
            result(1),
            result(2, "c2"),
            result(3, "c3"),
        ],
        [USER, in_place(calling(call(), call(), call()), 1, 2, 3)],
    ),
    "results in another order": (
        [USER, calling(call("a"), call("b", identifier="c2")), result("B", "c2"), result("A")],
        [USER, in_place(calling(call("a"), call("b")), "A", "B")],
    ),
    "results without ids": (
        [USER, calling(call("a", identifier=None), call("b", identifier=None)), result("A", None), result("B", None)],
        [USER, in_place(calling(call("a"), call("b")), "A", "B")],
    ),
    "results by name": (
        [
            USER,
            calling(call("a", identifier=None), call("b", identifier=None)),
            result("B", None, name="b"),
            result("A", None, name="a"),
        ],
        [USER, in_place(calling(call("a"), call("b")), "A", "B")],
    ),
    "a result that is missing": (
        [USER, calling(call("a"), call("b", identifier="c2")), result("B", "c2"), MORE],
        [USER, in_place(calling(call("a"), call("b")), {"error": "no result"}, "B"), MORE],
    ),
    "a call that was never answered": (
        [USER, calling(call()), MORE],
        [USER, in_place(calling(call()), {"error": "no result"}), MORE],
    ),
    "a result that comes after the next question": (
        [USER, calling(call()), MORE, result("12")],
        [USER, in_place(calling(call()), "12"), MORE],
    ),
    "results in place, and an answer beside them": (
        [USER, in_place(calling(call(), content="It is 12."), {"degrees": 12}), MORE],
        None,
    ),
    "two rounds of calls with thoughts": (
        [USER, calling(call(), reasoning="first"), result(1), calling(call(), reasoning_content="again"), result(2)],
        [
            USER,
            in_place(calling(call(), reasoning_content="first"), 1),
            in_place(calling(call(), reasoning_content="again"), 2),
        ],
    ),
    "an answer after a call": (
        [USER, calling(call(), content=None), result("12"), ANSWER, MORE],
        [USER, in_place(calling(call()), "12"), ANSWER, MORE],
    ),
    "a thought as the model wrote it": (
        [USER, {"role": "assistant", "content": "<|channel>thought\nhm\n<channel|>Warm."}, MORE],
        [USER, {**ANSWER, "reasoning_content": "hm"}, MORE],
    ),
    "Gemma's own role": ([USER, {**ANSWER, "role": "model"}, MORE], [USER, ANSWER, MORE]),
    "calls as generate gives them back": (
        [USER, {"role": "assistant", "content": "", "tool_calls": [ToolCall("look", {"a": 1})]}, result(1, None)],
        [USER, in_place(calling(call(arguments={"a": 1})), 1)],
    ),
    "half a character in a result": answered({"name\ud800": ["\udcff"]}, {"name?": ["?"]}),
    "OpenAI's function_call": (
        [
            USER,
            {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"a": 1}'}},
            {"role": "function", "name": "look", "content": "12"},
        ],
        [USER, in_place(calling(call(arguments={"a": 1})), "12")],
    ),
    "Anthropic's blocks": (
        [
            USER,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "12"}]}],
            },
        ],
        [USER, in_place(calling(call(arguments={"a": 1}), reasoning_content="hm"), "12")],
    ),
    "OpenAI's parts of Responses": (
        [
            {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Hi", "annotations": []}]},
            MORE,
        ],
        [
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
            MORE,
        ],
    ),
    "parts that are strings, and a part by itself": (
        [
            {"role": "user", "content": ["Hello", "you"]},
            ANSWER,
            {"role": "user", "content": {"type": "text", "text": "Why?"}},
        ],
        [
            {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "you"}]},
            ANSWER,
            {"role": "user", "content": "Why?"},
        ],
    ),
    "keys that servers add": (
        [
            {**USER, "name": "Ann"},
            {**ANSWER, "refusal": None, "annotations": [], "tool_calls": None, "function_call": None, "audio": None},
            MORE,
        ],
        [USER, ANSWER, MORE],
    ),
}

WITH_MEDIA: dict[str, tuple[list[Any], list[Any]]] = {
    "image_url with an object": (
        [{"role": "user", "content": [SAID, {"type": "image_url", "image_url": {"url": "one.png", "detail": "low"}}]}],
        [{"role": "user", "content": [SAID, PICTURE]}],
    ),
    "image_url with a string": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": "one.png"}, SAID]}],
        [{"role": "user", "content": [PICTURE, SAID]}],
    ),
    "input_image": (
        [{"role": "user", "content": [{"type": "input_image", "image_url": "one.png"}, SAID]}],
        [{"role": "user", "content": [PICTURE, SAID]}],
    ),
    "Anthropic's picture": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    SAID,
                ],
            }
        ],
        [{"role": "user", "content": [PICTURE, SAID]}],
    ),
    "Ollama's pictures": (
        [{"role": "user", "content": "What is this?", "images": ["AAAA"]}],
        [{"role": "user", "content": [PICTURE, SAID]}],
    ),
    "input_audio": (
        [
            {
                "role": "user",
                "content": [SAID, {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
            }
        ],
        [{"role": "user", "content": [SAID, {"type": "audio", "audio": "one.wav"}]}],
    ),
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Looks",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def test_the_makers_templates_are_tried() -> None:
    if not REAL.is_dir():
        pytest.skip(WHY_NO_REAL_ONES)
    assert {"e2b", "31b", "older", "vllm-mod"} <= set(TEMPLATES)


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_history_is_rendered_as_transformers_renders_its_documented_form(
    template: str, name: str, tools: Any, thinking: bool
) -> None:
    history, documented = HISTORIES[name]
    kept = copy.deepcopy(history)
    ours = processor(template).render(history, tools=tools, thinking=thinking)
    assert ours == theirs(template, documented or history, tools, thinking)
    assert history == kept


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", WITH_MEDIA)
@pytest.mark.parametrize("template", TEMPLATES)
def test_media_in_other_hands_forms_are_rendered_as_hugging_face_s(template: str, name: str, thinking: bool) -> None:
    history, documented = WITH_MEDIA[name]
    ours = processor(template).render(history, thinking=thinking)
    if template == "older":  # transformers leaves the media out, so that the prompt and the pictures do not agree
        kind = "audio" if "audio" in name else "image"
        before, after = ("What is this?", "") if documented[0]["content"][0] is SAID else ("", "What is this?")
        assert ours.count(f"{before}<|{kind}|>{after}<turn|>") == 1
    else:
        assert ours == theirs(template, documented, thinking=thinking)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_picture_in_a_result_stands_right_behind_it(template: str) -> None:
    """As the makers' templates have it for `tool` messages; beside it an object, which they cannot take there."""
    picture = [{"type": "text", "text": "here"}, {"type": "image_url", "image_url": {"url": "one.png"}}]
    history = [USER, calling(call("a"), call("b", identifier="c2")), result(picture), result({"x": 1}, "c2")]
    expected = (
        '<|tool_response>response:a{value:<|"|>here<|"|>}<tool_response|><|image|>'
        "<|tool_response>response:b{x:1}<tool_response|>"
    )
    ours = processor(template).render(history)
    assert expected in ours
    if template in ("e2b", "31b", "vllm-mod"):  # the others have no room for it
        only = [USER, calling(call("a")), result(picture)]
        assert processor(template).render(only, thinking=True) == theirs(template, only, thinking=True)


@pytest.mark.parametrize("template", TEMPLATES)
def test_words_before_a_call_stay_before_it_and_the_model_is_asked_to_go_on(template: str) -> None:
    """As they stand, the makers' templates put them behind the result and end the turn there."""
    history = [USER, calling(call(), content="Let me look.", reasoning_content="hm"), result("12")]
    expected = (
        "<|channel>thought\nhm\n<channel|>Let me look.<|tool_call>call:look{}<tool_call|>"
        '<|tool_response>response:look{value:<|"|>12<|"|>}<tool_response|>'
    )
    assert processor(template).render(history).endswith(expected)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_system_message_has_a_place_for_a_picture(template: str) -> None:
    system = {"role": "system", "content": [{"type": "text", "text": "The logo:"}, PICTURE]}
    ours = processor(template).render([system, USER])
    assert "<|image|>" in ours.partition("<turn|>")[0]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_result_of_any_depth_is_rendered(template: str) -> None:
    deep: Any = "bottom"
    for _ in range(300):
        deep = {"in": [deep]}
    ours = processor(template).render([USER, calling(call(arguments=deep)), result(deep)])
    assert ours.count("bottom") == 2
    assert ours.count("response:look{in:[{in:[{in:") == 1


# Templates that nobody has published.


def test_a_template_that_knows_only_messages_with_texts_gets_results_as_such() -> None:
    source = "{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}"
    history = [
        {"role": "system", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
        USER,
        calling(call(), content="Let me look."),
        result({"x": [1, None]}),
    ]
    assert written(source).render(history) == (
        '[system: A B][user: How warm is it?][assistant: Let me look.][tool: {"x": [1, null]}]'
    )


def test_a_template_that_never_ends_its_recursion_is_one_line() -> None:
    from gemma4_mlx.errors import InputError

    with pytest.raises(InputError, match="cannot render these messages"):
        written("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}").render([USER])
