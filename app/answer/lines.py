"""Lines for a terminal: what Rich lays out, as text with its codes of colour, and how wide it is."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments

from ..live_tail import Line


def rendered(console: Console, content: RenderableType, columns: int) -> list[Line]:
    """The lines of what Rich can render, laid out for `columns` columns."""
    options = console.options.update(width=columns, height=None)
    return coded(console, console.render_lines(content, options, pad=False))


def coded(console: Console, lines: Iterable[list[Segment]]) -> list[Line]:
    """Lines of Rich's segments with the codes that `console` has for their styles."""
    found = []
    for line in lines:
        segments = _without_trailing_spaces(line)
        with console.capture() as capture:
            console.print(Segments(segments), end="", soft_wrap=True)
        found.append(Line(capture.get(), Segment.get_line_length(segments)))
    return found


def _without_trailing_spaces(line: list[Segment]) -> list[Segment]:
    """Padding would be copied too, and would make the line wrap when the terminal becomes narrower."""
    segments = [segment for segment in line if not segment.control]
    while segments:
        text, style, _ = segments.pop()
        if text := text.rstrip():
            return [*segments, Segment(text, style)]
    return segments
