"""What is said, as chat templates take it (Hugging Face's list of messages)."""

from __future__ import annotations

from typing import Any

from .line.attachments import Attachment, Kind

Message = dict[str, Any]

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
    if not isinstance(message["content"], wanted[message["role"]]):
        raise TypeError(f"a {type(message['content']).__name__} as what {message['role']} said")
    return dict(message)
