"""Attachments inside a typed line: each is one character there, and is shown as a token with its size.

One character, because then whatever edits the line can move over it and delete it, but never get inside. The characters
come from a private-use plane that nobody types.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..terminal import printable
from .attachments import Attachment

_FIRST = 0xF0000
_LAST = 0xFFFFD
TOKEN = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")
_TOKEN_WITH_SPACES = re.compile(rf" *{TOKEN.pattern}(?: *{TOKEN.pattern})* *")


@dataclass(frozen=True)
class Typed:
    """What a person sent.

    Attributes:
        text: their words, without the attachments' tokens.
        attachments: in the order in which they stood in the line.
    """

    text: str
    attachments: list[Attachment] = field(default_factory=list)


class Tokens:
    """The attachments that stand in the line, or did.

    Args:
        image_tokens: the most soft tokens a picture may take, as chosen now.
    """

    def __init__(self, image_tokens: Callable[[], int]) -> None:
        self._image_tokens = image_tokens
        self._attachments: dict[str, Attachment] = {}

    def add(self, attachments: Sequence[Attachment]) -> str:
        """Text that stands for these attachments: one character each."""
        added = ""
        for attachment in attachments:
            character = chr(_FIRST + len(self._attachments) % (_LAST - _FIRST))
            self._attachments[character] = attachment
            added += character
        return added

    def labels(self, line: str) -> dict[str, str]:
        """What is shown for each token of a line, such as `[image 1: cat.jpg 1024×768 → 266 tokens]`."""
        numbers: dict[str, int] = {}
        labels = {}
        for character in TOKEN.findall(line):
            if attachment := self._attachments.get(character):
                number = numbers[attachment.kind] = numbers.get(attachment.kind, 0) + 1
                labels[character] = self._label(attachment, number)
        return labels

    def _label(self, attachment: Attachment, number: int) -> str:
        name = " ".join(printable(attachment.name).split())
        label = f"{attachment.kind} {number}: {name} {attachment.description}"
        soft_tokens = attachment.soft_tokens(self._image_tokens())
        return f"[{label}]" if soft_tokens is None else f"[{label} → {soft_tokens:,} tokens]"

    def typed(self, line: str) -> Typed:
        """The words of a line and its attachments."""
        attachments = [self._attachments[c] for c in TOKEN.findall(line) if c in self._attachments]
        return Typed(_TOKEN_WITH_SPACES.sub(" ", line).strip() if attachments else line, attachments)

    def spelled_out(self, line: str) -> str:
        """The line with every token written as it is shown, for an editor."""
        labels = self.labels(line)
        return TOKEN.sub(lambda token: labels.get(token[0], ""), line)

    def read_back(self, edited: str, line: str) -> str:
        """What came back from the editor, with the tokens of `line` that are still in it as tokens again."""
        for character, label in self.labels(line).items():
            edited = edited.replace(label, character, 1)
        return edited

    def remembered(self, line: str) -> str:
        """The line as a history can keep it: with the files' paths, which find them again."""

        def path(token: re.Match[str]) -> str:
            attachment = self._attachments.get(token[0])
            return f" {shlex.quote(str(attachment.path))} " if attachment and attachment.path else ""

        return TOKEN.sub(path, line).strip(" ") if TOKEN.search(line) else line
