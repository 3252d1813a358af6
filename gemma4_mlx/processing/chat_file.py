"""A conversation in a file: JSON, with the pictures and sounds in it.

Read strictly: nothing in a file makes the processor open another file or an address.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, reason
from .attached import listed
from .cached_source import CachedSource
from .content import MEDIA, Medium, read_content
from .limits import OPEN_FILE_BYTES
from .messages import read_messages
from .sources import FileSource, Source, resolve_source

_FORMAT = {"format": "gemma4-mlx chat", "version": 1}
_NOUNS = {"image": "picture", "audio": "sound", "video": "video", "images": "picture"}
_MOST_BYTES = 2 * OPEN_FILE_BYTES
_KEYS = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "reasoning_content", "tool_calls"},
    "tool": {"role", "content", "tool_call_id", "name"},
}
_NUMBERS = {"uint8", "uint16", "int16", "int32", "float16", "float32", "float64"}


def in_memory(media: Iterable[Any], name: str) -> list[CachedSource]:
    """Pictures or sounds for many prompts: what are files and addresses is read, so that they may change or go.

    Args:
        name: "images" or "audio".

    Raises:
        ValueError: they are no list.
        InputError: one cannot be read.
    """
    return [_read(each, _NOUNS[name]) for each in listed(media, name)]


def _read(source: Any, noun: str) -> CachedSource:
    if isinstance(source, CachedSource):
        return source
    if not isinstance(source, FileSource):
        return CachedSource(source)
    file = resolve_source(source, noun)
    if isinstance(file.content, bytes):
        return CachedSource(file)
    try:
        with file.content.open("rb") as stream:
            content = stream.read(OPEN_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file.name} cannot be read ({reason(error)}): check the file") from error
    if len(content) > OPEN_FILE_BYTES:
        raise InputError(f"{file.name} is larger than {OPEN_FILE_BYTES >> 20} MiB: give a smaller one")
    return CachedSource(Source(file.name, content))


def write_chat(path: Path, messages: list[Any], thinking: bool) -> None:
    """Put a conversation into a file, all at once.

    Raises:
        InputError: something in it cannot be written down.
        OSError: the file cannot be written; what was there before stays.
    """
    written = [_written(message, f"message {number}") for number, message in enumerate(messages, start=1)]
    try:
        text = json.dumps(
            {**_FORMAT, "thinking": bool(thinking), "messages": written}, ensure_ascii=False, allow_nan=False
        )
        data = text.encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the chat cannot be written down ({reason(error)}): keep plain JSON in messages") from error
    if len(data) > _MOST_BYTES:
        raise InputError(f"the chat is larger than {_MOST_BYTES >> 20} MiB: take pictures or sound out of messages")
    try:
        # Only its owner may read it.
        handle, unfinished = tempfile.mkstemp(".json", f".{path.name[:200]}.", path.parent)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        Path(unfinished).replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        Path(unfinished).unlink(missing_ok=True)


def read_chat(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Messages, and whether the model thinks, as `write_chat` wrote them.

    Raises:
        InputError: there is no such file, or it holds no chat.
    """
    source = resolve_source(path, "chat")
    assert isinstance(source.content, Path)
    no_chat = f"{path} holds no chat: give a file that Chat.save wrote"
    try:
        with source.content.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise InputError(no_chat)
        found = json.loads(data)
        del data
    except OSError as error:
        raise InputError(f"{path} cannot be read ({reason(error)}): check the file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{no_chat} ({reason(error)})") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT["format"]:
        raise InputError(no_chat)
    if found.get("version") != _FORMAT["version"]:
        raise InputError(f"{path} is of version {found.get('version')!r}: read it with a newer gemma4-mlx")
    messages, thinking = found.get("messages"), found.get("thinking")
    if found.keys() != {*_FORMAT, "thinking", "messages"} or type(thinking) is not bool or type(messages) is not list:
        raise InputError(no_chat)
    try:
        read = [_read_back(message, f"message {number}") for number, message in enumerate(messages, start=1)]
        if read:
            read_messages(read, add_generation_prompt=False)
    except (InputError, RecursionError) as error:
        raise InputError(f"{no_chat} ({reason(error)})") from error
    return read, thinking


def _written(message: Any, where: str) -> dict[str, Any]:
    """A message as JSON."""
    _check(message, where)
    content = message.get("content")
    if message["role"] == "tool" or content is None or isinstance(content, str):
        return dict(message)
    parts = read_content(content, where)
    return {**message, "content": parts if isinstance(parts, str) else [_written_part(part, where) for part in parts]}


def _written_part(part: dict[str, Any], where: str) -> dict[str, Any]:
    medium = part[part["type"]]
    if not isinstance(medium, Medium):
        return part
    source = medium.source.source if isinstance(medium.source, CachedSource) else medium.source
    return {"type": medium.kind, medium.kind: _written_source(source, medium.kind, where)}


def _written_source(source: Any, kind: str, where: str) -> dict[str, Any]:
    if isinstance(source, FileSource):
        file = _read(source, _NOUNS[kind]).source
        return {"name": file.name, "data": base64.b64encode(file.content).decode()}
    if kind == "audio" and isinstance(source, tuple) and len(source) == 2:
        return {**_numbers(source[0], where), "rate": float(source[1])}
    if kind == "image" and hasattr(source, "convert"):
        from .images import load_image

        source = load_image(source)  # upright and RGB, as it is read again
    return _numbers(source, where)


def _numbers(values: Any, where: str) -> dict[str, Any]:
    array = np.ascontiguousarray(values)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype.name not in _NUMBERS:
        raise InputError(
            f"{where} holds a {type(values).__name__}, which cannot be written down: give a file, or bytes"
        )
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "data": base64.b64encode(array.tobytes()).decode(),
    }


def _read_back(message: Any, where: str) -> dict[str, Any]:
    _check(message, where)
    content = message.get("content")
    if message["role"] == "tool":
        if not isinstance(content, str | dict):
            raise InputError(f"{where} has no result")
        return dict(message)
    if content is None or isinstance(content, str):
        return dict(message)
    if not isinstance(content, list):
        raise InputError(f"{where} has no content")
    return {**message, "content": [_part_back(part, where) for part in content]}


def _part_back(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and part.keys() == {"type", "text"} and isinstance(part["text"], str):
        return dict(part)
    if kind not in MEDIA or part.keys() != {"type", kind} or not isinstance(part[kind], dict):
        raise InputError(f"{where} has a part that is none")
    return {"type": kind, kind: CachedSource(_source_back(part[kind], kind, where))}


def _source_back(written: dict[str, Any], kind: str, where: str) -> Any:
    wrong = InputError(f"{where} has a {_NOUNS[kind]} that is damaged")
    try:
        data = base64.b64decode(written["data"], validate=True)
        if written.keys() == {"name", "data"} and str(written["name"]).isprintable():
            return Source(str(written["name"]), data)
        if written.keys() - {"rate"} != {"dtype", "shape", "data"} or written["dtype"] not in _NUMBERS:
            raise wrong
        dtype = np.dtype(written["dtype"]).newbyteorder("<")
        array = np.frombuffer(data, dtype).reshape([int(length) for length in written["shape"]])
        array = array.astype(dtype.newbyteorder("="), copy=False)
        return (array, float(written["rate"])) if "rate" in written else array
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise wrong from error


def _check(message: Any, where: str) -> None:
    """Raise InputError for what is no message of a chat's."""
    role = message.get("role") if isinstance(message, Mapping) else None
    if not isinstance(role, str) or role not in _KEYS:
        raise InputError(f"{where} has no role that a chat has: {', '.join(_KEYS)}")
    if others := [str(key) for key in message if key not in _KEYS[role]]:
        raise InputError(f"{where} has {', '.join(others)}, which a chat's message has not")
