"""Blocks of an answer → lines for a terminal, in the sixteen colours every palette makes readable on its background.

Code is left alone: no border, no indentation, no line broken, so that what is copied from the screen runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TextIO

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement, TableElement
from rich.segment import Segment, Segments
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from .markdown_blocks import Block, parser

_CONTEXT = 100
"""Lines of code before a line that decide its colours."""

# No black, no white, no yellow: each is invisible on some background.
_THEME = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "bold italic",
        "markdown.h5": "italic",
        "markdown.h6": "italic",
        "markdown.code": "cyan",
        "markdown.code_block": "none",
        "markdown.block_quote": "italic",
        "markdown.item.bullet": "bold",
        "markdown.item.number": "bold",
        "markdown.hr": "dim",
        "markdown.link": "underline",
        "markdown.link_url": "dim",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)
_CODE_THEME = ANSISyntaxTheme(
    {
        ("Comment",): Style(dim=True),
        ("Keyword",): Style(color="magenta"),
        ("Literal", "String"): Style(color="green"),
        ("Literal", "Number"): Style(color="cyan"),
        ("Name", "Function"): Style(bold=True),
        ("Name", "Class"): Style(bold=True),
        ("Name", "Builtin"): Style(color="cyan"),
        ("Name", "Decorator"): Style(color="magenta"),
        ("Name", "Tag"): Style(color="magenta"),
        ("Generic", "Deleted"): Style(color="red"),
        ("Generic", "Inserted"): Style(color="green"),
    }
)


@dataclass(frozen=True)
class Line:
    """One line for the screen: with its colour codes, and how many cells of the screen it takes."""

    coded: str
    cells: int


class Painter:
    """Paints blocks in order.

    Args:
        stream: a terminal; decides the colours, and nothing is written to it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, theme=_THEME, highlight=False, markup=False, emoji=False)
        self._code: list[str] = []

    def block(self, block: Block, columns: int, finished: bool = True) -> list[Line]:
        """A block's lines, broken to fit into so many columns; code is not broken.

        Args:
            finished: this is what the block remains; its code is the beginning of the code that follows.
        """
        if block.kind == "markdown":
            tokens = parser().parse(block.source)
            if block.number is not None and tokens:
                tokens[0].attrs["start"] = block.number
            return self._lines(_Markdown(tokens), columns)
        # Tabs are kept, so that a Makefile is copied as it is; but what is drawn again must be measured.
        source = block.source if finished else block.source.expandtabs(8)
        code = [*(self._code if block.joined else []), source]
        if finished:
            self._code = code[-_CONTEXT:]
        coloured = _highlighted("\n".join(code), block.language).split("\n", allow_blank=True)[len(code) - 1]
        # Not wrapped: the terminal does that, and takes it back when the line is copied.
        return self._coded([list(coloured.render(self._console))])

    def text(self, text: str, columns: int, style: str) -> list[Line]:
        """Plain text in one style, wrapped."""
        return self._lines(Text(text, style), columns)

    def _lines(self, content: RenderableType, columns: int) -> list[Line]:
        options = self._console.options.update(width=columns, height=None)
        lines = self._coded(self._console.render_lines(content, options, pad=False))
        while lines and not lines[0].cells:
            lines.pop(0)
        while lines and not lines[-1].cells:
            lines.pop()
        return lines

    def _coded(self, lines: Iterable[list[Segment]]) -> list[Line]:
        coded = []
        for line in lines:
            segments = _without_trailing_spaces(line)
            with self._console.capture() as capture:
                self._console.print(Segments(segments), end="", soft_wrap=True)
            coded.append(Line(capture.get(), Segment.get_line_length(segments)))
        return coded


def _without_trailing_spaces(line: list[Segment]) -> list[Segment]:
    """Padding would be copied too, and would make the line wrap when the terminal becomes narrower."""
    segments = [segment for segment in line if not segment.control]
    while segments:
        text, style, _ = segments.pop()
        if text := text.rstrip():
            return [*segments, Segment(text, style)]
    return segments


def _highlighted(code: str, language: str) -> Text:
    return Syntax(code, language or "text", theme=_CODE_THEME, background_color="default", tab_size=0).highlight(code)


class _LeftHeading(Heading):
    """A heading where the text is, not in the middle of a wide terminal."""

    LEVEL_ALIGN = {}  # noqa: RUF012 (Rich declares it)


class _BareCode(CodeBlock):
    """Code inside a list or a quotation."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _highlighted(str(self.text).rstrip().expandtabs(4), self.lexer_name)


class _WholeTable(TableElement):
    """A table that breaks words that are too long for their column, instead of leaving them out."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=box.SIMPLE, pad_edge=False, style="markdown.table.border", collapse_padding=True)
        for cell in self.header.row.cells if self.header and self.header.row else []:
            heading = cell.content.copy()
            heading.stylize("markdown.table.header")
            table.add_column(heading, overflow="fold")
        for row in self.body.rows if self.body else []:
            table.add_row(*(cell.content for cell in row.cells))
        yield table


class _Markdown(Markdown):
    """Rich's Markdown, of tokens that are parsed already."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _LeftHeading,
        "fence": _BareCode,
        "code_block": _BareCode,
        "table_open": _WholeTable,
    }

    def __init__(self, tokens: list) -> None:
        super().__init__("", hyperlinks=False)
        # A model does not wrap its lines: one that it ends, in a poem, an address, a translation beneath its original,
        # ends on the screen too.
        for inline in (child for token in tokens for child in token.children or []):
            if inline.type == "softbreak":
                inline.type = "hardbreak"
        self.parsed = tokens
