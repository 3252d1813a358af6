"""The last few lines of a terminal that are drawn again and again, beneath what is finished.

Everything above them is in the terminal's own scrollback and is never touched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from .markdown_lines import Line

# Line by line: tmux keeps a screen that is cleared from its first row on in its scrollback.
_CLEAR_LINE, _UP_AND_CLEAR = "\r\x1b[2K", "\x1b[1A\x1b[2K"
# A line that is wider than it was thought to be (terminals disagree on emoji) is cut at the edge, so that it stays one.
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"


class LiveTail:
    """Lines at the end of `stream`, a terminal, that can be taken back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn: list[int] = []  # cells of each line

    @property
    def size(self) -> os.terminal_size:
        """Columns and rows of the terminal, now."""
        return os.get_terminal_size(self._stream.fileno())

    @property
    def rows(self) -> int:
        """How many lines may be live: so few that they can still be reached when the terminal is made half as wide.

        One row is left for the cursor, where the terminal may echo a key such as ^C.
        """
        return max(1, (self.size.lines - 1) // 2)

    def replace(self, above: Sequence[Line], live: Sequence[Line]) -> None:
        """Put lines above the live ones for good, and draw other live ones."""
        kept = live[-self.rows :]
        output = self._erased() + "".join(f"{line.coded}\n" for line in above)
        if kept:
            output += _WRAP_OFF + "".join(f"{line.coded}\n" for line in kept) + _WRAP_ON
        try:
            self._stream.write(output)
            self._stream.flush()
        finally:  # Ctrl-C in the middle: the rest is still in the buffer, and goes out with the next write
            columns = self.size.columns
            self._drawn = [min(line.cells, columns) for line in kept]

    def _erased(self) -> str:
        if not self._drawn:
            return ""
        # A terminal that was made narrower has wrapped the lines it had.
        columns = self.size.columns
        rows = sum(max(1, -(-cells // columns)) for cells in self._drawn)
        return _CLEAR_LINE + _UP_AND_CLEAR * rows
