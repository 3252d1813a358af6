"""One answer on its way to a person: text, thoughts, tool calls and their results.

A terminal gets Markdown (`answer_terminal`). Anywhere else, and with NO_COLOR or TERM=dumb, text goes out as it comes:
the answer to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING

from ..printable import Gate
from ..terminal import draw, note, notes_held, shows_colour, shows_lines, terminal_size, write
from .shown_call import call_rows, one_row

if TYPE_CHECKING:
    from .answer_terminal import TerminalAnswer


class AnswerScreen:
    """Shows one answer; a context manager. Leaving it, however, shows what is still held back.

    To be used where Ctrl-C is not thrown (`Interrupts`): a line that it finds half drawn would be lost, or drawn twice.

    Args:
        show_thoughts: show what the model thinks, and not only that it does.

    Attributes:
        text: what was shown of the answer, as the model wrote it.
    """

    def __init__(self, show_thoughts: bool) -> None:
        self.text = ""
        self._shown: TerminalAnswer | _PlainAnswer
        self._notes: AbstractContextManager[None] = nullcontext()
        if shows_colour(sys.stdout) and shows_lines(sys.stdout):
            from .answer_terminal import TerminalAnswer

            self._shown = TerminalAnswer(sys.stdout, show_thoughts)
            self._notes = notes_held()
        else:
            self._shown = _PlainAnswer(show_thoughts)

    def __enter__(self) -> AnswerScreen:
        self._notes.__enter__()
        try:
            self._shown.start()
        except BaseException:  # Python does not leave what it could not enter, and notes would be held for ever
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._shown.finish()
        finally:
            self._notes.__exit__(None, None, None)

    def answer(self, text: str) -> None:
        """Show more of the answer."""
        self.text += text
        self._shown.answer(text)

    def status(self, text: str) -> None:
        """Say what is going on, in a terminal and until something else is shown."""
        self._shown.status(text)

    def thought(self, text: str) -> None:
        """Show more of what the model thinks, or that it does."""
        self._shown.thought(text)

    def tool_call(self, name: str, arguments: Mapping[str, object]) -> None:
        """Show that the model calls a function."""
        self._shown.tool_call(name, arguments)

    def tool_result(self, name: str, result: str) -> None:
        """Show what a function gave back."""
        self._shown.tool_result(name, result)


class _PlainAnswer:
    """Text as it comes."""

    def __init__(self, show_thoughts: bool) -> None:
        self._show_thoughts = show_thoughts
        self._thinking_aloud = False
        self._ended = True  # the last line on stdout
        self._answer_gate, self._thought_gate = Gate(), Gate()

    def start(self) -> None:
        pass

    def status(self, text: str) -> None:
        pass

    def finish(self) -> None:
        self._end_thought()
        draw(sys.stdout, self._answer_gate.finish())
        if not self._ended:
            write(sys.stdout, "\n")
        self._ended = True

    def answer(self, text: str) -> None:
        self._end_thought()
        if text:
            self._ended = text.endswith("\n")  # before it is written: Ctrl-C may come while it is
        write(sys.stdout, text, gate=self._answer_gate)

    def thought(self, text: str) -> None:
        if self._show_thoughts:
            self._thinking_aloud = True
            write(sys.stderr, text, dim=True, gate=self._thought_gate)

    def tool_call(self, name: str, arguments: Mapping[str, object]) -> None:
        self.finish()
        if sys.stderr.isatty():
            note(*call_rows(name, arguments, *terminal_size(sys.stderr), mark="calls ")[0])
        else:
            note(f"calls {one_row(name, arguments)}")

    def tool_result(self, name: str, result: str) -> None:
        note(f"{name}: {result}")

    def _end_thought(self) -> None:
        if self._thinking_aloud:
            write(sys.stderr, "\n")
        self._thinking_aloud = False
