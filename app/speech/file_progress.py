"""How far a long recording has been listened to: a bar on stderr where a terminal can redraw it, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from gemma4_mlx.shown import clock

from ..printable import on_one_line
from ..terminal import console, shows_lines

if TYPE_CHECKING:
    from rich.progress import Progress

_REDRAW_SECONDS = 0.1
_NARROW = 60  # columns


class FileProgress:
    """A bar, how far it is, and how many times faster than the sound itself; a context manager.

    Args:
        title: the recording's name.
        begun_at: seconds of it that an earlier run has done.
        now: seconds, monotonic.
    """

    def __init__(self, title: str, begun_at: float, now: Callable[[], float] = time.monotonic) -> None:
        self._title = on_one_line(title)
        self._begun_at = begun_at
        self._now = now
        self._bar: Progress | None = None

    def __enter__(self) -> FileProgress:
        self._began = self._drawn = self._now()
        if shows_lines(sys.stderr):
            from rich.progress import BarColumn, Progress, TextColumn
            from rich.table import Column

            title = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=24))
            state = TextColumn("{task.fields[state]}", table_column=Column(no_wrap=True))
            self._bar = Progress(
                title, BarColumn(None), state, console=console(sys.stderr), transient=True, auto_refresh=False
            )
            self._bar.expand = True
            self._task = self._bar.add_task(self._title, total=None, state="")
            self._bar.start()
            self._bar.refresh()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, seconds: float, total: float | None) -> None:
        """So many seconds are done, of `total` if that is known."""
        if self._bar is None or self._now() - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = self._now()
        speed = (seconds - self._begun_at) / max(self._drawn - self._began, 1e-3)
        if self._bar.console.width < _NARROW:
            state = f"{clock(seconds)} {speed:.1f}×"
        else:
            state = f"{clock(seconds)}{f' of {clock(total)}' if total else ''}, {speed:.1f} × real time"
        self._bar.update(self._task, completed=seconds, total=total or None, state=state, refresh=True)
