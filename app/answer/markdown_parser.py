r"""CommonMark as models write it, for a reader who must lose nothing: what is not plainly markup stays as it is.

Formulas stay whole, between `\(` and `\)`, `\[` and `\]`, `$` and `$`, `$$` and `$$`; so do stars between numbers and
names (2*3*4), backslashes that LaTeX and paths have (`\,`, `\{`, `\\`), tags and addresses in angle brackets, entities,
and definitions of links.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

MATH, MATH_BLOCK = "math", "math_block"
"""Types of tokens; a block's `meta` says whether it is `open`: its end may be still to come."""
GROWING = {"growing": True}
"""The parser's environment for a text that is still being written."""

_CLOSINGS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}
_LONGEST_MATH = 4_000
"""Characters of a formula within a paragraph."""
_ESCAPES = frozenset("*_#`~|<>.-+&$")
"""What a backslash is taken away from: marks of Markdown that are seldom a command of LaTeX."""
_CODE_OR_MATH = re.compile(
    r"(`+)(?!`).*?(?<!`)\1(?!`)|\\\(.*?\\\)|\\\[.*?\\\]|\$\$.+?\$\$|\$(?!\s).*?(?<![\s\\])\$(?!\d)"
)
_OPERANDS = ((0x30, 0x52F), (0x1D00, 0x1FFF), (0x2070, 0x218F), (0x2200, 0x22FF), (0x1D400, 0x1D7FF))
"""Of Latin, Greek and Cyrillic letters and of numbers: scripts that have spaces between words, and formulas."""
_HIDDEN_BAR = "\0"  # the parser leaves none of these in a text
_WORD = 2  # letters


@cache
def parser() -> MarkdownIt:
    """CommonMark with tables, struck-out text and formulas."""
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    markdown.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    markdown.disable(["autolink", "entity", "reference"])
    markdown.inline.ruler.before("escape", MATH, _math)
    markdown.inline.ruler.at("escape", _escape)
    markdown.inline.ruler.at("emphasis", _emphasis)
    markdown.block.ruler.before("fence", MATH_BLOCK, _math_block, {"alt": ["paragraph", "blockquote", "list"]})
    return markdown


def _table(state: StateBlock, start: int, last: int, silent: bool) -> bool:
    """A table, also one with bars in a formula or in code of its heading, where they are no ends of cells.

    The table rule takes a heading only with as many cells as the line below it has. So where there are more, it is
    given the heading without such bars.
    """
    from markdown_it.rules_block import table

    text = state.src
    known = len(state.tokens)
    if start + 2 <= last:
        heading = _line(state, start)
        without = _CODE_OR_MATH.sub(lambda part: part[0].replace("|", _HIDDEN_BAR), heading)
        if len(_cells(without)) == len(_cells(_line(state, start + 1))) < len(_cells(heading)):
            end = state.eMarks[start]
            state.src = text[: end - len(heading)] + without + text[end:]
    found = table(state, start, last, silent)
    state.src = text
    for token in state.tokens[known:]:
        token.content = token.content.replace(_HIDDEN_BAR, "|")
    _keep_cells(state, state.tokens[known:])
    return found


def _line(state: StateBlock, number: int) -> str:
    """A line without what stands before it: spaces, and the marks of quotes and lists that it is in."""
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]


def _cells(row: str) -> list[str]:
    from markdown_it.rules_block.table import escapedSplit

    return escapedSplit(row.strip().removeprefix("|").removesuffix("|"))


def _keep_cells(state: StateBlock, tokens: list[Token]) -> None:
    """Cells of a table's row that are more than its columns: they are one where a formula or code was cut in two.

    The table rule cuts at every bar, and leaves out what is behind the last column: that goes into the last cell.
    """
    for number, token in enumerate(tokens):
        if token.type != "tr_open" or token.map is None:
            continue
        inlines = []
        while tokens[number].type != "tr_close":
            if tokens[number].type == "inline":
                inlines.append(tokens[number])
            number += 1
        cells = _whole_cells(_cells(_line(state, token.map[0])), len(inlines))
        if cells is None:
            continue
        cells = [cell.strip() for cell in cells]
        rest = len(inlines) - 1
        cells[rest:] = [" | ".join(cells[rest:])]
        for inline, cell in zip(inlines, cells, strict=False):
            inline.content = cell


def _whole_cells(parts: list[str], columns: int) -> list[str] | None:
    """A row's cells, of the parts between its bars; None if they are no more than the columns.

    A formula or code goes on over the bars in it only while there are parts too many: in a row that is right, a dollar
    in each of two cells is a price.
    """
    if not 0 < columns < len(parts):
        return None
    cells: list[str] = []
    spare = len(parts) - columns
    while parts:
        # The shortest run of parts in which whatever is opened is closed.
        run = next((n for n in range(1, spare + 2) if _is_whole("|".join(parts[:n]))), 1)
        cells.append("|".join(parts[:run]))
        parts = parts[run:]
        spare -= run - 1
    return cells


def _is_whole(cell: str) -> bool:
    """Whether every formula and all code that begins in a cell ends there."""
    plain = _CODE_OR_MATH.sub("", cell)
    return not any(mark in plain for mark in ("`", "$", "\\(", "\\["))


def _math(state: StateInline, silent: bool) -> bool:
    """A formula in a line of text."""
    start = state.pos
    if state.src[start] not in "\\$":
        return False
    opening = state.src[start : start + 2]
    if closing := _CLOSINGS.get(opening):
        end = state.src.find(closing, start + 2, min(state.posMax, start + _LONGEST_MATH))
        end = end + 2 if end >= 0 else end
    else:
        end = _end_of_dollars(state.src, start, state.posMax) if opening.startswith("$") else -1
    if end < 0:
        return False
    if not silent:
        state.push(MATH, "", 0).content = state.src[start:end]
    state.pos = end
    return True


def _end_of_dollars(text: str, start: int, end: int) -> int:
    """Where a formula between single dollars ends, by pandoc's rule, which tells it from prices; -1: it is none."""
    if text[start + 1 : start + 2].isspace() or (start and (text[start - 1].isalnum() or text[start - 1] in "\\$")):
        return -1
    place = start + 1
    while place < min(end, start + _LONGEST_MATH):
        character = text[place]
        if character in "\n`":
            return -1
        if character == "\\":
            place += 1
        elif character == "$":
            is_end = not text[place - 1].isspace() and not text[place + 1 : place + 2].isdigit()
            return place + 1 if is_end and place > start + 1 else -1
        place += 1
    return -1


def _escape(state: StateInline, silent: bool) -> bool:
    """A backslash: with what follows it, as it stands, unless it takes a mark its meaning."""
    from markdown_it.rules_inline import escape

    if state.src[state.pos] != "\\" or state.src[state.pos + 1 : state.pos + 2] in _ESCAPES:
        return escape(state, silent)
    follows = state.src[state.pos + 1 : min(state.pos + 2, state.posMax)]
    taken = "\\" + (follows if follows in "\\{}()[]" else "")
    if not silent:
        state.pending += taken
    state.pos += len(taken)
    return True


def _emphasis(state: StateInline, silent: bool) -> bool:
    """Stars and low lines, which between numbers and names are none of Markdown's."""
    from markdown_it.rules_inline.emphasis import tokenize

    start, known = state.pos, len(state.delimiters)
    if not tokenize(state, silent):
        return False
    text, end = state.src, state.pos
    if start and end < state.posMax and _may_end_operand(text[start - 1]) and _may_begin_operand(text[end]):
        is_one = end - start == 1
        for delimiter in state.delimiters[known:]:
            # "**H**yper**T**ext" is bold, "2**3**4" is not.
            delimiter.open = not is_one and delimiter.open and _is_in_word(text, start, end)
            delimiter.close = not is_one and delimiter.close and not (text[start - 1] + text[end]).isdigit()
    return True


def _may_end_operand(character: str) -> bool:
    return character in ")]}|" or _is_operand(character)


def _may_begin_operand(character: str) -> bool:
    return character in "([{|\\-" or _is_operand(character)


def _is_operand(character: str) -> bool:
    if not any(first <= ord(character) <= last for first, last in _OPERANDS):
        return False
    return character.isalnum() or (not character.isascii() and unicodedata.category(character) == "Sm")


def _is_in_word(text: str, start: int, end: int) -> bool:
    return text[max(0, start - _WORD) : start].isalpha() and start >= _WORD and text[end].isalpha()


def _math_block(state: StateBlock, start: int, last: int, silent: bool) -> bool:
    """A formula that begins a line of its own and ends within the paragraph: there are no empty lines in LaTeX's."""
    if state.is_code_block(start):
        return False
    place = state.bMarks[start] + state.tShift[start]
    closing = _CLOSINGS.get(state.src[place : place + 2])
    if closing in (None, "\\)"):
        return False
    end = _last_line(state, start, last, str(closing))
    is_open = end is None
    if end == -1 or (is_open and not state.env.get("growing")):
        return False
    if end == start and state.src[place + 2 : state.eMarks[start]].partition(str(closing))[2].strip(" \t.,;"):
        return False  # words follow it: a paragraph that begins with a formula
    if silent:
        return True
    state.line = last if end is None else end + 1
    token = state.push(MATH_BLOCK, "", 0)
    token.content = state.getLines(start, state.line, state.blkIndent, False)
    token.map = [start, state.line]
    token.meta = {"open": is_open}
    return True


def _last_line(state: StateBlock, start: int, last: int, closing: str) -> int | None:
    """The line that a formula's end is in; None if it is not there yet; -1 if there is none."""
    for line in range(start, last):
        if state.isEmpty(line) or (line > start and state.sCount[line] < state.blkIndent):
            return -1
        begin = state.bMarks[line] + state.tShift[line] + (2 if line == start else 0)
        if closing in state.src[begin : state.eMarks[line]]:
            return line
    return None
