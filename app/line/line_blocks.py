"""Messages of several lines, between triple quotes. A space in front of them makes words of them."""

from __future__ import annotations

BLOCK = '"""'
"""Opens and closes a message of several lines, in which nothing is a command or the name of a file."""


def unblocked(message: str) -> str | None:
    """What a message has between triple quotes; None if it is not between them."""
    message = message.rstrip()
    if message.startswith(BLOCK) and message.endswith(BLOCK) and message.count(BLOCK) == 2:
        return message[len(BLOCK) : -len(BLOCK)].strip("\n")
    return None


def is_open(message: str) -> bool:
    """Whether a message began with triple quotes and has not come to others."""
    return message.startswith(BLOCK) and message.count(BLOCK) == 1
