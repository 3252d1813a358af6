"""Pictures and sounds given beside the words, put into the message they are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from .messages import Messages
from .sources import FileSource


def with_media(messages: Messages, images: Iterable[Any] = (), audio: Iterable[Any] = ()) -> Messages:
    """Messages with pictures, then sounds, before the words of the last user message; what was given stays as it is.

    Raises:
        ValueError: `images` or `audio` is no list.
        InputError: there is no user message.
    """
    pictures, sounds = listed(images, "images"), listed(audio, "audio")
    parts = [{"type": "image", "image": picture} for picture in pictures]
    parts += [{"type": "audio", "audio": sound} for sound in sounds]
    if not parts:
        return messages
    if isinstance(messages, str):
        return [{"role": "user", "content": [*parts, {"type": "text", "text": messages}]}]
    # What is no list of messages is refused by `read_messages`, which says why.
    if isinstance(messages, Mapping) or not isinstance(messages, Iterable):
        return messages
    conversation = list(messages)
    for place in reversed(range(len(conversation))):
        message = conversation[place]
        if isinstance(message, Mapping) and message.get("role") == "user":
            key = next((key for key in ("content", "parts") if message.get(key) is not None), "content")
            said = message.get(key)
            words = list(said) if isinstance(said, list | tuple) else [] if said is None else [said]
            conversation[place] = {**message, key: [*parts, *words]}
            return conversation
    raise InputError("there is no user message to put the pictures or sounds in: add one")


def listed(media: Iterable[Any], name: str) -> list[Any]:
    """Pictures or sounds as a list. Raises ValueError for a single one, which is none."""
    is_one = isinstance(media, FileSource | Mapping | np.ndarray) or not isinstance(media, Iterable)
    if is_one or (isinstance(media, tuple) and len(media) == 2 and isinstance(media[1], int | float | np.number)):
        raise ValueError(f"{name} must be a list, not a {type(media).__name__}: give {name}=[…], also for one")
    return list(media)
