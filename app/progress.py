"""How far long work is: a line on stderr that is drawn again and again in a terminal, and silence anywhere else."""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from types import TracebackType

from .live_tail import Line, LiveTail
from .printable import on_one_line
from .terminal import notes_held, shows_lines


class Progress:
    """A context manager. The line is gone at the end, and what there is to note meanwhile is said then.

    Args:
        title: what the work is.

    Attributes:
        shown: the line, once there is one.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.shown = ""
        self._tail: LiveTail | None = None
        self._notes = ExitStack()
        self._lock = threading.Lock()  # what is fetched comes in another thread, which goes on after Ctrl-C
        self._over = False

    def __enter__(self) -> Progress:
        return self

    def show(self, state: str) -> None:
        """Put `state` behind the title."""
        line = on_one_line(f"{self.title}: {state}")
        with self._lock:
            if line == self.shown or self._over:
                return
            self.shown = line
            if not shows_lines(sys.stderr):
                return
            if self._tail is None:
                self._notes.enter_context(notes_held())
                self._tail = LiveTail(sys.stderr)
            self._tail.replace([], [_cut(line, self._tail.size.columns)])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over = True
            if self._tail is not None:
                self._tail.replace([], [])
        self._notes.close()


def _cut(text: str, columns: int) -> Line:
    from rich.cells import cell_len, chop_cells

    if cell_len(text) > columns:
        text = chop_cells(text, columns)[0]
    return Line(text, cell_len(text))
