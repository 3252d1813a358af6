"""Gemma 4's notation for tool calls → name and arguments.

`call:get_weather{city:<|"|>Paris<|"|>,days:3,units:{wind:null},hours:[9,12],hourly:true}`: JSON with bare keys and with
`<|"|>` round strings, as the checkpoints' chat template writes it. Only the text between the call's markers comes here;
finding the markers is `channels.py`'s work, running the tool the caller's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

STRING_DELIMITER = '<|"|>'

_HEAD = re.compile(r"\s*call:\s*([^\s{}]+)\s*")
_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BARE_KEY = re.compile(r"[^:,{}\[\]]+")
# `None`: templates without a branch for null render Python's spelling, and models repeat it.
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "None": None}
_WORD = re.compile("|".join(_WORDS))
_MAX_DEPTH = 64


@dataclass(frozen=True)
class ToolCall:
    """A tool the model wants run.

    Attributes:
        name: the tool's name as declared.
        arguments: parameter name → str, int, float, bool, None, list or dict.
    """

    name: str
    arguments: dict[str, Any]


def parse_tool_call(text: str) -> ToolCall | None:
    """Read one call, `call:name{…}`, or return None when the text is anything else, even in part.

    Strings stand between two `<|"|>`, without escapes; JSON's `"…"` with its escapes is read as well. Of a key that is
    given twice the last value counts.
    """
    reader = _Reader(text)
    try:
        return reader.call()
    except _MalformedCallError:
        return None


class _MalformedCallError(Exception):
    pass


class _Reader:
    """Recursive descent over one call; every method starts at `position` and leaves it behind what it read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def call(self) -> ToolCall:
        name = self._match(_HEAD)[1]
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
        if depth > _MAX_DEPTH:
            raise _MalformedCallError
        self._match(_SPACE)
        match self.text[self.position : self.position + 1]:
            case "{":
                return self._object(depth)
            case "[":
                return self._array(depth)
            case "<" | '"':
                return self._string()
        if word := _WORD.match(self.text, self.position):
            self.position = word.end()
            return _WORDS[word[0]]
        return self._number()

    def _number(self) -> int | float:
        digits = self._match(_NUMBER)[0]
        try:
            return int(digits) if digits.lstrip("-").isdecimal() else float(digits)
        except ValueError as error:  # Python refuses integers of more than 4300 digits
            raise _MalformedCallError from error

    def _key(self) -> str:
        self._match(_SPACE)
        if self.text.startswith((STRING_DELIMITER, '"'), self.position):
            return self._string()
        key = self._match(_BARE_KEY)[0].strip()
        if not key:
            raise _MalformedCallError
        return key

    def _string(self) -> str:
        if self.text.startswith('"', self.position):
            try:
                string, self.position = json.JSONDecoder(strict=False).raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                raise _MalformedCallError from error
            return string
        self._expect(STRING_DELIMITER)
        end = self.text.find(STRING_DELIMITER, self.position)
        if end < 0:
            raise _MalformedCallError
        string = self.text[self.position : end]
        self.position = end + len(STRING_DELIMITER)
        return string

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
