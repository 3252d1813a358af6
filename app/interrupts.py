"""Ctrl-C, for every command: long work asks whether it was pressed, and ends in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Interrupts:
    """In the body Ctrl-C is a wish. Calling this says whether there is one: it is the library's `should_stop`.

    KeyboardInterrupt is thrown, as ever, before anybody has asked, and when Ctrl-C is pressed again: who waits for what
    does not ask can leave it. Only in the main thread; any thread may ask.

    Args:
        signals: more than Ctrl-C's that are such a wish.
        on_wish: called, wherever the program is, with the first one.

    Attributes:
        count: how often it was pressed.
        never_thrown: it only counts from now on: what is being done is short, and must be done whole.
    """

    def __init__(self, *signals: int, on_wish: Callable[[], None] | None = None) -> None:
        self.count = 0
        self.never_thrown = False
        self._asked = False
        self._signals = (signal.SIGINT, *signals)
        self._on_wish = on_wish

    def __call__(self) -> bool:
        self._asked = True
        return self.count > 0

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._came) for number in self._signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _came(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.never_thrown:
            return
        if self.count > 1 or not self._asked:
            raise KeyboardInterrupt
        if self._on_wish is not None:
            self._on_wish()


@contextmanager
def ctrl_c_is_thrown() -> Iterator[None]:
    """In the body, which is somebody else's code or a question, Ctrl-C is KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
