"""How a typed line is shown: labels for what is folded in it, and no character whose width terminals disagree on."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from itertools import takewhile

from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.utils import explode_text_fragments
from prompt_toolkit.utils import get_cwidth

from .line_tokens import TOKEN, Tokens
from .steady_output import ROOM, needs_room

_TAB = 4
_CLOSING = ".,;:!?)]}"
_MOST_MARKS = 8
"""Marks of one letter that stay in its row."""
# Terminals join emoji to one picture or do not, and make them wider or do not: each part is shown by itself.
_JOINERS = {0x20E3, *range(0xFE00, 0xFE10), *range(0x1F3FB, 0x1F400)}
_LETTER_JOINERS = "\u200c\u200d"
_FLAG_LETTERS = {chr(0x1F1E6 + number): chr(ord("A") + number) for number in range(26)}


class ShowLine(Processor):
    """Shows each token as its label, which no end of a row cuts, and tabs as spaces.

    Args:
        tokens: what the line's private characters stand for.
        margin: columns of a row that the prompt takes.
    """

    def __init__(self, tokens: Tokens, margin: int) -> None:
        self._tokens = tokens
        self._margin = margin
        self._labels: tuple[str, dict[str, str]] = ("", {})

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        text = transformation_input.document.text
        if text != self._labels[0] or TOKEN.search(text):  # what is beneath a label may have changed
            self._labels = (text, self._tokens.labels(text))
        row = _Row(max(1, transformation_input.width - self._margin))
        starts = [0]  # where each character of the line begins on the screen
        before = ""
        fragments = explode_text_fragments(transformation_input.fragments)
        for number, (style, character, *_) in enumerate(fragments):
            behind = [fragment[1] for fragment in fragments[number + 1 : number + 1 + _MOST_MARKS]]
            if label := self._labels[1].get(character):
                apart = not (before.isspace() or before == "" or TOKEN.match(before))
                starts[-1] = row.add_label(style, label, apart)
                if row.column < row.columns and not (behind and (behind[0].isspace() or behind[0] in _CLOSING)):
                    row.add(style, " ")
            elif character == "\t":
                row.add(style, " " * min(_TAB - row.column % _TAB, max(1, row.columns - row.column)))
            elif _is_hidden(character, before):
                character = before
            elif needs_room(character):
                row.add(style, character + ROOM)
            else:
                marks = list(takewhile(_is_mark, behind))
                # Some terminals lose a mark on what stands in the last column.
                room = max(sum(map(needs_room, marks)), bool(marks))
                starts[-1] = row.make_room(style, get_cwidth(character) + room)
                row.add(style, _FLAG_LETTERS.get(character, character))
            starts.append(row.length)
            before = character
        return Transformation(
            row.fragments,
            source_to_display=lambda position: starts[min(position, len(starts) - 1)],
            display_to_source=lambda position: bisect_right(starts, position) - 1,
        )


class _Row:
    """The rows that one line takes on the screen, and how far the last one has come.

    Attributes:
        fragments: what has been added, for prompt_toolkit, which breaks rows itself.
        length: its characters.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.column = 0
        self.length = 0
        self.fragments: StyleAndTextTuples = []

    def add(self, style: str, text: str) -> None:
        self.fragments.append((style, text))
        self.length += len(text)
        for character in text:
            width = get_cwidth(character)
            self.column = width if self.column + width > self.columns else self.column + width

    def make_room(self, style: str, columns: int) -> int:
        """Begin a new row if `columns` more columns do not fit into this one. Returns where the next character is."""
        if self.column and self.column + columns > self.columns:
            self.add(style, " " * (self.columns - self.column))
        return self.length

    def add_label(self, style: str, label: str, apart: bool) -> int:
        """A label, on the next row if this one has no room; where it begins.

        Args:
            apart: with a space in front of it, too.
        """
        label = _fitted(label, self.columns)
        self.make_room(style, apart + get_cwidth(label))
        if apart and self.column < self.columns:
            self.add(style, " ")
        start = self.length
        self.add(f"{style} class:token", label)
        return start


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def _is_hidden(character: str, before: str) -> bool:
    """Whether a character is not seen by itself: it only changes how others look, or where they stand."""
    if before == "" or unicodedata.category(before)[0] in "LM":  # it may be how a letter is written
        return unicodedata.category(character) in ("Cf", "Zl", "Zp") and character not in _LETTER_JOINERS
    return ord(character) in _JOINERS or unicodedata.category(character) in ("Cf", "Zl", "Zp")


def _fitted(label: str, columns: int) -> str:
    """A label of at most `columns` columns: its beginning and its end, which say what it is and how large."""
    if get_cwidth(label) <= columns:
        return label
    beginning, end = label[: max(0, columns // 3)], ""
    while get_cwidth(beginning) > columns // 3:
        beginning = beginning[:-1]
    for character in reversed(label):
        if get_cwidth(beginning) + 1 + get_cwidth(character + end) > columns:
            break
        end = character + end
    return f"{beginning}…{end}"
