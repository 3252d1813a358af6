"""A call of a function as a person sees it before it runs: name and every argument, bounded, with nothing hidden.

A call is the model's words, and a page the model has read may have put them into its mouth. Each row of an argument
begins with a bar, so that no argument can imitate another row, and the beginning and the end of a long one are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rich.cells import cell_len

from ..printable import on_one_line, spelled

_BAR = "│ "
_FEWEST_CHARACTERS = 20  # of a row
_MOST_ROWS = 12  # in a terminal of any height
_ROWS_OF_THE_QUESTION = 4  # of a terminal: the question itself, broken in a narrow one, and what is typed
# The ends of lines within a text, which a person who looks at all of it wants to see as such.
_NEW_LINE = re.compile(r"(?<!\\)((?:\\\\)*\\n)")


def call_rows(
    name: str, arguments: Mapping[str, object], columns: int, rows: int, mark: str = "→ "
) -> tuple[list[str], bool]:
    """A call in rows that leave room for a question beneath them in a terminal of this size; and whether that is all.

    Args:
        mark: in front of the name.
    """
    short = mark + one_row(name, arguments)
    if _cells(short) <= columns:
        return [short], True
    width = max(columns - len(_BAR), _FEWEST_CHARACTERS)
    room = max(1, min(_MOST_ROWS, rows - _ROWS_OF_THE_QUESTION) - 1)
    texts = [f"{_name(key)} = {spelled(value)}" for key, value in arguments.items()]
    left_out = len(texts) - room + 1 if len(texts) > room else 0
    texts = texts[: len(texts) - left_out]
    shares = _shares([len(_broken(text, width)) for text in texts], room - bool(left_out))
    shown = [mark + _cut(_name(name), columns - len(mark))]
    is_all = not left_out
    for text, share in zip(texts, shares, strict=True):
        broken = _broken(text, width)
        if len(broken) > share:
            is_all = False
            broken = _broken(_cut(text, width * share), width)
        shown += [_BAR + row for row in broken]
    if left_out:
        shown.append(f"{_BAR}… and {left_out} more arguments")
    return shown, is_all


def one_row(name: str, arguments: Mapping[str, object]) -> str:
    """A call on one line, however long: `weather(city="Plzeň", days=3)`."""
    return f"{_name(name)}({', '.join(f'{_name(key)}={spelled(value)}' for key, value in arguments.items())})"


def all_rows(name: str, arguments: Mapping[str, object], columns: int) -> list[str]:
    """All of a call; lines of a text are rows of their own."""
    width = max(columns - len(_BAR), _FEWEST_CHARACTERS)
    rows = _broken(f"→ {_name(name)}", columns)
    for key, value in arguments.items():
        for line in _NEW_LINE.sub("\\1\n", f"{_name(key)} = {spelled(value)}").split("\n"):
            rows += [_BAR + row for row in _broken(line, width)]
    return rows


def _name(name: str) -> str:
    """A name as it is if it can be one in a program, else quoted."""
    return on_one_line(name) if name.isascii() and name.isidentifier() else spelled(name)


def _shares(wanted: list[int], room: int) -> list[int]:
    """How many rows each gets: what it wants, if that is no more than its share of those that are left."""
    shares = [0] * len(wanted)
    for done, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[index] = min(wanted[index], max(1, room // (len(wanted) - done)))
        room -= shares[index]
    return shares


def _broken(text: str, width: int) -> list[str]:
    """A text in rows of `width` cells."""
    rows, row, cells = [], "", 0
    for character in text:
        if (cells := cells + _cells(character)) > width:
            rows.append(row)
            row, cells = "", _cells(character)
        row += character
    return [*rows, row]


def _cut(text: str, cells: int) -> str:
    """The beginning and the end of a text, and in between how much is missing."""
    if _cells(text) <= cells:
        return text
    room = max(0, cells - len(f" … {len(text):,} more characters … "))
    head = _broken(text, max(2, room * 2 // 3))[0]
    tail = _broken(text[::-1], max(2, room // 3))[0][::-1]
    return f"{head} … {len(text) - len(head) - len(tail):,} more characters … {tail}"


def _cells(text: str) -> int:
    """Cells of the screen; a mark above a letter counts as well, lest there be a thousand of them."""
    return max(len(text), cell_len(text))
