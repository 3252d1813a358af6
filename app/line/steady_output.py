"""A terminal that is told in which column to go on, behind every character whose width it may see differently.

Whoever draws a line counts its columns, and steps back over them to change it. Terminals disagree about emoji, accents
in two parts and the vowels of Hindi: a count that is one too large steps into the prompt and draws over it.
"""

from __future__ import annotations

import os
import unicodedata

from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.utils import get_cwidth

from ..terminal import terminal_stream

ROOM = "\U0010fffd"
"""Stands behind a vowel that some terminals give a column of its own, so that nothing else is drawn there."""


def steady_output() -> Output:
    """For the terminal on stdout or stderr."""
    term = os.environ.get("TERM")
    return _SteadyOutput.from_pty(terminal_stream(), term=term, default_color_depth=ColorDepth.from_env())


def needs_room(character: str) -> bool:
    """Whether a character belongs to the one before it, but takes a column of its own on some terminals."""
    return unicodedata.category(character) == "Mc" and get_cwidth(character) == 0


class _SteadyOutput(Vt100_Output):
    """Knows the column it is in, as prompt_toolkit counts, which writes one cell at a time."""

    _column = 0
    _room: int | None = None  # the column that the last cell may have been drawn over

    def write(self, data: str) -> None:
        if data.endswith(("\r", "\n")):
            super().write(data)
            self._column = 0
            if data != "\r":
                self._room = None
        elif data == ROOM:
            self._put("" if self._column == self._room else " ", 1)
        elif _is_plain(data):
            super().write(data)
            self._column += get_cwidth(data)
        else:
            width = get_cwidth(data)
            rooms = sum(map(needs_room, data))
            super().write(" " * (width + rooms))  # it may leave a part of that as it was
            self._go_to(self._column)
            self._put(data, width)
            self._room = self._column if rooms else None

    def cursor_forward(self, amount: int) -> None:
        self._move(amount)

    def cursor_backward(self, amount: int) -> None:
        self._move(-amount)

    def reset_cursor_key_mode(self) -> None:
        """Said whenever drawing begins, which it does in the first column."""
        super().reset_cursor_key_mode()
        self._column = 0

    def disable_bracketed_paste(self) -> None:
        """Not said: what is pasted while a note is put above the line comes in one piece, too.

        Whoever runs the chat takes it back in the end (`typed_ahead.keys_wait`).
        """

    def _move(self, amount: int) -> None:
        if amount:
            self._column = max(0, self._column + amount)
            self._go_to(self._column)

    def _put(self, data: str, width: int) -> None:
        super().write(data)
        self._column += width
        self._go_to(self._column)

    def _go_to(self, column: int) -> None:
        if column < self.get_size().columns:
            self.write_raw(f"\x1b[{column + 1}G")


def _is_plain(cell: str) -> bool:
    """Whether all terminals give a cell the same width."""
    return cell.isascii() or (len(cell) == 1 and cell.isalnum() and unicodedata.east_asian_width(cell) != "A")
