"""What the demonstration looks like: in colour where a terminal shows it, as plain lines anywhere else.

On 80 columns and 24 rows all of it is on the screen at the end, for whoever wants to photograph it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gemma4_mlx.byte_sizes import byte_size

from ..line.preview import half_blocks
from ..live_tail import LiveTail
from ..models.model_choice import ModelChoice
from ..printable import printable
from ..terminal import console, say, shows_colour

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image
    from rich.console import Console, Group, RenderableType
    from rich.table import Table
    from rich.text import Text

_SIDE_BY_SIDE = 68
"""Columns from which a picture stands beside the words instead of above them."""
_FEWEST_ROWS, _MOST_ROWS = 3, 10
"""Of a picture, depending on the terminal's height."""
_WAVE_ROWS = 2
_LEVELS = " ▁▂▃▄▅▆▇█"
_SMALL = "It knows little more than this. Gemma 4 itself, on this machine:"


@dataclass(frozen=True)
class Part:
    """One thing the model does.

    Attributes:
        title: what it does.
        asked: the question it is given, if a person would ask one.
        image, samples: what it is shown; float32 `[n]` at 16 kHz.
        continues: it is about what the part before it was about, and stands close to it.
    """

    title: str
    asked: str | None = None
    image: Image | None = None
    samples: npt.NDArray[np.float32] | None = None
    continues: bool = False


@dataclass(frozen=True)
class Answer:
    """A line the model gave.

    Attributes:
        text: as it came.
        label: in front of it, when a part has several.
        expected: what would be right; None where there is no one right answer.
    """

    text: str
    label: str = ""
    expected: str | None = None

    @property
    def line(self) -> str:
        """The text on one line, without what could move a terminal's cursor."""
        return "".join(c for c in " ".join(printable(self.text).split()) if c.isprintable()) or "(nothing)"

    @property
    def verdict(self) -> str:
        """A mark for what is right; what would have been, in words; empty where nobody knows."""
        if self.expected is None:
            return ""
        return " ✓" if self.line == self.expected else f" (not quite: it should be {self.expected})"


class DemoScreen(Protocol):
    """Where the demonstration is shown."""

    def busy(self, what: str) -> AbstractContextManager[object]:
        """Say that something goes on, until it is over."""

    def opening(self, weight_bytes: int, seconds: float) -> None:
        """What this is, and how long the model took to load."""

    def show(self, part: Part, work: Callable[[], list[Answer]]) -> None:
        """Show a part, do its work, show what came of it and how long it took."""

    def ending(self, choice: ModelChoice) -> None:
        """The command that runs a real model."""


def screen_for_stdout() -> DemoScreen:
    """A terminal gets colours, pictures and movement; a file, a pipe and NO_COLOR get lines."""
    if not shows_colour(sys.stdout):
        return PlainScreen()
    return TerminalScreen(console(sys.stdout))


class PlainScreen:
    """Lines of text."""

    def busy(self, what: str) -> AbstractContextManager[object]:
        return nullcontext()

    def opening(self, weight_bytes: int, seconds: float) -> None:
        say(f"gemma4-mlx demo: {_introduction(weight_bytes)}, loaded in {seconds:.2f} s")

    def show(self, part: Part, work: Callable[[], list[Answer]]) -> None:
        say("")
        say(part.title)
        if part.asked:
            say(f"  {part.asked}")
        answers, seconds = _timed(work)
        for answer in answers:
            label = f"{answer.label}: " if answer.label else ""
            say(f"  {label}{answer.line}{answer.verdict}")
        say(f"  ({seconds:.2f} s)")

    def ending(self, choice: ModelChoice) -> None:
        for line in ("", _SMALL, f"  {_command(choice)}", f"  ({choice.reason})"):
            say(line)


class TerminalScreen:
    """Colour and pictures. What a part is about is said while the model is at it, and drawn with what came of it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tail = LiveTail(console.file)  # type: ignore[arg-type]

    # The window may be of another size for each part.

    @property
    def _beside(self) -> bool:
        return self._console.width >= _SIDE_BY_SIDE

    @property
    def _picture_rows(self) -> int:
        share = 4 if self._beside else 2
        return max(_FEWEST_ROWS, min(_MOST_ROWS, self._console.height // share))

    @property
    def _drawing_columns(self) -> int:
        return min(3 * self._picture_rows, self._console.width)  # half blocks are square, and the picture is 3:2

    def busy(self, what: str) -> AbstractContextManager[object]:
        return self._said_meanwhile([f"{what} …"])

    def opening(self, weight_bytes: int, seconds: float) -> None:
        from rich.text import Text

        introduction = f"  {_introduction(weight_bytes)}, loaded in {seconds:.2f} s"
        self._console.print(Text.assemble(("gemma4-mlx demo", "bold"), (introduction, "dim")))

    def show(self, part: Part, work: Callable[[], list[Answer]]) -> None:
        if not part.continues:
            self._console.print()
        with self._said_meanwhile([part.title, *([part.asked] if part.asked else []), "…"]):
            answers, seconds = _timed(work)
        self._console.print(self._laid_out(part, self._drawing(part), answers, seconds))

    def ending(self, choice: ModelChoice) -> None:
        from rich.text import Text

        self._console.print()
        self._console.print(Text(_SMALL))
        self._console.print(Text(f"  {_command(choice)}", "bold"))
        self._console.print(Text(f"  {choice.reason}", "dim"))

    @contextmanager
    def _said_meanwhile(self, lines: list[str]) -> Iterator[None]:
        from rich.text import Text

        from ..answer.lines import rendered

        self._tail.replace([], rendered(self._console, Text("\n".join(lines), style="dim"), self._tail.size.columns))
        try:
            yield
        finally:
            self._tail.replace([], [])

    def _drawing(self, part: Part) -> Text | None:
        if part.image is not None:
            return half_blocks(part.image, self._drawing_columns, self._picture_rows)
        if part.samples is not None:
            return waveform(part.samples, self._drawing_columns, _WAVE_ROWS)
        return None

    def _laid_out(self, part: Part, drawing: Text | None, answers: list[Answer], seconds: float) -> RenderableType:
        from rich.console import Group
        from rich.table import Table

        words = self._words(part, answers, seconds)
        if not self._beside:
            return words if drawing is None else Group(drawing, words)
        layout = Table.grid(padding=(0, 2), expand=True)
        layout.add_column(width=self._drawing_columns)
        layout.add_column(ratio=1)
        layout.add_row(drawing or "", words)
        return layout

    def _words(self, part: Part, answers: list[Answer], seconds: float) -> Group:
        from rich.console import Group
        from rich.text import Text

        rows: list[RenderableType] = [self._heading(part.title, f"{seconds:.2f} s")]
        if part.asked:
            rows.append(Text(part.asked, style="italic"))
        widest = max((len(answer.label) for answer in answers), default=0)
        for answer in answers:
            label = f"{answer.label:<{widest}}  " if widest else ""
            right = "green" if answer.expected is None or answer.line == answer.expected else "yellow"
            rows.append(Text.assemble((label, "dim"), (answer.line, f"bold {right}"), (answer.verdict, right)))
        return Group(*rows)

    def _heading(self, title: str, time_taken: str) -> Table:
        from rich.table import Table

        heading = Table.grid(expand=True, padding=(0, 1))
        heading.add_column(style="bold", ratio=1)
        heading.add_column(style="dim", justify="right", no_wrap=True)
        heading.add_row(title, time_taken)
        return heading


def waveform(samples: npt.NDArray[np.float32], columns: int, rows: int) -> Text:
    """How loud each stretch is as a column of blocks, the loudest as high as there are rows."""
    import numpy as np
    from rich.text import Text

    # The root of the amplitude is closer to what an ear makes of it, and keeps soft words visible.
    loudness = np.array([np.sqrt(np.abs(stretch).mean()) for stretch in np.array_split(samples, columns)])
    top = len(_LEVELS) - 1
    heights = np.round(rows * top * loudness / max(loudness.max(), 1e-9)).astype(int)
    lines = ["".join(_LEVELS[min(max(h - top * below, 0), top)] for h in heights) for below in reversed(range(rows))]
    return Text("\n".join(lines), style="cyan", no_wrap=True)


def _introduction(weight_bytes: int) -> str:
    return f"a small Gemma 4 inside the package, {byte_size(weight_bytes)}"


def _command(choice: ModelChoice) -> str:
    return f"gemma4-mlx chat --model {choice.name}"


def _timed(work: Callable[[], list[Answer]]) -> tuple[list[Answer], float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started
