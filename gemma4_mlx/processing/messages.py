"""Chat messages as a caller writes them → checked, plain ones for the chat template, with the media taken out.

Knows the Hugging Face chat form and the order turns may come in; opens no file and renders nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .sources import reason

Messages = str | Sequence[Mapping[str, Any]]

ROLES = ("system", "developer", "user", "assistant", "tool")
MEDIA = ("image", "audio", "video")

# Names a model's thought goes by; templates read the first, the others are what servers and clients send.
_REASONING = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True)
class Medium:
    """A picture, sound or video of a message: what kind, and where it comes from."""

    kind: str
    source: Any


def read_messages(
    messages: Messages, add_generation_prompt: bool, literal: Callable[[str], str]
) -> tuple[list[dict[str, Any]], list[Medium]]:
    """Check messages and take the media out of them.

    Args:
        messages: a string (one user turn), or dicts with `role` and `content`, which is a string or a list of parts
            `{"type": "text" | "image" | "audio" | "video", …}`; a medium's source stands under its type, `url` or
            `path`. An assistant may have `reasoning_content`, `tool_calls` and `tool_responses`; results may also
            follow as `tool` messages with `tool_call_id` or `name`.
        add_generation_prompt: whether the model is to speak next.
        literal: applied to what users and tools say, so that it cannot pass for control tokens.

    Returns:
        Messages of plain JSON values in which a medium's source is a stand-in, and the media in order of appearance.

    Raises:
        InputError: an empty list, an unknown role or part, roles out of order, or content that is missing.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence):
        raise InputError(f"messages are a {type(messages).__name__}: give a string or a list of messages")
    if not messages:
        raise InputError("the message list is empty: give at least one user message")
    plain: list[dict[str, Any]] = []
    media: list[Medium] = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise InputError(f"message {number} is a {type(message).__name__}: give a dict with role and content")
        if message.get("role") not in ROLES:
            raise InputError(f"message {number} has role {message.get('role')!r}: use {', '.join(ROLES)}")
        plain.append(_plain_message(message, number, media, literal))
    _check_order(plain, add_generation_prompt)
    return plain, media


def plain_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Tool descriptions in the form chat templates read: `{"type": "function", "function": {"name": …, …}}`.

    Raises:
        ValueError: `tools` is not a list of JSON descriptions with a name.
    """
    if not tools:
        return None
    plain = []
    for number, tool in enumerate(tools, start=1):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(
                f"tool {number} needs a JSON description with a name, such as {{'name': …, 'parameters': …}}"
            )
        try:
            plain.append(json.loads(json.dumps({"type": "function", "function": function})))
        except (TypeError, ValueError) as error:
            raise ValueError(f"tool {number} ({function['name']}) is not plain JSON: {reason(error)}") from error
    return plain


def _plain_message(
    message: Mapping[str, Any], number: int, media: list[Medium], literal: Callable[[str], str]
) -> dict[str, Any]:
    role = message["role"]
    # What people and tools write is text; a system prompt or an answer may carry control tokens on purpose.
    escape = literal if role in ("user", "tool") else str
    extra = {key: value for key, value in message.items() if key not in ("role", "content")}
    try:
        plain: dict[str, Any] = json.loads(json.dumps(extra))
    except (TypeError, ValueError) as error:
        raise InputError(f"message {number} ({role}) is not plain JSON: {reason(error)}") from error
    thought = next((plain[name] for name in _REASONING if plain.get(name) is not None), None)
    if thought is not None:
        plain = {"thinking": thought, **plain, "reasoning_content": thought}
    if "tool_responses" in plain:
        plain["tool_responses"] = _escaped(plain["tool_responses"], f"message {number}", literal)
    content = message.get("content")
    if content is None and role == "assistant" and plain.get("tool_calls"):
        content = ""
    return {"role": role, "content": _plain_content(content, role, number, media, escape), **plain}


def _plain_content(
    content: Any, role: str, number: int, media: list[Medium], escape: Callable[[str], str]
) -> str | list[dict[str, str]] | dict[str, Any]:
    where = f"message {number} ({role})"
    if isinstance(content, str):
        return escape(content)
    if isinstance(content, Mapping) and role == "tool":
        return _escaped(content, where, escape)
    if not isinstance(content, list | tuple) or not content:
        raise InputError(f"{where} has no content: give a string or a list of parts")
    parts: list[dict[str, str]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            if not isinstance(part.get("text"), str):
                raise InputError(f"{where} has a text part without text: give {{'type': 'text', 'text': …}}")
            parts.append({"type": "text", "text": escape(part["text"])})
        elif kind in MEDIA:
            sources = [part[key] for key in (kind, "url", "path") if part.get(key) is not None]
            if len(sources) != 1:
                raise InputError(
                    f"{where} has a part with {len(sources)} sources: give {{'type': '{kind}', '{kind}': …}}"
                )
            media.append(Medium(kind, sources[0]))
            # Templates only ask whether the medium is there; the sandbox should not get hold of the object itself.
            parts.append({"type": kind, kind: f"<{kind}>"})
        else:
            raise InputError(f"{where} has a part of type {kind!r}: use text, {', '.join(MEDIA)}")
    if role in ("system", "developer") and len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]  # some templates take a system message for a string without looking
    return parts


def _escaped(value: Any, where: str, escape: Callable[[str], str]) -> Any:
    """A tool's JSON result with every string in it escaped."""
    match value:
        case str():
            return escape(value)
        case Mapping():
            return {escape(str(key)): _escaped(item, where, escape) for key, item in value.items()}
        case list() | tuple():
            return [_escaped(item, where, escape) for item in value]
        case None | bool() | int() | float():
            return value
        case _:
            raise InputError(f"{where} holds a {type(value).__name__}: give plain JSON")


def _check_order(messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> None:
    """System first if at all, then user and assistant in turns; tool results right after the calls they answer."""
    before: str | None = None
    open_calls: list[str | None] = []
    for number, message in enumerate(messages, start=1):
        role = message["role"]
        where = f"message {number} ({role})"
        if role != "tool" and open_calls:
            raise InputError(f"{where} comes before the results of all tool calls: add a tool message for each call")
        match role:
            case "system" | "developer" if before is not None:
                raise InputError(f"{where} is out of order: a system message comes first")
            case "tool":
                _answer_call(message.get("tool_call_id"), open_calls, where)
            case "user" if before in ("user", "tool"):
                raise InputError(f"{where} follows {before}: the assistant speaks in between")
            case "assistant" if before not in ("user", "tool"):
                raise InputError(f"{where} {f'follows {before}' if before else 'comes first'}: a user speaks before it")
        if role == "assistant":
            open_calls = [_call_id(call, where) for call in _calls(message, where)]
        before = role
        if open_calls and message.get("tool_responses"):  # answered in place, Gemma's own form
            open_calls, before = [], role if message["content"] else "tool"
    if before in ("system", "developer"):
        raise InputError("there is only a system message: add a user message")
    if open_calls and add_generation_prompt:
        raise InputError("the last tool call has no result: add a tool message for each call")
    if before == "assistant" and add_generation_prompt:
        raise InputError("the last message is the assistant's: add a user message for the model to answer")


def _calls(message: Mapping[str, Any], where: str) -> list[Any]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InputError(f"{where} has tool_calls that are not a list: give a list of calls")
    return calls


def _call_id(call: Any, where: str) -> str | None:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(f"{where} has a tool call without a name: give {{'function': {{'name': …, 'arguments': …}}}}")
    identifier = call.get("id")
    return identifier if isinstance(identifier, str) else None


def _answer_call(identifier: str | None, open_calls: list[str | None], where: str) -> None:
    if not open_calls:
        raise InputError(f"{where} answers no tool call: put it after the assistant message that made the call")
    if identifier is None or identifier not in open_calls:
        if identifier is not None and None not in open_calls:
            raise InputError(f"{where} answers call {identifier!r}, which was not made: check its tool_call_id")
        open_calls.pop(0)
    else:
        open_calls.remove(identifier)
