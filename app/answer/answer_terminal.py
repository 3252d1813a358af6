"""One answer in a terminal: each finished block of its Markdown goes into the scrollback once, and stays copyable.

Of a paragraph, each row does. Only what is being written is drawn again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from ..live_tail import Line, LiveTail
from ..printable import Gate, printable
from .markdown_blocks import Block, MarkdownBlocks
from .markdown_lines import Painter
from .shown_call import call_rows

_DRAW_SECONDS = 0.05
_RESULT_ROWS = 8
_WIDEST = 160
"""Columns of text: two rows of it, and an empty one, can be erased in a terminal that becomes 40 × 10."""
_DIM, _CALL = "dim", "cyan"


class TerminalAnswer:
    """Draws an answer on `stream`, a terminal.

    Args:
        show_thoughts: show what the model thinks; otherwise how long it did.
        clock: seconds, monotonic.
    """

    def __init__(self, stream: TextIO, show_thoughts: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._show_thoughts = show_thoughts
        self._clock = clock
        self._painter = Painter(stream)
        self._tail = LiveTail(stream, clock)
        self._blocks = MarkdownBlocks()
        self._answer_gate, self._thought_gate = Gate(), Gate()
        self._thought = ""  # the last line of it
        self._thinking_since: float | None = None
        self._finished: list[Block] = []  # and not on the screen yet, when Ctrl-C comes between
        self._above = False  # something of this answer stands above
        self._standing = ""  # text of the paragraph that is being written that does
        self._drawn_at = 0.0
        self._status = ""  # what is going on, beneath all else, while it is drawn

    def start(self) -> None:
        self._tail.replace([], self._text("…"))

    def status(self, text: str) -> None:
        self._status = text
        self._put([])
        self._status = ""

    def answer(self, text: str) -> None:
        self._end_thought()
        self._finished += self._blocks.feed(self._answer_gate.let_through(text))
        self._draw()

    def thought(self, text: str) -> None:
        if self._thinking_since is None:
            self._thinking_since = self._clock()
        if not self._show_thoughts:
            self._draw()
            return
        *lines, self._thought = (self._thought + self._thought_gate.let_through(text)).split("\n")
        self._put([line for text in lines for line in self._text(text) or [Line("", 0)]])

    def tool_call(self, name: str, arguments: Mapping[str, object]) -> None:
        self.finish()
        # As wide as it is drawn: broken once more, a row would go on without its bar.
        rows, _ = call_rows(name, arguments, self._columns, self._tail.size.lines)
        lines = [line for row in rows for line in self._text(row, _CALL)]
        self._put([Line("", 0), *lines] if self._above else lines)

    def tool_result(self, name: str, result: str) -> None:
        indent = "  "
        columns = max(1, self._columns - len(indent))
        lines, left = self._painter.excerpt(printable(result).rstrip("\n"), columns, _RESULT_ROWS, _DIM)
        if left:
            lines += self._painter.text(f"… {left:,} more characters", columns, _DIM)
        self._put([Line(indent + line.coded, len(indent) + line.cells) for line in lines])

    def finish(self) -> None:
        """Put everything that was held back on the screen for good."""
        self._end_thought()
        self._finished += self._blocks.feed(self._answer_gate.finish()) + self._blocks.finish()
        self._put([])

    def _end_thought(self) -> None:
        if self._thinking_since is None:
            return
        seconds, self._thinking_since = self._clock() - self._thinking_since, None
        if self._show_thoughts:
            lines = self._text(self._thought)
        else:
            lines = self._text(f"thought for {seconds:.1f} s, /think show")
        self._thought = ""
        self._put(lines)

    def _draw(self) -> None:
        if self._finished or self._clock() - self._drawn_at >= _DRAW_SECONDS:
            self._put([])

    def _put(self, lines: Sequence[Line]) -> None:
        """Put on the screen for good: finished blocks, then lines, then what is settled of the block being written.

        They are forgotten once they are there.
        """
        above, standing = self._above, self._standing
        columns = self._columns
        painted: list[Line] = []
        for block in self._finished:
            painted += _gap(block, above, standing) + self._painter.block(block, columns, standing)
            above, standing = True, ""
        painted += lines
        above = above or bool(lines)
        live: list[Line] = []
        going_on: str | None = None
        if self._thinking_since is not None:
            seconds = self._clock() - self._thinking_since
            live = self._text(self._thought if self._show_thoughts else f"thinking… {seconds:.0f} s")
        elif (tail := self._blocks.tail) is not None:
            gap = _gap(tail, above, standing)
            beginning = self._painter.beginning(tail, columns, standing)
            standing = beginning.standing
            going_on = beginning.going_on
            if beginning.settled or going_on is not None:
                painted += gap + beginning.settled
                above, live = True, beginning.growing
            else:
                live = gap + beginning.growing
        if self._status:
            live = [*live, *self._text(self._status)]
        if going_on is None:
            self._tail.replace(painted, live)
        else:
            self._tail.go_on(painted, going_on)
        self._finished, self._above, self._standing, self._drawn_at = [], above, standing, self._clock()

    def _text(self, text: str, style: str = _DIM) -> list[Line]:
        return self._painter.text(text, self._columns, style)

    @property
    def _columns(self) -> int:
        return min(self._tail.size.columns, _WIDEST)


def _gap(block: Block, above: bool, standing: str) -> list[Line]:
    """An empty line in front of a block, unless it is the first, goes on with the one before, or has begun above."""
    return [Line("", 0)] if above and not block.joined and not standing else []
