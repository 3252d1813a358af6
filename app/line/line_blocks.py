"""Messages of several lines, between triple quotes."""

from __future__ import annotations

BLOCK = '"""'
"""Opens and closes a message of several lines."""


def unblocked(message: str) -> str:
    """A message without the triple quotes around it."""
    stripped = message.strip()
    if len(stripped) >= 2 * len(BLOCK) and stripped.startswith(BLOCK) and stripped.endswith(BLOCK):
        return stripped[len(BLOCK) : -len(BLOCK)].strip("\n")
    return message


def is_open(message: str) -> bool:
    """Whether a message began with triple quotes and has not ended with them."""
    stripped = message.strip()
    return stripped.startswith(BLOCK) and (len(stripped) < 2 * len(BLOCK) or not stripped.endswith(BLOCK))
