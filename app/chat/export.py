"""A chat as one file: Markdown for people, JSON for programs and for /load."""

from __future__ import annotations

import base64
import json
import mimetypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from gemma4_mlx.errors import Gemma4Error, InputError

from ..line.attachments import Attachment, Kind, fenced, open_attachment
from ..messages import Message, reply
from ..whole_file import write_whole
from .conversation import Conversation, Exchange
from .session_files import check_regular

_LARGEST = 1 << 30
"""Bytes: a video of the size that a message may have, spelled in base64, and as much again."""
_NOUNS: dict[Kind, str] = {"image": "picture", "audio": "sound", "video": "video", "text": "text"}


def export(path: Path, conversation: Conversation, model: str) -> None:
    """Write a conversation, in the form that the suffix names; whole or not at all.

    Raises:
        InputError: another suffix than .md or .json, or the file exists.
        OSError: it cannot be written.
    """
    forms: dict[str, Callable[[Conversation, str], str]] = {".md": as_markdown, ".json": as_json}
    form = forms.get(path.suffix.lower())
    if form is None:
        raise InputError(f"{path.name}: write to a name that ends in .md or .json")
    if path.exists():
        raise InputError(f"{path} is there already: choose another name")
    write_whole(path, form(conversation, model))


def as_markdown(conversation: Conversation, model: str) -> str:
    """For people: who said what; thoughts folded away, pictures and sounds by name."""
    parts = [f"# A chat with {model}"]
    if conversation.system:
        parts.append(_quoted(conversation.system))
    for exchange in conversation.exchanges:
        parts.append("## You")
        parts += [f"*{_NOUNS[a.kind]}: {a.name}, {a.description}*" for a in exchange.attachments]
        if exchange.text:
            parts.append(exchange.text)
        parts.append(f"## {model}")
        for message in exchange.replies:
            parts += _markdown_of_reply(message)
    return "\n\n".join(parts) + "\n"


def _markdown_of_reply(message: Message) -> list[str]:
    if message["role"] == "tool":
        return [f"*{message['name']} gave back:*", fenced(json.dumps(message["content"], ensure_ascii=False), "json")]
    parts = []
    if thought := message.get("reasoning_content"):
        parts.append(f"<details><summary>thought</summary>\n\n{thought}\n\n</details>")
    if message["content"]:
        parts.append(message["content"])
    for call in message.get("tool_calls", []):
        given = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        parts += [f"*calls {call['function']['name']}:*", fenced(given, "json")]
    return parts


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def as_json(conversation: Conversation, model: str) -> str:
    """For programs: messages in the Hugging Face chat form, with files in data URLs."""
    system: list[Message] = []
    if conversation.system:
        system.append({"role": "system", "content": conversation.system})
    messages = [*system]
    for exchange in conversation.exchanges:
        messages += [_json_of_user(exchange), *exchange.replies]
    document = {"model": model, "thinking": conversation.thinking, "messages": messages}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _json_of_user(exchange: Exchange) -> Message:
    parts = [{"type": a.kind, "name": a.name, "url": _data_url(a)} for a in exchange.attachments]
    return {"role": "user", "content": [*parts, {"type": "text", "text": exchange.text}]}


def _data_url(attachment: Attachment) -> str:
    kind = mimetypes.guess_type(attachment.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(attachment.data).decode()}"


def read_export(path: Path, report: Callable[[str], None]) -> Conversation:
    """The conversation in a JSON file that `as_json` wrote.

    Args:
        report: is told of files in it that cannot be opened, which are left out.

    Raises:
        InputError: it is not such a file.
        OSError: it cannot be read.
    """
    try:
        document = json.loads(_content(path))
        conversation = Conversation(thinking=bool(document["thinking"]))
        for message in document["messages"]:
            _read_message(message, conversation, report)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} holds no chat: give a file that /export wrote") from error
    return conversation


def _content(path: Path) -> str:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
        check_regular(stream.fileno(), path, _LARGEST)
        return stream.read().decode("utf-8")


def _read_message(message: Any, conversation: Conversation, report: Callable[[str], None]) -> None:
    match message["role"]:
        case "system":
            conversation.system = str(message["content"])
        case "user":
            *files, words = message["content"]
            attachments = [a for part in files if (a := _read_attachment(part, report)) is not None]
            conversation.begin(str(words["text"]), attachments)
        case _:
            conversation.exchanges[-1].replies.append(reply(message))


def _read_attachment(part: Any, report: Callable[[str], None]) -> Attachment | None:
    kind, name = part["type"], str(part["name"])
    if kind not in get_args(Kind):
        raise ValueError(f"no attachment is a {kind!r}")
    try:
        return open_attachment(base64.b64decode(part["url"].partition(",")[2], validate=True), kind, name)
    except Gemma4Error as error:
        report(f"note: {name} is left out ({error})")
        return None
