"""`uniqueItems` of JSON Schema, which llguidance does not enforce: no item of an array may come twice.

A grammar cannot remember what has been written, so the answer is followed here as it grows, and a piece of text that
would complete an item for the second time is refused. So is one after which nothing else could come: of two values that
a pattern allows, a third item must not even begin.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, NamedTuple


class _Frame(NamedTuple):
    """An object or array that is still open."""

    distinct: bool  # its items must differ
    is_array: bool
    key: str | None  # in an object: of the member being written; in an array: the one it stands under
    items: frozenset[str] = frozenset()
    spellings: tuple[str, ...] = ()  # of the items, as they were written
    item_start: int = -1  # where the item being written begins
    expects_key: bool = False


class _State(NamedTuple):
    frames: tuple[_Frame, ...] = ()
    string_start: int = -1  # inside a string
    escaped: bool = False


class DistinctItems:
    """Follows an answer in JSON.

    Args:
        keys: names of the members whose arrays must not repeat an item; None: all arrays.
    """

    def __init__(self, keys: Collection[str] | None) -> None:
        self._keys = keys
        self._text = ""
        self._state = _State()
        self._before = self._text, self._state

    def feed(self, text: str) -> bool:
        """Take more of the answer; False if that would repeat an item, and then nothing is taken."""
        whole, state = self._text + text, self._state
        for position in range(len(self._text), len(whole)):
            after = self._after(state, whole, position)
            if after is None:
                return False
            state = after
        self._before = self._text, self._state
        self._text, self._state = whole, state
        return True

    def undo(self) -> None:
        """Take back what the last call of `feed` took."""
        self._text, self._state = self._before

    def repetitions(self) -> list[str]:
        """What may come next and would repeat an item in the end, each up to the letter that completes it."""
        found: list[str] = []
        for frame in self._state.frames:
            if not frame.distinct:
                continue
            if frame.item_start >= 0:
                begun, space = self._text[frame.item_start :], ""
            elif self._text.endswith((",", ", ")):
                begun, space = "", "" if self._text.endswith(" ") else " "
            else:
                continue
            for spelling in frame.spellings:
                if spelling.startswith(begun):
                    rest = space + spelling[len(begun) :]
                    # A number or a word ends only with what follows it.
                    found += [rest] if spelling[-1] in '"]}' else [rest + ",", rest + "]"]
        return found

    def _after(self, state: _State, text: str, position: int) -> _State | None:
        letter = text[position]
        if state.string_start >= 0:
            return self._in_string(state, text, position)
        if letter == '"':
            return self._item_begins(state, position)._replace(string_start=position)
        frames = state.frames
        match letter:
            case "{" | "[":
                state = self._item_begins(state, position)
                key = frames[-1].key if frames else None
                is_member = bool(frames) and not frames[-1].is_array and key in (self._keys or ())
                distinct = letter == "[" and (self._keys is None or is_member)
                opened = _Frame(distinct, letter == "[", key, expects_key=letter == "{")
                return state._replace(frames=(*state.frames, opened))
            case "}" | "]":
                closed = self._item_ends(state, text, position)
                return closed and self._item_ends(closed._replace(frames=closed.frames[:-1]), text, position + 1)
            case ",":
                ended = self._item_ends(state, text, position)
                if ended is None or not frames:
                    return ended
                top = ended.frames[-1]
                return ended._replace(frames=(*frames[:-1], top._replace(expects_key=not top.is_array)))
            case ":" | " ":
                return state
        return self._item_begins(state, position)

    def _in_string(self, state: _State, text: str, position: int) -> _State | None:
        if state.escaped:
            return state._replace(escaped=False)
        if text[position] == "\\":
            return state._replace(escaped=True)
        if text[position] != '"':
            return state
        start, state = state.string_start, state._replace(string_start=-1)
        if state.frames and state.frames[-1].expects_key:
            key = json.loads(text[start : position + 1], strict=False)
            top = state.frames[-1]._replace(key=key, expects_key=False)
            return state._replace(frames=(*state.frames[:-1], top))
        return self._item_ends(state, text, position + 1)

    def _item_begins(self, state: _State, position: int) -> _State:
        top = state.frames[-1] if state.frames else None
        if top is None or not top.distinct or top.item_start >= 0:
            return state
        return state._replace(frames=(*state.frames[:-1], top._replace(item_start=position)))

    def _item_ends(self, state: _State, text: str, end: int) -> _State | None:
        """An item of the innermost array, if one is being written, ends at `end`; None if it was there before."""
        top = state.frames[-1] if state.frames else None
        if top is None or top.item_start < 0:
            return state
        item = json.dumps(
            _plain(json.loads(text[top.item_start : end], strict=False, parse_int=_whole)), sort_keys=True
        )
        if item in top.items:
            return None
        spellings = (*top.spellings, text[top.item_start : end])
        top = top._replace(items=top.items | {item}, spellings=spellings, item_start=-1)
        return state._replace(frames=(*state.frames[:-1], top))


def _whole(digits: str) -> int | str:
    """A whole number; as it is spelled if it has more digits than Python reads (4300)."""
    return int(digits) if len(digits) < 4000 else digits


def _plain(value: Any) -> Any:
    """The same for values that JSON Schema takes for equal: 1 and 1.0, but not 1 and true."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
