"""How far a long recording has been listened to: a bar on stderr where a terminal can redraw it, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from gemma4_mlx.shown import clock

from ..live_tail import LiveTail
from ..printable import on_one_line
from ..terminal import console, notes_held, shows_lines

_REDRAW_SECONDS = 0.1
_NARROW = 60  # columns
_TITLE_COLUMNS = 24


class FileProgress:
    """A bar, how far it is, and how many times faster than the sound itself; a context manager.

    What there is to note meanwhile is said at the end, when the bar is gone.

    Args:
        title: the recording's name.
        begun_at: seconds of it that an earlier run has done.
        now: seconds, monotonic.
    """

    def __init__(self, title: str, begun_at: float, now: Callable[[], float] = time.monotonic) -> None:
        self._title = on_one_line(title)
        self._begun_at = begun_at
        self._now = now
        self._tail: LiveTail | None = None
        self._notes = ExitStack()

    def __enter__(self) -> FileProgress:
        self._began = self._drawn = self._now()
        if shows_lines(sys.stderr):
            self._notes.enter_context(notes_held())
            self._console = console(sys.stderr)
            self._tail = LiveTail(sys.stderr)
            self._draw(self._tail, 0.0, None, "")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tail is not None:
            self._tail.replace([], [])
        self._notes.close()

    def show(self, seconds: float, total: float | None) -> None:
        """So many seconds are done, of `total` if that is known."""
        if self._tail is None or self._now() - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = self._now()
        speed = (seconds - self._begun_at) / max(self._drawn - self._began, 1e-3)
        if self._tail.size.columns < _NARROW:
            state = f"{clock(seconds)} {speed:.1f}×"
        else:
            state = f"{clock(seconds)}{f' of {clock(total)}' if total else ''}, {speed:.1f} × real time"
        self._draw(self._tail, seconds, total or None, state)

    def _draw(self, tail: LiveTail, seconds: float, total: float | None, state: str) -> None:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        from ..answer.lines import rendered

        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(no_wrap=True, max_width=_TITLE_COLUMNS)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        row.add_row(Text(self._title), ProgressBar(total, seconds, pulse=total is None), Text(state))
        tail.replace([], rendered(self._console, row, tail.size.columns))
