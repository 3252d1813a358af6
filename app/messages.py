"""What is said, as chat templates take it (Hugging Face's list of messages)."""

from __future__ import annotations

from typing import Any

from .line.attachments import Attachment, Kind

Message = dict[str, Any]

_DEEPEST = 64
"""Of a message's values, one in another: far more than any function's arguments."""

_BEFORE_THE_WORDS: tuple[Kind, ...] = ("image", "video", "text")


def user_message(text: str, attachments: list[Attachment]) -> Message:
    """One user turn in the Hugging Face form: pictures, videos and texts, then the words, then sound.

    Sound comes after the words because the models answer a question about it better that way (their model cards).
    """
    before = [a.part() for kind in _BEFORE_THE_WORDS for a in attachments if a.kind == kind]
    sounds = [a.part() for a in attachments if a.kind == "audio"]
    words: list[Message] = [{"type": "text", "text": text}] if text else []
    return {"role": "user", "content": [*before, *words, *sounds]}


def assistant_message(text: str, thought: str = "") -> Message:
    """What the model said, as templates read it back."""
    return {"role": "assistant", "content": text, **({"reasoning_content": thought} if thought else {})}


def reply(message: Any) -> Message:
    """A model's or a tool's message read from a file. Raises KeyError or TypeError if it is none."""
    wanted: dict[str, type] = {"assistant": str, "tool": dict}
    _check(message, dict)
    _check(message["content"], wanted[_check(message["role"], str)])
    if message["role"] == "tool":
        _check(message["name"], str)
    _check(message.get("reasoning_content", ""), str)
    for call in _check(message.get("tool_calls", []), list):
        function = _check(_check(call, dict)["function"], dict)
        _check(function["name"], str)
        _check(function["arguments"], dict)
    _check_depth(message, _DEEPEST)
    return dict(message)


def _check(value: Any, wanted: type) -> Any:
    if not isinstance(value, wanted):
        raise TypeError(f"a {type(value).__name__} where a {wanted.__name__} should be")
    return value


def _check_depth(value: Any, left: int) -> None:
    """What is nested deeper than `left` could be written down and shown to the model no more."""
    if not left:
        raise TypeError(f"nested deeper than {_DEEPEST}")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, left - 1)
