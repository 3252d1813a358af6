"""The last few lines of a terminal that are drawn again and again, beneath what is finished.

Everything above them is in the terminal's own scrollback and is never touched. Answers, live transcription, the
demonstration and all that shows how far it is draw with this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from .terminal import draw, terminal_size

# Line by line: tmux keeps a screen that is cleared from its first row on in its scrollback.
_CLEAR_LINE, _UP_AND_CLEAR = "\r\x1b[2K", "\x1b[1A\x1b[2K"
# A line that is wider than it was thought to be (terminals disagree on emoji) is cut at the edge, so that it stays one.
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"
_UNSURE_SECONDS = 0.3
"""tmux tells of a second new size up to 0.25 s after it has it. Lines drawn meanwhile are of the wrong size: to erase
them by counting rows could erase what stands above."""


_LOW, _NARROW = 10, 40
"""Rows and columns of a small terminal, which a large one may become at once."""


@dataclass(frozen=True)
class Line:
    """One line for the screen: with its colour codes, and how many cells of the screen it takes."""

    coded: str
    cells: int


class LiveTail:
    """Lines at the end of `stream`, a terminal, that can be taken back.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._drawn: list[int] = []  # cells of each line
        self._size = self.size
        self._sure_at = clock()

    @property
    def size(self) -> os.terminal_size:
        """Columns and rows of the terminal, now."""
        return terminal_size(self._stream)

    def replace(self, above: Sequence[Line], live: Sequence[Line]) -> None:
        """Put lines above the live ones for good, and draw other live ones: none while the terminal is being resized.

        So few of them, the last, that they can still be reached when the terminal is made half as low and half as wide,
        or small. One row is left for the cursor, where the terminal may echo a key such as ^C.
        """
        self._look_at_size()
        size = self._size
        kept = _within_reach(live, size) if size.lines > 1 and self._clock() >= self._sure_at else []
        standing = "".join(f"{line.coded}\n" for line in above)
        draw(self._stream, self._erased() + standing + "".join(_drawn(line, size.columns) for line in kept))
        self._drawn = [min(line.cells, size.columns) for line in kept]

    def go_on(self, above: Sequence[Line], text: str) -> None:
        """Put lines above for good, and then the beginning of a line that the next ones go on with; nothing is live."""
        self._look_at_size()
        standing = "".join(f"{line.coded}\n" for line in above)
        draw(self._stream, self._erased() + standing + text)
        self._drawn = []

    def _look_at_size(self) -> None:
        if (size := self.size) != self._size:
            self._size, self._sure_at = size, self._clock() + _UNSURE_SECONDS

    def _erased(self) -> str:
        if not self._drawn:
            return ""
        # A terminal that was made narrower has wrapped the lines it had.
        rows = sum(_rows(cells, self._size.columns) for cells in self._drawn)
        return _CLEAR_LINE + _UP_AND_CLEAR * rows


def _within_reach(lines: Sequence[Line], size: os.terminal_size) -> Sequence[Line]:
    """The last of the lines, at least one: as many as can be erased in a smaller terminal, which wraps them."""
    columns, rows = max(1, min(_NARROW, size.columns // 2)), min(_LOW, size.lines // 2) - 1
    kept = 0
    while kept < len(lines) and (rows := rows - _rows(lines[-kept - 1].cells, columns)) >= 0:
        kept += 1
    return lines[-max(1, kept) :]


def _rows(cells: int, columns: int) -> int:
    """How many rows of a terminal a line takes."""
    return max(1, -(-cells // columns))


def _drawn(line: Line, columns: int) -> str:
    # Wrapped where its width is beyond doubt: it may be shown after a resize that is not known here yet, and would then
    # be counted as wrapped.
    is_certain = line.coded.isascii() and line.cells <= columns
    return f"{line.coded}\n" if is_certain else f"{_WRAP_OFF}{line.coded}\n{_WRAP_ON}"
