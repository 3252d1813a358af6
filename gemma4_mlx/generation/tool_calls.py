"""Gemma 4's notation for tool calls → name and arguments.

`call:get_weather{city:<|"|>Paris<|"|>,days:3,units:{wind:null},hours:[9,12],hourly:true}`: JSON with bare keys and with
the control token `<|"|>` round strings, as the checkpoints' chat template writes it. Here it is read as written, to the
letter; what models write instead is `loose_calls.py`'s work, finding the call `channels.py`'s, running the tool the
caller's.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

STRING_DELIMITER = '<|"|>'
MAX_DEPTH = 64

_HEAD = re.compile(r"\s*call:\s*([^\s{}]+)\s*")
_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BARE_KEY = re.compile(r"[^:,{}\[\]]+")
# `None`: templates without a branch for null render Python's spelling, and models repeat it.
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "None": None}
_WORD = re.compile("|".join(_WORDS))


@dataclass(frozen=True)
class ToolCall:
    """A tool the model wants run.

    Attributes:
        name: the tool's name as declared.
        arguments: parameter name → str, int, float, bool, None, list or dict.
        id: by which a result says what it is of; another one for every call.
    """

    name: str
    arguments: dict[str, Any]
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(8)}", compare=False, repr=False)


@dataclass(frozen=True)
class CallText:
    """What the model wrote between the control tokens of a call.

    A string ends at the control token `<|"|>`, and letters that spell it are a part of the string. So the text alone
    does not say what is meant.

    Attributes:
        text: as a person reads it: `call:f{city:"Paris"}`, a quotation mark for every control token.
        delimiters: where in `text` these quotation marks stand, in ascending order.
    """

    text: str
    delimiters: tuple[int, ...] = ()

    def is_delimiter(self, position: int) -> bool:
        """Whether the control token stands there."""
        return self.next_delimiter(position) == position

    def next_delimiter(self, position: int) -> int | None:
        """Where the first control token from `position` on stands."""
        index = bisect_left(self.delimiters, position)
        return self.delimiters[index] if index < len(self.delimiters) else None

    def has_delimiter(self, start: int, end: int) -> bool:
        """Whether a control token stands from `start` up to, but not at, `end`."""
        first = self.next_delimiter(start)
        return first is not None and first < end

    def json_string(self, position: int) -> tuple[str, int] | None:
        """JSON's `"…"` with its escapes, which begins at `position`: its value and its end; None if there is none."""
        try:
            string, end = json.JSONDecoder(strict=False).raw_decode(self.text, position)
        except (json.JSONDecodeError, RecursionError):
            return None
        return None if self.has_delimiter(position, end) else (string, end)


def parse_tool_call(written: CallText) -> ToolCall | None:
    """Read one call, `call:name{…}`, or return None when the text is anything else, even in part.

    Strings stand between two control tokens `<|"|>`, without escapes; JSON's `"…"` with its escapes is read as well. Of
    a key that is given twice the last value counts.
    """
    try:
        return _Reader(written).call()
    except _MalformedCallError:
        return None


def read_number(digits: str) -> int | float | None:
    """JSON's number; None for one that Python cannot hold."""
    try:
        number = int(digits) if digits.lstrip("-").isdecimal() else float(digits)
    except ValueError:  # integers of more than 4300 digits
        return None
    return None if number in (math.inf, -math.inf) else number


class _MalformedCallError(Exception):
    pass


class _Reader:
    """Recursive descent over one call; every method starts at `position` and leaves it behind what it read."""

    def __init__(self, written: CallText) -> None:
        self.written = written
        self.text = written.text
        self.position = 0

    def call(self) -> ToolCall:
        name = self._letters(_HEAD, group=1)
        arguments = self._object(depth=0)
        self._match(_SPACE)
        if self.position != len(self.text):
            raise _MalformedCallError
        return ToolCall(name, arguments)

    def _object(self, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self._expect("{")
        if self._accept("}"):
            return members
        while True:
            key = self._key()
            self._expect(":")
            members[key] = self._value(depth + 1)
            if self._accept("}"):
                return members
            self._expect(",")

    def _array(self, depth: int) -> list[Any]:
        items: list[Any] = []
        self._expect("[")
        if self._accept("]"):
            return items
        while True:
            items.append(self._value(depth + 1))
            if self._accept("]"):
                return items
            self._expect(",")

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _MalformedCallError
        self._match(_SPACE)
        match self.text[self.position : self.position + 1]:
            case "{":
                return self._object(depth)
            case "[":
                return self._array(depth)
            case '"':
                return self._string()
        if word := _WORD.match(self.text, self.position):
            self.position = word.end()
            return _WORDS[word[0]]
        number = read_number(self._match(_NUMBER)[0])
        if number is None:
            raise _MalformedCallError
        return number

    def _key(self) -> str:
        self._match(_SPACE)
        if self.text.startswith('"', self.position):
            return self._string()
        key = self._letters(_BARE_KEY).strip()
        if not key:
            raise _MalformedCallError
        return key

    def _string(self) -> str:
        start = self.position
        if not self.written.is_delimiter(start):
            found = self.written.json_string(start)
            if found is None:
                raise _MalformedCallError
            string, self.position = found
            return string
        end = self.written.next_delimiter(start + 1)
        if end is None:
            raise _MalformedCallError
        self.position = end + 1
        return self.text[start + 1 : end]

    def _letters(self, pattern: re.Pattern[str], group: int = 0) -> str:
        """What matches, if no control token is in it."""
        start = self.position
        found = self._match(pattern)
        if self.written.has_delimiter(start, found.end()):
            raise _MalformedCallError
        return found[group]

    def _accept(self, token: str) -> bool:
        self._match(_SPACE)
        if not self.text.startswith(token, self.position):
            return False
        self.position += len(token)
        return True

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise _MalformedCallError

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self.text, self.position)
        if found is None:
            raise _MalformedCallError
        self.position = found.end()
        return found
