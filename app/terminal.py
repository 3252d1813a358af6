"""The two streams: results go to stdout, and everything else (notes, thoughts, progress) comes through here to stderr.

Colour and cursor codes only where a terminal shows them, and never with NO_COLOR. Nobody else in the app writes to
them: what comes from outside goes through the gate here (`printable`), and only `draw` writes codes of our own.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from gemma4_mlx.errors import MediaWarning, PrecisionWarning

from .printable import Gate, on_one_line, printable

if TYPE_CHECKING:
    from rich.console import Console

DIM = "\x1b[2m"
PLAIN = "\x1b[0m"


_DEFAULT_SIZE = os.terminal_size((80, 24))
"""Of a terminal that does not know its own: one behind a serial line, or in a pty nobody gave a size, is 0 × 0."""

_held: list[str] | None = None


def note(*lines: str) -> None:
    """Lines on stderr, after whatever stdout still holds, so that a terminal shows them in order.

    What is from outside in a line begins no other, and is printable in a file as well: somebody will read it.
    """
    if _held is not None:
        _held.extend(lines)
        return
    with suppress(OSError):  # a full disk or a closed pipe: reported by whoever wrote there
        sys.stdout.flush()
    lines = tuple(map(on_one_line, lines))
    if sys.stderr.isatty():
        lines = tuple(between_words(line, terminal_size(sys.stderr).columns) for line in lines)
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def warnings_are_notes() -> None:
    """From here on, what the library says of a model, sound or picture that may not be right is a note."""
    usual = warnings.showwarning

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if issubclass(category, (MediaWarning, PrecisionWarning)):
            note(f"note: {' '.join(str(message).split())}")
        else:
            usual(message, category, filename, lineno, file, line)

    for category in (MediaWarning, PrecisionWarning):
        warnings.simplefilter("always", category)
    warnings.showwarning = show


@contextmanager
def notes_held() -> Iterator[None]:
    """In the body something is drawn again and again, and would take a note for its own: they are said afterwards.

    One such body may be within another.
    """
    global _held
    outer, _held = _held, []
    try:
        yield
    finally:
        lines, _held = _held, outer
        if lines:
            note(*lines)


def between_words(line: str, columns: int) -> str:
    """A line broken where a terminal would break it in the middle of a word; the second column of two stays one.

    A very long word, such as a path, is for the terminal to break: it takes that back when it is copied.
    """
    first = _FIRST_COLUMN.match(line)
    indent = len(first[0]) if first and len(first[0]) <= columns // 2 else min(len(line) - len(line.lstrip()), 2)
    if any(len(word) > columns // 2 for word in line.split()):
        return line
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=" " * indent,
        drop_whitespace=True,
        replace_whitespace=False,
        expand_tabs=False,
        break_on_hyphens=False,
        break_long_words=False,
    )


_FIRST_COLUMN = re.compile(r"\S.*?\s{2,}(?=\S)")


def somebody_types() -> bool:
    """Whether stdin is a terminal; it may be closed altogether."""
    return sys.stdin is not None and sys.stdin.isatty()


def terminal_stream() -> TextIO:
    """Whichever of stdout and stderr is the terminal, so that `chat > answers.txt` works; stderr if neither is."""
    return sys.stdout if sys.stdout.isatty() else sys.stderr


def edits_lines() -> bool:
    """Whether there is a terminal where a line can be edited: on stdin, and on stdout or stderr."""
    return somebody_types() and (shows_lines(sys.stdout) or shows_lines(sys.stderr))


def shows_colour(stream: TextIO) -> bool:
    """Whether codes for dim and colour may be written to `stream`."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shows_lines(stream: TextIO) -> bool:
    """Whether lines of `stream` can be drawn again."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def shortened(text: str, most: int) -> str:
    """`text` on one line of at most `most` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


def pasted(text: str) -> str | None:
    """Text from a clipboard or the keyboard as it can stand in a line; None when it is not text at all.

    Colours of a copied terminal's output go, as do control characters; what is not UTF-8 arrives as surrogates.
    The rest stays, for it goes to the model; how it is shown is for the line to decide.
    """
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        return None
    return _CONTROL.sub("", _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def write(stream: TextIO, text: str, dim: bool = False, gate: Gate | None = None) -> None:
    """Write `text` at once: to a terminal as it may be shown, to a file or a pipe as it is.

    Args:
        gate: of all the pieces of a text that comes in pieces.
    """
    if stream.isatty():
        text = printable(text) if gate is None else gate.let_through(text)
    if dim and text and shows_colour(stream):
        text = f"{DIM}{text}{PLAIN}"
    draw(stream, text)


def say(line: str) -> None:
    """A line of a result on stdout; in a terminal, what is from outside in it begins no other."""
    draw(sys.stdout, f"{on_one_line(line) if sys.stdout.isatty() else line}\n")


def draw(stream: TextIO, text: str) -> None:
    """Write codes of our own, and text that is through the gate, at once."""
    stream.write(text)
    stream.flush()


def console(stream: TextIO, **options: Any) -> Console:
    """Rich's console on `stream`; nothing that is printed on it gets past the gate."""
    from rich.console import Console
    from rich.segment import Segment

    class Gated(Console):
        def render(self, *of: Any, **how: Any) -> Iterator[Segment]:
            for text, style, control in super().render(*of, **how):
                yield Segment(text if control else printable(text), style, control)

    return Gated(file=stream, **{"highlight": False, **options})


def terminal_size(stream: TextIO) -> os.terminal_size:
    """Columns and rows of the terminal `stream` is, now; of none, or one that does not know them, the usual ones."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # no terminal; closed
        return _DEFAULT_SIZE
    return os.terminal_size((size.columns or _DEFAULT_SIZE.columns, size.lines or _DEFAULT_SIZE.lines))
