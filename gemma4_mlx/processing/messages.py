"""Messages in any form that programs keep them → one canonical form, which every chat template renders right.

Canonical: a list of dicts with `role` (system, user or assistant) and `content` (a text, or parts of `content.py`). An
assistant may have `reasoning_content` (its thought), `tool_calls`, whose `arguments` are objects, and `tool_responses`:
the results, in the order of the calls. Gemma 4's notation has results within the model's turn, and all of the makers'
templates take them there, as objects and as texts; as `tool` messages they take texts only. `content` is then what is
said after the results, and `before_calls` what was said before the calls.

Knows no template and opens no file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from .content import PART_TYPES, Medium, Part, joined_text, media_of, part_type, read_content
from .sources import reason

Messages = str | Sequence[Mapping[str, Any]]
Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
_OTHER_NAMES = {"developer": "system", "model": "assistant", "function": "tool"}

# Names a model's thought goes by.
_REASONING = ("reasoning_content", "thinking", "reasoning")
# The arguments of a call: OpenAI's, Anthropic's, LangChain's and Cohere's.
_ARGUMENTS = ("arguments", "input", "args", "parameters")
# An answer as Gemma writes it, thought and all, which some programs keep as it came.
_RAW_THOUGHT = ("<|channel>thought\n", "<channel|>")
_NO_RESULT = {"error": "no result"}
# Templates write objects by recursion, several frames of Python a level; what is deeper is given as JSON text.
_DEEPEST = 32


def read_messages(messages: Messages, add_generation_prompt: bool) -> list[Message]:
    """Messages in their canonical form.

    Args:
        messages: a string (one user turn), or dicts with `role` and `content`, in the forms of Hugging Face, OpenAI or
            Anthropic. Turns may come in any order.
        add_generation_prompt: whether the model is to speak next.

    Returns:
        New dicts of plain JSON values, but for a `Medium` in each part that is no text. A result has a list of its
        `media` beside its `name` and `response`.

    Raises:
        InputError: an empty list, an unknown role or part, a result of no call, arguments that are no object, or
            anything that is not JSON; with the message's number.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence):
        raise InputError(f"messages are a {type(messages).__name__}: give a string or a list of messages")
    if not messages:
        raise InputError("the message list is empty: give at least one user message")
    conversation = _Conversation()
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise InputError(f"message {number} is a {type(message).__name__}: give a dict with role and content")
        conversation.add(message, number)
    return conversation.finished(add_generation_prompt)


@dataclass
class _Call:
    """A tool call, and its result once there is one."""

    name: str
    id: str | int | None
    result: dict[str, Any] | None = None


@dataclass
class _Conversation:
    """The messages read so far."""

    messages: list[Message] = field(default_factory=list)
    _calls: list[tuple[Message, list[_Call]]] = field(default_factory=list)  # by the message that made them

    def add(self, message: Mapping[str, Any], number: int) -> None:
        """Take the next message. Raises InputError."""
        named = message.get("role")
        role = _OTHER_NAMES.get(named, named) if isinstance(named, str) else None
        where = f"message {number} ({named})"
        match role:
            case "tool":
                self._add_result(message, where)
            case "assistant":
                self._add_answer(message, where)
            case "system" | "user":
                self._add_words(role, _content_of(message, where), where)
            case _:
                raise InputError(f"message {number} has role {named!r}: use {', '.join(ROLES)}")

    def finished(self, add_generation_prompt: bool) -> list[Message]:
        """All messages, with the results in place."""
        for message, calls in self._calls:
            if any(call.result for call in calls) or message is not self.messages[-1]:
                message["tool_responses"] = [call.result or _result(call.name, _NO_RESULT) for call in calls]
            elif add_generation_prompt:
                raise InputError("the last tool call has no result: add a tool message for each call")
        return self.messages

    def _add_words(self, role: str, content: Any, where: str) -> None:
        """What a person or a program says; Anthropic has results among it."""
        parts: list[Any] = list(content) if isinstance(content, list | tuple) else []
        results = [part for part in parts if part_type(part) == "tool_result"]
        for part in results:
            self._add_result({"tool_call_id": part.get("tool_use_id"), "content": part.get("content")}, where)
        if results:
            content = [part for part in parts if part_type(part) != "tool_result"]
            if not content:
                return
        self.messages.append({"role": role, "content": read_content(content, where)})

    def _add_answer(self, message: Mapping[str, Any], where: str) -> None:
        content, blocks = _content_of(message, where), []
        if isinstance(content, list | tuple):  # Anthropic has thoughts and calls among the words
            blocks = [part for part in content if part_type(part) in _BLOCKS]
            content = [part for part in content if part_type(part) not in _BLOCKS]
        words = read_content(content, where)
        thought = next((message[name] for name in _REASONING if message.get(name) is not None), None)
        if thought is None:
            thought = "\n\n".join(str(b.get("thinking") or "") for b in blocks if part_type(b) == "thinking")
        if not isinstance(thought, str):
            raise InputError(f"{where} has a {type(thought).__name__} as its thought: give a string")
        if not thought and isinstance(words, str) and words.startswith(_RAW_THOUGHT[0]):
            thought, closed, rest = words.removeprefix(_RAW_THOUGHT[0]).partition(_RAW_THOUGHT[1])
            thought, words = (thought.strip(), rest) if closed else ("", words)
        answer: Message = {"role": "assistant", "content": words}
        if thought:
            answer["reasoning_content"] = thought
        calls = [_read_call(call, where) for call in _calls_of(message, blocks, where)]
        if calls:
            answer["tool_calls"] = calls
        self.messages.append(answer)
        responses = message.get("tool_responses")
        if responses:
            answer["tool_responses"] = _read_responses(responses, where)
        elif calls:
            if (said := joined_text(words).strip()) and not media_of(words):
                answer |= {"content": "", "before_calls": said}
            self._calls.append((answer, [_Call(call["function"]["name"], call.get("id")) for call in calls]))

    def _add_result(self, message: Mapping[str, Any], where: str) -> None:
        if all(earlier["role"] == "system" for earlier in self.messages):
            return  # a history that was shortened at its beginning: the call is gone, and templates leave this out
        call = self._answered_call(message.get("tool_call_id"), message.get("name"), where)
        response, media = _read_response(message.get("content"), where)
        call.result = _result(call.name, response, media)

    def _answered_call(self, identifier: Any, name: Any, where: str) -> _Call:
        """The call that a result belongs to: by its id, else by its name, else the first that has none."""
        waiting = [call for _, calls in self._calls for call in calls if call.result is None]
        if identifier is not None:
            for call in waiting:
                if call.id == identifier:
                    return call
        # Without an id that is known, only the calls made last can be meant.
        waiting = [call for call in self._calls[-1][1] if call.result is None] if self._calls else []
        if not waiting or self.messages[-1] is not self._calls[-1][0]:
            raise InputError(f"{where} answers no tool call: put it after the assistant message that made the call")
        if identifier is not None and all(call.id is not None for call in waiting):
            raise InputError(f"{where} answers call {identifier!r}, which was not made: check its tool_call_id")
        return next((call for call in waiting if call.name == name), waiting[0])


_BLOCKS = ("thinking", "redacted_thinking", "tool_use")


def _content_of(message: Mapping[str, Any], where: str) -> Any:
    """What a message says, also where programs put it beside `content`."""
    content = next((message[key] for key in ("content", "parts", "refusal") if message.get(key) is not None), None)
    images = message.get("images")  # Ollama's, in base64
    if not images:
        return content
    if not isinstance(images, list | tuple):
        raise InputError(f"{where} has images that are a {type(images).__name__}: give a list of them in base64")
    parts = list(content) if isinstance(content, list | tuple) else [content or ""]
    urls = [f"data:;base64,{image}" if isinstance(image, str) and ":" not in image else image for image in images]
    return [*({"type": "image", "image": url} for url in urls), *parts]


def _calls_of(message: Mapping[str, Any], blocks: list[Any], where: str) -> list[Any]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list | tuple):
        raise InputError(f"{where} has tool_calls that are not a list: give a list of calls")
    alone = message.get("function_call")  # OpenAI's form before tools
    return [*calls, *([alone] if alone else []), *(block for block in blocks if part_type(block) == "tool_use")]


def _read_call(call: Any, where: str) -> dict[str, Any]:
    if dataclasses.is_dataclass(call) and not isinstance(call, type):  # as `generate` gives them back
        call = dataclasses.asdict(call)
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(f"{where} has a tool call without a name: give {{'function': {{'name': …, 'arguments': …}}}}")
    name = function["name"]
    given = next((function[key] for key in _ARGUMENTS if function.get(key) is not None), None)
    arguments = _read_arguments(given, f"{where} calls {name} with arguments")
    identifier = call.get("id")
    known = {"id": identifier} if isinstance(identifier, str | int) else {}
    return {**known, "type": "function", "function": {"name": name, "arguments": arguments}}


def _read_arguments(given: Any, what: str) -> dict[str, Any]:
    """Arguments as an object; OpenAI sends them as JSON text, and some programs encode that once more."""
    arguments = given
    for _ in range(2):
        if not isinstance(arguments, str):
            break
        if not arguments.strip():
            return {}
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{what} that are not JSON ({reason(error)}): give an object, or its JSON text") from error
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise InputError(f"{what} that are a {type(arguments).__name__}: give an object, or its JSON text")
    plain: dict[str, Any] = _plain(arguments, what)
    return plain


def _read_responses(responses: Any, where: str) -> list[dict[str, Any]]:
    """Results in place, Gemma's own form."""
    if not isinstance(responses, list | tuple) or not all(isinstance(of, Mapping) for of in responses):
        raise InputError(f"{where} has tool_responses that are no list of results: give [{{'name': …, 'response': …}}]")
    read = []
    for of in responses:
        response, media = _read_response(of.get("response"), where)
        read.append(_result(str(of.get("name") or "unknown"), response, media))
    return read


def _read_response(content: Any, where: str) -> tuple[Any, list[Medium]]:
    """A tool's result: a JSON value, or the text of its parts and what else is in them."""
    if _is_parts(content):
        parts = read_content(content, where)
        return _plain(joined_text(parts), where), media_of(parts)
    return _plain(content, f"{where} holds a result"), []


def _is_parts(content: Any) -> bool:
    """Whether a list is a message's parts rather than a list that a tool gave back."""
    return isinstance(content, list | tuple) and bool(content) and all(_is_part(part) for part in content)


def _is_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in PART_TYPES


def _result(name: str, response: Any, media: Sequence[Medium] = ()) -> dict[str, Any]:
    return {"name": name, "response": response, "media": list(media)}


def _plain(value: Any, what: str) -> Any:
    """A JSON value, without half characters: names of files may hold some, and a prompt cannot."""
    try:
        return _shallow(json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace")))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} that is not plain JSON ({reason(error)}): give plain JSON") from error


def _shallow(value: Any, depth: int = 0) -> Any:
    match value:
        case dict() | list() if depth == _DEEPEST:
            return json.dumps(value, ensure_ascii=False)
        case dict():
            return {key: _shallow(item, depth + 1) for key, item in value.items()}
        case list():
            return [_shallow(item, depth + 1) for item in value]
        case _:
            return value


__all__ = ["ROLES", "Medium", "Message", "Messages", "Part", "read_messages"]
