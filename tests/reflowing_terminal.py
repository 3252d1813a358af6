"""A terminal in memory that keeps all it has shown and wraps it anew when its width changes, as tmux and iTerm2 do.

It knows what this program draws with, and refuses everything else. Not a test itself.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
from dataclasses import dataclass, field

from rich.cells import cell_len

_TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|[\s\S]")


@dataclass
class _Row:
    """Cells of the screen; `goes_on`: the next row is the same line, broken by the terminal."""

    cells: list[str] = field(default_factory=list)
    goes_on: bool = False


class ReflowingTerminal:
    """A stream that can be written to and asked for its size.

    Args:
        columns, rows: of the screen.
    """

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._master, self._terminal = os.openpty()
        self._rows = [_Row()]
        self._row = self._column = 0
        self._wraps = True
        self.resize(columns, rows)

    def close(self) -> None:
        os.close(self._master)
        os.close(self._terminal)

    def fileno(self) -> int:
        return self._terminal

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def resize(self, columns: int, rows: int) -> None:
        """Another size; lines that the terminal broke are broken anew."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.columns, self.rows = columns, rows
        while len(self._rows) > self._row + 1 and not self._rows[-1].cells:  # a lower screen gives these up first
            self._rows.pop()
        lines: list[list[str]] = [[]]
        cursor = (0, 0)
        for number, row in enumerate(self._rows):
            if number == self._row:
                cursor = (len(lines) - 1, len(lines[-1]) + self._column)
            lines[-1] += row.cells
            if not row.goes_on:
                lines.append([])
        lines.pop()
        self._rows = []
        for number, line in enumerate(lines):
            starts = self._broken(line)
            for start, end in zip(starts, [*starts[1:], len(line)], strict=True):
                if number == cursor[0] and start <= cursor[1]:
                    self._row, self._column = len(self._rows), cursor[1] - start
                self._rows.append(_Row(line[start:end], goes_on=end < len(line)))

    def _broken(self, line: list[str]) -> list[int]:
        starts = [0]
        for place, cell in enumerate(line):
            two = place + 1 < len(line) and line[place + 1] == ""
            if place - starts[-1] + 1 + two > self.columns and cell:
                starts.append(place)
        return starts

    def write(self, text: str) -> int:
        for token in _TOKEN.finditer(text):
            parameters, command = token.groups()
            if command:
                self._obey(parameters, command)
            else:
                self._put(token[0])
        return len(text)

    def _obey(self, parameters: str, command: str) -> None:
        match command, parameters:
            case "m", _:
                pass
            case "K", "2":
                # A row that is cleared is a line of its own again.
                self._rows[self._row] = _Row()
            case "A", "1":
                # No further than the screen reaches.
                self._row = max(self._row - 1, len(self._rows) - self.rows, 0)
            case "l", "?7":
                self._wraps = False
            case "h", "?7":
                self._wraps = True
            case _:
                raise AssertionError(f"unknown to this terminal: {parameters}{command}")

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row, self._column = self._row + 1, 0
            if self._row == len(self._rows):
                self._rows.append(_Row())
        elif character == "\t":
            for _ in range(min(8 - self._column % 8, self.columns - 1 - self._column)):
                self._put(" ")
        else:
            assert character >= " ", f"{character!r} reached the terminal"
            self._print(character)

    def _print(self, character: str) -> None:
        width = cell_len(character)
        row = self._rows[self._row]
        last = self._column - 1
        if last >= 0 and row.cells[last] == "":
            last -= 1
        if last >= 0 and (width == 0 or row.cells[last].endswith("\u200d")):
            row.cells[last] += character
            return
        if self._column + width > self.columns:
            if not self._wraps:
                self._column = self.columns - width
            else:
                row.goes_on = True
                self._put("\n")
                row = self._rows[self._row]
        row.cells += [" "] * (self._column - len(row.cells))
        row.cells[self._column : self._column + width] = [character, ""][:width]
        self._column += width

    @property
    def lines(self) -> list[str]:
        """All that was shown, as it is copied: without the breaks that the terminal made."""
        joined = [""]
        for row in self._rows:
            joined[-1] += "".join(row.cells)
            if not row.goes_on:
                joined.append("")
        return [line.rstrip() for line in joined[:-1]]

    @property
    def height(self) -> int:
        """Rows, as they are broken now."""
        return len(self._rows)
