"""Blocks of an answer → lines for a terminal, in the sixteen colours every palette makes readable on its background.

Code is left alone: no border, no indentation, no line broken, so that what is copied from the screen runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import ClassVar, TextIO

from markdown_it.token import Token
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import (
    CodeBlock,
    Heading,
    ImageItem,
    Markdown,
    MarkdownContext,
    MarkdownElement,
    Paragraph,
    TableElement,
    TextElement,
)
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from ..live_tail import Line
from ..terminal import console
from .lines import coded, rendered
from .markdown_blocks import Block
from .markdown_parser import GROWING, MATH, MATH_BLOCK, parser

_CONTEXT = 100
"""Lines of code before a line that decide its colours."""
_COLUMN = 6
"""Cells of the screen that a column of a table needs."""
_LEAST_ROOM = 12
"""Cells of the screen for what is within lists and quotations."""
_DEEPEST = 18
"""Of tokens within each other; CommonMark's preset of markdown-it ends at 20. What is deeper is shown as it is."""
_INDENTS = {"list_item_open": 4, "blockquote_open": 4}
_GROWING_ROWS = 2
"""Rows at the end of a paragraph that its next word may change, or show to be no paragraph."""

# What is still text and may become markup by what follows, if it opens any: emphasis not before a space and _ not
# within a word, code, a struck-out passage, a formula, a link (but no brackets that are closed, with no address behind
# them), the row of a table.
_MAY_OPEN = re.compile(
    r"""
    \*+ (?! [\s*] )
    | (?<! \w ) _+ (?! [\s_] )
    | `
    | ~~
    | \\[(\[]
    | \$ (?! \s)
    | !?\[ (?! [^][`<]* \] [^(:] )
    | \A \|
    """,
    re.VERBOSE,
)
_MARK = "\U0010ffff"  # no character at all; the gate lets it pass

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
class Beginning:
    """A block that is still being written.

    Attributes:
        settled: lines at its beginning that nothing which follows can change.
        standing: the text of these and of the lines of it that were settled before.
        growing: the lines after them.
        going_on: the end of a line that is not drawn again: what is to be written behind what stands of it.
    """

    settled: list[Line]
    standing: str
    growing: list[Line]
    going_on: str | None = None


class Painter:
    """Paints blocks in order.

    Args:
        stream: a terminal; decides the colours, and nothing is written to it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = console(stream, theme=_THEME, markup=False, emoji=False)
        self._code: list[str] = []

    def block(self, block: Block, columns: int, standing: str = "") -> list[Line]:
        """A finished block's lines, broken to fit into `columns` columns; code is not broken.

        Args:
            standing: text at its beginning to leave out. What is not as it was when it was settled is painted again.
        """
        if block.kind == "code":
            return self._code_lines(block, standing)
        paragraph, others = _first_paragraph(block, {})
        rows = self._rows(self._unbroken(paragraph), columns, standing)
        return self._under([line for line, _ in rows], others, columns)

    def beginning(self, block: Block, columns: int, standing: str = "") -> Beginning:
        """The lines of a block that is still being written, but for the text of it that stands above already."""
        if block.kind == "code":
            return self._beginning_of_code(block, columns, standing)
        # Marks at the end may be more of them soon, and whether they open or close shows in what is behind them.
        paragraph, others = _first_paragraph(replace(block, source=block.source.rstrip("*_~`")), GROWING)
        if not paragraph:
            return Beginning([], "", self._under([], others, columns))
        _mark_what_may_open(paragraph)
        text = self._unbroken(paragraph)
        certain = text.plain.find(_MARK)
        if certain < 0:
            certain = len(text)
        else:
            text = Text.assemble(text[:certain], text[certain + 1 :])
        if paragraph[0].type != "paragraph_open":  # what stands over a "-" is a heading until a list begins there
            certain = 0
        rows = self._rows(text, columns, standing)
        settled = [(line, end) for line, end in rows[:-_GROWING_ROWS] if end <= certain]
        if settled:
            standing = text.plain[: settled[-1][1]]
        growing = [line for line, _ in rows[len(settled) :]]
        return Beginning([line for line, _ in settled], standing, self._under(growing, others, columns))

    def text(self, text: str, columns: int, style: str) -> list[Line]:
        """Plain text in one style, wrapped."""
        return [line for line, _ in self._rows(Text.assemble((text.expandtabs(8), style)), columns)]

    def excerpt(self, text: str, columns: int, rows: int, style: str) -> tuple[list[Line], int]:
        """The first rows of plain text in one style, wrapped; and how many characters are left out."""
        text = text.expandtabs(8)
        # No more than can be seen is wrapped: it may be a whole file.
        shown = self._rows(Text.assemble((text[: rows * (columns + 1)], style)), columns)[:rows]
        return [line for line, _ in shown], len(text) - shown[-1][1] if shown else 0

    def _code_lines(self, block: Block, standing: str) -> list[Line]:
        # Tabs are kept, so that a Makefile is copied as it is. Not wrapped: the terminal does that, and takes it back
        # when the line is copied.
        rest = block.source[len(standing) :]
        code = [Line(rest, cell_len(rest))] if standing else self._coloured(block, block.source)
        self._code = [*self._code_before(block), block.source][-_CONTEXT:]
        return code

    def _beginning_of_code(self, block: Block, columns: int, standing: str) -> Beginning:
        # A line that is wider than the terminal is not drawn again but gone on with, without colours, which the rest of
        # it might change: so it stands there once, whatever size the terminal takes.
        source = block.source.expandtabs(8)
        if not standing and cell_len(source) <= columns:
            return Beginning([], "", self._coloured(block, source))
        return Beginning([], block.source, [], going_on=block.source[len(standing) :])

    def _code_before(self, block: Block) -> list[str]:
        return self._code if block.joined else []

    def _coloured(self, block: Block, source: str) -> list[Line]:
        code = [*self._code_before(block), source]
        coloured = _highlighted("\n".join(code), block.language).split("\n", allow_blank=True)[len(code) - 1]
        return coded(self._console, [list(coloured.render(self._console))])

    def _unbroken(self, tokens: list[Token]) -> Text:
        """The text of a paragraph, with new lines only where the paragraph has them."""
        options = self._console.options.update(no_wrap=True, overflow="ignore", height=None)
        segments = self._console.render(_Markdown(tokens), options)
        text = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        text.rstrip()
        return text

    def _rows(self, text: Text, columns: int, standing: str = "") -> list[tuple[Line, int]]:
        """A text's lines, broken to fit, without what stands above; and where in it the line after each begins."""
        start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(standing, text.plain, strict=False)))
        while 0 < start < len(text) and text.plain[start] in " \n":
            start += 1
        if not text.plain[start:].strip():
            return []
        broken = text[start:].wrap(self._console, max(columns, 2))  # a character may be two cells wide
        starts = []
        for row in broken:
            starts.append(max(start, text.plain.find(row.plain, start)))  # behind the spaces it was broken at
            start = starts[-1] + len(row)
        lines = coded(self._console, (list(row.render(self._console)) for row in broken))
        return list(zip(lines, [*starts[1:], len(text)], strict=True))

    def _under(self, lines: list[Line], tokens: list[Token], columns: int) -> list[Line]:
        """Lines, and other blocks beneath them."""
        # Deep within lists there may be no room left: such lines are wider than the terminal, which breaks them.
        others = self._lines(_Markdown(tokens), max(columns, _deepest(tokens) + _LEAST_ROOM))
        return [*lines, Line("", 0), *others] if lines and others else lines + others

    def _lines(self, content: RenderableType, columns: int) -> list[Line]:
        lines = rendered(self._console, content, columns)
        while lines and not lines[0].cells:
            lines.pop(0)
        while lines and not lines[-1].cells:
            lines.pop()
        return lines


def _first_paragraph(block: Block, environment: dict[str, bool]) -> tuple[list[Token], list[Token]]:
    """A block's tokens: those of the paragraph, or heading, that it begins with, if it does; and the others."""
    tokens = parser().parse(block.source.replace(_MARK, ""), environment)
    if any(token.level >= _DEEPEST for token in tokens):  # the parser leaves out what is deeper
        return [], [Token(MATH_BLOCK, "", 0, content=block.source.rstrip())]
    if block.number is not None and tokens:
        tokens[0].attrs["start"] = block.number
    length = 3 if tokens and tokens[0].type in ("paragraph_open", "heading_open") else 0
    return tokens[:length], tokens[length:]


def _deepest(tokens: list[Token]) -> int:
    """Cells that the innermost of nested lists and quotations are indented by."""
    indent = deepest = 0
    for token in tokens:
        indent += _INDENTS.get(token.type, 0) - _INDENTS.get(token.type.replace("_close", "_open"), 0) * (
            token.nesting < 0
        )
        deepest = max(deepest, indent)
    return deepest


def _mark_what_may_open(paragraph: list[Token]) -> None:
    """Put a mark in front of the first thing that may open markup; within emphasis or a link, in front of these.

    Code that opens in them may take the marks away that closed them.
    """
    for inline in paragraph:
        children = inline.children or []
        outermost = 0
        for index, token in enumerate(children):
            if token.level == 0:
                outermost = index
            if token.type == "text" and (found := _MAY_OPEN.search(token.content)):
                if token.level:
                    children.insert(outermost, Token("text", "", 0, content=_MARK))
                else:
                    token.content = token.content[: found.start()] + _MARK + token.content[found.start() :]
                return


def _highlighted(code: str, language: str) -> Text:
    return Syntax(code, language or "text", theme=_CODE_THEME, background_color="default", tab_size=0).highlight(code)


class _WithImages(TextElement):
    """Text that names its images where they are, not in front of it."""

    def on_child_close(self, context: MarkdownContext, child: MarkdownElement) -> bool:
        if not isinstance(child, ImageItem):
            return True
        self.text.append_text(Text.assemble("🌆 ", child.text or child.destination))
        return False


class _Paragraph(_WithImages, Paragraph):
    pass


class _LeftHeading(_WithImages, Heading):
    """A heading where the text is, not in the middle of a wide terminal."""

    LEVEL_ALIGN = {}  # noqa: RUF012 (Rich declares it)


class _BareCode(CodeBlock):
    """Code inside a list or a quotation."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _highlighted(str(self.text).rstrip().expandtabs(4), self.lexer_name)


class _Formula(TextElement):
    """A formula on lines of its own."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _WholeTable(TableElement):
    """A table that breaks words that are too long for their column, instead of leaving them out."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        headings = [cell.content for cell in self.header.row.cells] if self.header and self.header.row else []
        rows = [[cell.content for cell in row.cells] for row in self.body.rows] if self.body else []
        if options.max_width < _COLUMN * len(headings):
            yield from _as_lines(headings, rows)
            return
        table = Table(box=box.SIMPLE, pad_edge=False, style="markdown.table.border", collapse_padding=True)
        for cell in headings:
            heading = cell.copy()
            heading.stylize("markdown.table.header")
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*row)
        yield table


def _as_lines(headings: list[Text], rows: list[list[Text]]) -> Iterator[Text]:
    """A table that is too wide for the terminal, cell by cell."""
    if not rows:
        yield from headings
    for number, row in enumerate(rows):
        if number:
            yield Text()
        for heading, cell in zip(headings, row, strict=False):
            yield Text.assemble((f"{heading.plain}: ", "markdown.table.header"), cell)


class _Markdown(Markdown):
    """Rich's Markdown, of tokens that are parsed already."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "paragraph_open": _Paragraph,
        "heading_open": _LeftHeading,
        "fence": _BareCode,
        "code_block": _BareCode,
        "table_open": _WholeTable,
        MATH_BLOCK: _Formula,
    }

    def __init__(self, tokens: list) -> None:
        super().__init__("", hyperlinks=False)
        # A model does not wrap its lines: one that it ends, in a poem, an address, a translation beneath its original,
        # ends on the screen too.
        for inline in (child for token in tokens for child in token.children or []):
            if inline.type == "softbreak":
                inline.type = "hardbreak"
            elif inline.type == MATH:
                inline.type = "text"
        self.parsed = tokens
