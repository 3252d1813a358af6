"""Markdown that is still being written → the blocks of it that are finished, each once, and the rest.

A block is finished when nothing that may follow can change it: a paragraph once the next block has begun, an item of a
list once the next item has, a line of code at once. Only whole lines decide, because half of one may be anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .markdown_parser import GROWING, MATH_BLOCK, parser

if TYPE_CHECKING:
    from markdown_it.token import Token

_LISTS = ("bullet_list_open", "ordered_list_open")
# Finished at the end of their line, or at an empty line after it.
_ONE_LINE = ("heading_open", "hr")
_ENDED_BY_EMPTY_LINE = ("paragraph_open", "table_open", "blockquote_open")


@dataclass(frozen=True)
class Block:
    """A piece of an answer.

    Attributes:
        kind: "markdown", or "code" for lines of a code fence, which are no Markdown.
        source: as it was written; lines of code without their fence.
        language: of code, as the fence names it.
        number: of the first item, when this is one of a numbered list.
        joined: it goes on where the block before it ended, with no empty line between: the same list, the same code.
    """

    kind: Literal["markdown", "code"]
    source: str
    language: str = ""
    number: int | None = None
    joined: bool = False


@dataclass(frozen=True)
class _Fence:
    """An open code fence: the character it is made of, how many of them, its indentation and language."""

    marker: str
    length: int
    indent: int
    language: str

    @classmethod
    def opened_by(cls, line: str, token: Token) -> _Fence:
        language = token.info.split(maxsplit=1)
        indent = len(line) - len(line.lstrip(" "))
        return cls(token.markup[0], len(token.markup), indent, language[0] if language else "")

    def is_closed_by(self, line: str) -> bool:
        bare = line.rstrip()
        marks = bare.lstrip(" ")
        return len(bare) - len(marks) <= 3 and len(marks) >= self.length and set(marks) == {self.marker}

    def unindented(self, line: str) -> str:
        spaces = len(line) - len(line.lstrip(" "))
        return line[min(spaces, self.indent) :]


class MarkdownBlocks:
    """Takes an answer apart as it is written."""

    def __init__(self) -> None:
        self._rest = ""
        self._fence: _Fence | None = None
        self._joined = False  # the rest goes on with the list, or the code, that the last block belongs to
        self._number: int | None = None  # of the item the rest begins with

    def feed(self, text: str) -> list[Block]:
        """Add text; returns the blocks that this finished."""
        self._rest += text
        return list(self._finished(ended=False)) if "\n" in text else []

    def finish(self) -> list[Block]:
        """No more text comes: returns all that is left."""
        blocks = list(self._finished(ended=True))
        self._rest, self._fence, self._joined, self._number = "", None, False, None
        return blocks

    @property
    def tail(self) -> Block | None:
        """What is not finished; None when there is nothing to be seen of it."""
        if self._fence is not None:
            line = self._fence.unindented(self._rest)
            if not line or set(line.strip()) == {self._fence.marker}:  # perhaps the end of it
                return None
            return Block("code", line, self._fence.language, joined=self._joined)
        if not self._rest.strip():
            return None
        return Block("markdown", self._rest, number=self._number, joined=self._joined)

    def _finished(self, ended: bool) -> Iterator[Block]:
        while True:
            if self._fence is None:
                yield from self._whole_blocks(ended)
                if self._fence is None:
                    return
            yield from self._lines_of_code(ended)
            if self._fence is not None:
                return

    def _lines_of_code(self, ended: bool) -> Iterator[Block]:
        """Take the lines of the open fence out of the rest, and its closing one."""
        assert self._fence is not None
        while self._rest if ended else "\n" in self._rest:
            line, _, self._rest = self._rest.partition("\n")
            if self._fence.is_closed_by(line):
                self._fence, self._joined = None, False
                return
            yield Block("code", self._fence.unindented(line), self._fence.language, joined=self._joined)
            self._joined = True

    def _whole_blocks(self, ended: bool) -> Iterator[Block]:
        """Take finished blocks out of the rest, up to the beginning of a code fence."""
        whole = len(self._rest) if ended else self._rest.rfind("\n") + 1
        lines = _lines(self._rest[:whole])
        tokens = parser().parse("".join(lines), {} if ended else GROWING)
        tops = [token for token in tokens if token.level == 0 and token.nesting >= 0 and token.map]
        taken = 0
        for token in tops:
            assert token.map is not None
            start, end = token.map
            if token.type == "fence":
                self._fence = _Fence.opened_by(lines[start], token)
                self._joined, self._number = False, None
                taken = start + 1
                break
            is_last = token is tops[-1] and not ended
            if token.type in _LISTS:
                if taken or not self._joined:
                    self._joined, self._number = False, _first_number(token)
                items = [item for item in tokens if item.type == "list_item_open" and item.level == 1 and item.map]
                items = [item for item in items if item.map and start <= item.map[0] < end]
                for item in items[:-1] if is_last else items:
                    assert item.map is not None
                    yield Block("markdown", "".join(lines[slice(*item.map)]), number=self._number, joined=self._joined)
                    taken = item.map[1]
                    self._joined = True
                    self._number = None if self._number is None else self._number + 1
                if is_last:
                    break
            elif is_last and not _is_over(token, lines):
                break
            else:
                yield Block("markdown", "".join(lines[start:end]))
                taken = end
            self._joined, self._number = False, None
        self._rest = "".join(lines[taken:]) + self._rest[whole:]


def _lines(text: str) -> list[str]:
    """Lines with their ends, as Markdown counts them."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _first_number(token: Token) -> int | None:
    return int(token.attrs.get("start", 1)) if token.type == "ordered_list_open" else None


def _is_over(token: Token, lines: list[str]) -> bool:
    """Whether the last block cannot grow any more."""
    assert token.map is not None
    if token.type == MATH_BLOCK:
        return not token.meta["open"]
    after = lines[token.map[1] :]
    return token.type in _ONE_LINE or (token.type in _ENDED_BY_EMPTY_LINE and any(not line.strip() for line in after))
