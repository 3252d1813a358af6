"""What is typed while the model writes: unseen, it waits for the next prompt.

Left to itself a terminal mixes it with the answer, takes Ctrl-D for itself, and throws all of it away at Ctrl-C, which
interrupts here as ever.
"""

from __future__ import annotations

import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .printable import on_one_line
from .terminal import between_words, draw, somebody_types, terminal_size, terminal_stream

# Fields of what tcgetattr gives.
_INPUT, _LOCAL = 0, 3
# Bracketed paste (xterm's mode 2004): a text that is pasted, or a file that is dropped, comes in one piece.
_PASTES_BRACKETED, _PASTES_PLAIN = "\x1b[?2004h", "\x1b[?2004l"

_as_it_was: list[Any] | None = None


@contextmanager
def keys_wait() -> Iterator[None]:
    """In the body, keys pressed at the terminal on stdin are kept for whoever reads them next."""
    global _as_it_was
    _as_it_was = termios.tcgetattr(sys.stdin)
    waiting = termios.tcgetattr(sys.stdin)
    waiting[_INPUT] &= ~termios.ICRNL  # Enter stays the Enter key
    # On a Mac, IEXTEN would have Ctrl-O throw the answer away and Ctrl-V take the next key literally.
    waiting[_LOCAL] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
    waiting[_LOCAL] |= termios.NOFLSH  # Ctrl-C stops the answer and leaves the rest
    termios.tcsetattr(sys.stdin, termios.TCSANOW, waiting)
    try:
        pastes_wait()
        yield
    finally:
        leave_terminal_as_it_was()


def pastes_wait() -> None:
    """Have pastes come in one piece; to be said again after every line that was edited, which takes it back."""
    if _as_it_was is not None:
        _tell_terminal(_PASTES_BRACKETED)


def _tell_terminal(code: str) -> None:
    draw(terminal_stream(), code)


def leave_terminal_as_it_was() -> None:
    """End `keys_wait` early, for a process that is about to leave without ceremony. Does nothing outside of it."""
    global _as_it_was
    if _as_it_was is not None:
        _tell_terminal(_PASTES_PLAIN)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, _as_it_was)
        _as_it_was = None


@contextmanager
def lines_are_typed() -> Iterator[None]:
    """In the body, the terminal on stdin shows what is typed and hands it out by the line, as it does by itself."""
    if _as_it_was is None:
        yield
        return
    waiting = termios.tcgetattr(sys.stdin)
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, _as_it_was)
    _tell_terminal(_PASTES_PLAIN)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, waiting)
        pastes_wait()


def can_be_asked() -> bool:
    """Whether a person sits there to be asked: stdin and stderr are a terminal."""
    return somebody_types() and sys.stderr.isatty()


def asked(question: str) -> str:
    """What a person types behind a question, with its line's end; empty when the terminal is closed.

    What waits is thrown away: it cannot have been meant for a question that was not there yet.
    """
    with lines_are_typed():
        if somebody_types():
            termios.tcflush(sys.stdin, termios.TCIFLUSH)
        columns = terminal_size(sys.stderr).columns
        draw(sys.stderr, between_words(on_one_line(question).rstrip(), columns - 1) + " ")
        try:
            return sys.stdin.readline()
        except KeyboardInterrupt:
            draw(sys.stderr, "\n")
            raise
