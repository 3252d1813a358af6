"""The fields of a JSON body, each read once and checked; what is not known by its name is refused by its name."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Collection
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from .refusals import Refusal

MOST_BODY_BYTES = 64 * 2**20
"""Of a JSON body: a few photographs, or ten minutes of sound, in base64."""
_DEEPEST = 64
_SECONDS_FOR_A_PIECE = 60
_MOST_VALUES = 200_000


async def read_body(request: Request) -> Fields:
    """A request's JSON object.

    Raises:
        Refusal: it is too large, no JSON, no object, or too deep.
    """
    body = bytearray()
    check_size(request, MOST_BODY_BYTES)
    pieces = request.stream()
    try:
        while (piece := await asyncio.wait_for(anext(pieces, None), _SECONDS_FOR_A_PIECE)) is not None:
            body += piece
            if len(body) > MOST_BODY_BYTES:
                raise too_large(MOST_BODY_BYTES)
    except ClientDisconnect:
        raise Refusal("the connection was closed") from None
    except TimeoutError:
        raise Refusal("the body does not come", status=408) from None
    return Fields(parse_object(bytes(body)))


def check_size(request: Request, most: int) -> None:
    """Refuse a body that says of itself that it is too large, before any of it has come."""
    said = request.headers.get("content-length", "0")
    if not said.isdecimal() or int(said) > most:
        raise too_large(most)


def too_large(most: int) -> Refusal:
    """What a body of more than so many bytes gets."""
    return Refusal(f"the body is larger than {most >> 20} MiB: send less at a time", status=413)


def parse_object(body: bytes | str) -> dict[str, Any]:
    """JSON text as an object. Raises Refusal."""
    try:
        value = json.loads(body, parse_constant=_no_number)
    except RecursionError:
        raise Refusal(f"the JSON is nested deeper than {_DEEPEST}") from None
    except ValueError as error:
        raise Refusal(f"the body is not JSON: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise Refusal("the body is no JSON object")
    _check_depth(value)
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check_depth(value: Any) -> None:
    level, depth, count = [value], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > _DEEPEST:
            raise Refusal(f"the JSON is nested deeper than {_DEEPEST}")
        if count > _MOST_VALUES:
            raise Refusal(f"the JSON has more than {_MOST_VALUES:,} values")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = inner


class Fields:
    """A JSON object that is taken apart. A field that is null is one that is not there.

    Args:
        values: the object.
        where: its place in the body, such as `messages[0].`.
    """

    def __init__(self, values: dict[str, Any], where: str = "") -> None:
        self._left = {name: value for name, value in values.items() if value is not None}
        self._nulls = {name for name, value in values.items() if value is None}
        self._where = where

    def has_null(self, field: str) -> bool:
        """Whether a field is there and says null, where that means something."""
        return field in self._nulls

    def name(self, field: str) -> str:
        """A field's place in the body."""
        return f"{self._where}{field}"

    def refuse(self, field: str, problem: str) -> NoReturn:
        """Raise the Refusal that names a field."""
        name = self.name(field)
        raise Refusal(f"{name}: {problem}", param=name)

    def take(self, field: str, *kinds: type, needed: bool = False) -> Any:
        """A field's value, None if it is not there; of one of these kinds."""
        value = self._left.pop(field, None)
        if value is None:
            if needed:
                self.refuse(field, "is missing")
            return None
        if type(value) not in kinds:
            wanted = " or ".join(_KINDS[kind] for kind in kinds if kind is not float or int not in kinds)
            self.refuse(field, f"must be {wanted}, not {_KINDS.get(type(value), 'this')}")
        return value

    def number(self, field: str, least: float, most: float = math.inf) -> float | None:
        """A number in a range."""
        value = self.take(field, int, float)
        if value is not None and not least <= value <= most:
            self.refuse(field, f"must be {_range(least, most)}")
        return value if value is None else float(value)

    def whole(self, field: str, least: int, most: int = 2**63 - 1) -> int | None:
        """A whole number in a range."""
        value = self.take(field, int, float)
        if isinstance(value, float):
            if not value.is_integer():
                self.refuse(field, "must be a whole number")
            value = int(value)
        if value is not None and not least <= value <= most:
            self.refuse(field, f"must be {_range(least, most)}")
        return value

    def choice(self, field: str, words: Collection[str]) -> str | None:
        """One of some words."""
        value: str | None = self.take(field, str)
        if value is not None and value not in words:
            self.refuse(field, f"must be one of {', '.join(words)}")
        return value

    def inner(self, field: str, needed: bool = False) -> Fields | None:
        """An object within."""
        value = self.take(field, dict, needed=needed)
        return None if value is None else Fields(value, f"{self.name(field)}.")

    def ignore(self, *fields: str) -> None:
        """What changes nothing about an answer."""
        for field in fields:
            self._left.pop(field, None)

    def only(self, field: str, *neutral: Any) -> None:
        """What can be said here in one way only."""
        value = self._left.pop(field, None)
        if value is not None and value not in neutral:
            self.refuse(field, "is not supported here: leave it out")

    def end(self) -> None:
        """Nothing else may be there."""
        for field in self._left:
            self.refuse(field, "is not supported here: leave it out")


_KINDS: dict[type, str] = {
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def _range(least: float, most: float) -> str:
    return f"{least:g} or more" if most in (math.inf, 2**63 - 1) else f"from {least:g} to {most:g}"
