"""What may happen in the middle: Ctrl-C at a chosen line of the package's code, and memory that runs out.

Not a test itself.
"""

from __future__ import annotations

import linecache
import signal
import sys

import pytest

from gemma4_mlx.model.step import DecodeStep


class CtrlC:
    """SIGINT to this process just before the n-th line of the package's own code.

    One line is left out: `yield token`. Between the line before it and the hand-over Python does not look for signals,
    so no Ctrl-C can fall there, only a tracer could.
    """

    def __init__(self, at: int, only_in: tuple[str, ...]) -> None:
        self.at = at
        self.lines = 0
        self.only_in = only_in

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *_):
        sys.settrace(self.before)

    def _on_call(self, frame, event, arg):
        return self._on_line if frame.f_code.co_filename.endswith(self.only_in) else None

    def _on_line(self, frame, event, arg):
        if event == "line" and linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() != "yield token":
            self.lines += 1
            if self.lines == self.at:
                signal.raise_signal(signal.SIGINT)
        return self._on_line


def memory_ends_at_step(number: int, patch: pytest.MonkeyPatch) -> None:
    """The `number`-th step from now fails, after the cache was given its token."""
    step, calls = DecodeStep.ahead, []

    def failing(*arguments):
        result = step(*arguments)
        calls.append(arguments)
        if len(calls) == number:
            raise MemoryError
        return result

    patch.setattr(DecodeStep, "ahead", failing)
