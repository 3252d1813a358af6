"""What a model writes, spelled out in tests: `<|"|>` and the other markers stand for the control tokens."""

from __future__ import annotations

import re

from gemma4_mlx.generation.channels import MARKERS
from gemma4_mlx.generation.tool_calls import STRING_DELIMITER, CallText

_MARKER = re.compile("(" + "|".join(map(re.escape, MARKERS)) + ")")


def call_text(spelled: str) -> CallText:
    """The text of a call in which every `<|"|>` is the control token."""
    pieces = spelled.split(STRING_DELIMITER)
    delimiters, length = [], 0
    for piece in pieces[:-1]:
        length += len(piece)
        delimiters.append(length)
        length += 1
    return CallText('"'.join(pieces), tuple(delimiters))


def events(spelled: str) -> list[str]:
    """Text and markers in turns, as a parser is fed: markers are at odd places."""
    return _MARKER.split(spelled)
