"""Ends an answer at strings the caller names, wherever the borders of tokens fall."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


class StopStrings:
    """Watches the answer as it grows; what could still become a stop string is held back.

    The string that is complete first ends the answer; it and everything after it are cut off.
    """

    def __init__(self, strings: str | Iterable[str] = ()) -> None:
        """Raises ValueError for what is no string, and for an empty one, which would end every answer at once."""
        given = [strings] if isinstance(strings, str) else strings
        if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable):
            raise ValueError(f"stop must be a string or a list of strings, not {given!r}")
        self._strings = tuple(given)
        if wrong := [string for string in self._strings if not isinstance(string, str)]:
            raise ValueError(f"stop must be a string or a list of strings, not a list with {wrong[0]!r} in it")
        if not all(self._strings):
            raise ValueError("a stop string must not be empty")
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """Take the next piece; return what is safe to show. Once `hit` is True there is nothing more to feed."""
        text = self._held + text
        # The earliest *end* decides, not the earliest start: it is the match that pieces of any size meet first.
        ends = [(at + len(string), at) for string in self._strings if (at := text.find(string)) >= 0]
        if ends:
            self.hit = True
            self._held = ""
            return text[: min(ends)[1]]
        safe = len(text) - partial_suffix(text, self._strings)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """What was held back, when nothing more can complete it."""
        held, self._held = self._held, ""
        return held


def partial_suffix(text: str, wanted: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `wanted` without completing it; 0 if there is none."""
    longest = max((len(string) for string in wanted), default=0) - 1
    for length in range(min(longest, len(text)), 0, -1):
        tail = text[-length:]
        if any(len(string) > length and string.startswith(tail) for string in wanted):
            return length
    return 0
