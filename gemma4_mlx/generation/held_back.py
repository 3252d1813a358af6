"""How much of a text that is still being written must wait, because it may be the start of something to be cut out."""

from __future__ import annotations

from collections.abc import Sequence


def partial_suffix(text: str, wanted: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `wanted` without completing it; 0 if there is none."""
    longest = max((len(string) for string in wanted), default=0) - 1
    for length in range(min(longest, len(text)), 0, -1):
        tail = text[-length:]
        if any(len(string) > length and string.startswith(tail) for string in wanted):
            return length
    return 0
