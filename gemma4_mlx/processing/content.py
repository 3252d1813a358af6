"""What a message says, in all the forms that programs write it: texts, pictures, sounds and videos, as parts.

Hugging Face, OpenAI (Chat Completions and Responses) and Anthropic name the same things differently. Here they become
Hugging Face's parts `{"type": "text" | "image" | "audio" | "video", …}`, a medium with its source as a `Medium`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .stand_ins import Kind

MEDIA: tuple[Kind, ...] = ("image", "audio", "video")

Part = dict[str, Any]

# Part type → where its text stands.
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_KINDS: dict[str, Kind] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
    "video": "video",
    "video_url": "video",
    "input_video": "video",
}
PART_TYPES = frozenset({*_TEXTS, *_KINDS})


@dataclass(frozen=True)
class Medium:
    """A picture, sound or video of a message: what kind, and where it comes from."""

    kind: Kind
    source: Any


def read_content(content: Any, where: str) -> str | list[Part]:
    """A message's content: a text, or parts.

    Args:
        content: a string, a list of parts or strings, one part, or None (nothing is said).
        where: what errors call the message.

    Raises:
        InputError: it is none of these, or a part is of no known type or lacks what its type is.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise InputError(f"{where} has a {type(content).__name__} as content: give a string or a list of parts")
    return [read_part(part, where) for part in content] or ""


def read_part(part: Any, where: str) -> Part:
    """One part of a content. Raises InputError as `read_content`."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    type_ = part_type(part)
    if type_ in _TEXTS:
        text = part.get(_TEXTS[type_])
        if not isinstance(text, str):
            raise InputError(f"{where} has a text part without text: give {{'type': 'text', 'text': …}}")
        return {"type": "text", "text": text}
    if type_ in _KINDS:
        kind = _KINDS[type_]
        keys = dict.fromkeys((type_, kind, f"{kind}_url", "url", "path", "source"))
        sources = [part[key] for key in keys if part.get(key) is not None]
        if len(sources) != 1:
            raise InputError(f"{where} has a part with {len(sources)} sources: give {{'type': '{kind}', '{kind}': …}}")
        return {"type": kind, kind: Medium(kind, _source(sources[0], kind, where))}
    raise InputError(f"{where} has a part of type {type_!r}: use text, {', '.join(MEDIA)}")


def part_type(part: Any) -> str | None:
    """The type a part names, or that its one key tells; None for what is no part."""
    if not isinstance(part, Mapping):
        return None
    named = part.get("type")
    if named is None:
        named = next((key for key in part if key in PART_TYPES), None)
    return named if isinstance(named, str) else None


def joined_text(content: str | list[Part]) -> str:
    """The texts of a content, without what else is in it."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content if part["type"] == "text")


def media_of(content: str | list[Part]) -> list[Medium]:
    """What else is in it."""
    return [] if isinstance(content, str) else [part[part["type"]] for part in content if part["type"] != "text"]


def _source(source: Any, kind: Kind, where: str) -> Any:
    """A path, address, bytes or object, out of the object that OpenAI or Anthropic puts round it."""
    if not isinstance(source, Mapping):
        return source
    inner = next((source[key] for key in ("url", "path") if source.get(key) is not None), None)
    if inner is not None:
        return inner
    if isinstance(source.get("data"), str):
        media_type = source.get("media_type") or f"{kind}/{source.get('format') or 'unknown'}"
        return f"data:{media_type};base64,{source['data']}"
    raise InputError(f"{where} has a {kind} without a source: give its 'url', or its 'data' in base64")
