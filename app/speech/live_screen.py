"""What somebody sees while they speak: what has been said, what is being said, and that they are heard.

Finals go above, into the terminal's own scrollback; only the last few lines are ever drawn again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gemma4_mlx.log_mel import SAMPLE_RATE
from gemma4_mlx.shown import clock

from ..answer.lines import rendered
from ..live_tail import LiveTail
from ..printable import on_one_line, printable

if TYPE_CHECKING:
    from gemma4_mlx.speech import Event

_REDRAW_SECONDS = 0.1
METER_CELLS = 12
_METER_FLOOR = -60.0  # dB of full scale: a quiet room
_METER_FALL = 30.0  # dB a second
_METER_LOUD = -3.0


class Meter:
    """How loud it is, falling slowly enough for a syllable to be seen."""

    def __init__(self) -> None:
        self._level = _METER_FLOOR

    def hear(self, samples: npt.NDArray[np.float32]) -> None:
        """The latest samples, float32 `[n]` at 16 kHz."""
        fallen = self._level - _METER_FALL * len(samples) / SAMPLE_RATE
        peak = float(np.abs(samples).max(initial=0.0))
        self._level = max(20 * np.log10(max(peak, 1e-6)), fallen, _METER_FLOOR)

    @property
    def lit(self) -> int:
        """Of METER_CELLS."""
        return min(METER_CELLS, round((1 - self._level / _METER_FLOOR) * METER_CELLS))

    @property
    def is_too_loud(self) -> bool:
        """So near full scale that it is cut off."""
        return self._level >= _METER_LOUD


class LiveScreen:
    """The screen of a live transcription; a context manager.

    Args:
        console: where to draw.
        title: what is listened to.
        clock: seconds, monotonic.
    """

    def __init__(self, console: Console, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._partial: Event | None = None
        self._speaking = False
        self._seconds = 0.0
        self._meter = Meter()
        self._warning = ""
        self._finishing = False
        self._drawn_at = -1.0
        self._tail = LiveTail(console.file, clock)  # type: ignore[arg-type]
        self._title = title

    def __enter__(self) -> LiveScreen:
        self._draw(Text(f"{on_one_line(self._title)} · Ctrl-C to finish", style="dim"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tail.replace([], [])

    def event(self, event: Event) -> None:
        """Show what has been heard."""
        if event.kind == "partial":
            self._partial = event
        else:
            self._partial = None
            if event.text or event.translation:
                self._draw(_final(event))
                return
        self._draw()

    def sound(self, samples: npt.NDArray[np.float32], seconds: float, speaking: bool, warnings: list[str]) -> None:
        """Show that there is sound: the latest samples, seconds in all, whether it is speech, what may be wrong."""
        self._meter.hear(samples)
        self._seconds, self._speaking, self._warning = seconds, speaking, warnings[0] if warnings else ""
        if not speaking:
            self._partial = None
        if self._clock() - self._drawn_at >= _REDRAW_SECONDS:
            self._draw()

    def finishing(self) -> None:
        """Nobody listens any longer; what was heard is still being written down."""
        self._finishing = True
        self._draw()

    def _draw(self, above: RenderableType | None = None) -> None:
        """Draw what changes; above it, for good, what is finished."""
        self._drawn_at = self._clock()
        columns = self._console.width
        finished = [] if above is None else rendered(self._console, above, columns)
        self._tail.replace(finished, rendered(self._console, self.render(), columns))

    def render(self) -> Group:
        """The part that is drawn again and again; never higher than the terminal."""
        lines: list[Text] = []
        if self._partial is not None:
            lines += self._wrapped(_partial(self._partial))
            if self._partial.translation:
                lines += self._wrapped(Text(printable(self._partial.translation), style="dim italic"))
        if self._warning:
            lines += self._wrapped(Text(printable(self._warning), style="yellow"))
        room = max(1, self._console.height - 2)
        return Group(*lines[-room:], self._status())

    def _wrapped(self, text: Text) -> list[Text]:
        return list(text.wrap(self._console, self._console.width))

    def _status(self) -> Text:
        if self._finishing:
            status = Text("finishing · Ctrl-C again leaves at once", style="dim")
            status.truncate(self._console.width)
            return status
        lit = self._meter.lit
        state = ("● speaking", "bold green") if self._speaking else ("○ listening", "dim")
        status = Text.assemble(
            state,
            "  ",
            ("▮" * lit, "red" if self._meter.is_too_loud else "green"),
            ("▯" * (METER_CELLS - lit), "dim"),
            "  ",
            (clock(self._seconds), "dim"),
        )
        status.truncate(self._console.width)
        return status


def _final(event: Event) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True)
    row.add_column(overflow="fold")  # the default cuts long words off
    text = Text(printable(event.text))
    if event.doubtful:
        text.append(" (?)", style="yellow")
    row.add_row(Text(clock(event.start), style="dim"), text)
    if event.translation:
        row.add_row("", Text(printable(event.translation), style="cyan italic"))
    return row


def _partial(event: Event) -> Text:
    return Text.assemble(printable(event.certain), (printable(event.text[len(event.certain) :]), "dim"))
