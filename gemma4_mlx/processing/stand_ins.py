"""Whatever people, tools and earlier answers say goes through a chat template as text, and comes out of it as text.

A template joins, trims and splits what it is given: two parts `<tu` and `rn|>` would become a control token, and an
answer that quotes `<channel|>` would be cut there. So a template never sees the first letter of any control token. A
letter without meaning stands in for it until the template is done. Whatever control token is there then was written by
the template itself.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Literal, NamedTuple

from .tokenizer import Tokenizer

Kind = Literal["image", "audio", "video"]

# Unicode's noncharacters: no text in any language needs them. A text that has one all the same gets it escaped.
_ESCAPE = "\ufdd0"
MEDIA: dict[Kind, str] = {"image": "\ufdd1", "audio": "\ufdd2", "video": "\ufdd3"}
"""Letters that stand for a picture, sound or video in a text; within a tool's result, for one right behind it."""
_WORDS_OPEN, _WORDS_CLOSE = "\ufdd4", "\ufdd5"
_FIRST_STAND_IN = 0xFDD6

_CALL_OPEN = "<|tool_call>"
_RESULT_OPEN, _RESULT_CLOSE = "<|tool_response>", "<tool_response|>"


class Piece(NamedTuple):
    """A piece of a prompt's text.

    Attributes:
        medium: what the text is the placeholder of; None if it is none.
    """

    text: str
    medium: Kind | None = None


class StandIns:
    """The stand-ins for one tokenizer's control tokens, there and back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def hidden(self, value: Any) -> Any:
        """A JSON value for a template. No string or key in it spells a control token, or part of one."""
        match value:
            case str():
                for letter, replaced in self._replaced:
                    value = value.replace(letter, replaced)
                return value
            case dict():
                return {self.hidden(key): self.hidden(item) for key, item in value.items()}
            case list():
                return [self.hidden(item) for item in value]
            case _:
                return value

    def before_call(self, words: str, name: str) -> str:
        """The name of a call that `words` are said before. Templates have no place for them there, only a name."""
        return f"{_WORDS_OPEN}{self.hidden(words)}{_WORDS_CLOSE}{self.hidden(name)}"

    def revealed(self, rendered: str) -> list[Piece]:
        """What a template made of hidden values, in pieces that `Tokenizer.encode` takes.

        Control tokens that the template wrote count; all others are marked as mere text. A medium named within a tool's
        result stands right behind it, where the makers' templates put it, and words said before a call stand there.
        """
        pieces: list[Piece] = []
        text: list[str] = []  # since the last control token
        call: list[str] = []  # of it, what stands before the words said before a call
        waiting: list[Piece] = []  # media of the result that is being read
        in_result = False

        def end_text() -> None:
            nonlocal text
            if text:
                pieces.append(Piece(self._tokenizer.literal("".join(text))))
            text = []

        end = 0
        for found in self._sign.finditer(rendered):
            if found.start() > end:
                text.append(rendered[end : found.start()])
            sign, end = found[0], found.end()
            if sign[0] == _ESCAPE:
                text.append(sign[1:])
            elif sign in self._letters:
                text.append(self._letters[sign])
            elif sign == _WORDS_OPEN:
                call, text = text, []
            elif sign == _WORDS_CLOSE:
                opening = [pieces.pop()] if pieces and pieces[-1].text == _CALL_OPEN else []
                end_text()
                pieces += opening
                text = call
            elif sign in self._media and in_result:
                waiting.append(self._media[sign])
            elif sign in self._media:
                end_text()
                pieces.append(self._media[sign])
            else:
                end_text()
                pieces.append(Piece(sign, self._kinds.get(sign)))
                in_result = sign == _RESULT_OPEN or (in_result and sign != _RESULT_CLOSE)
                if not in_result:
                    pieces += waiting
                    waiting.clear()
        text.append(rendered[end:])
        end_text()
        return [*pieces, *waiting]

    @cached_property
    def _media(self) -> dict[str, Piece]:
        """Stand-in → its placeholder."""
        return {letter: Piece(self._tokenizer.special_tokens[f"{kind}_token"], kind) for kind, letter in MEDIA.items()}

    @cached_property
    def _kinds(self) -> dict[str, Kind]:
        """Placeholder → what it stands for."""
        return {self._tokenizer.special_tokens[f"{kind}_token"]: kind for kind in MEDIA}

    @cached_property
    def _letters(self) -> dict[str, str]:
        """Stand-in → what it stands for: all letters that control tokens begin with. Gemma 4 has one, `<`."""
        first = sorted({token[0] for token in self._tokenizer.control_tokens})
        return {chr(_FIRST_STAND_IN + number): letter for number, letter in enumerate(first)}

    @cached_property
    def _replaced(self) -> list[tuple[str, str]]:
        """What is replaced in a text, one after the other: first what stands for something itself."""
        own = [_ESCAPE, *MEDIA.values(), _WORDS_OPEN, _WORDS_CLOSE, *self._letters]
        escaped = [(letter, _ESCAPE + letter) for letter in own]
        return escaped + [(letter, stand_in) for stand_in, letter in self._letters.items()]

    @cached_property
    def _sign(self) -> re.Pattern[str]:
        """All that is not plain text in what a template made of hidden values.

        Every alternative begins with a letter, and none is a group: Python then skips plain text at full speed.
        """
        signs = [*MEDIA.values(), _WORDS_OPEN, _WORDS_CLOSE, *self._letters, *self._tokenizer.control_tokens]
        return re.compile("|".join([f"{_ESCAPE}.?", *map(re.escape, signs)]), re.DOTALL)
