"""What stands folded in a typed line: attachments and long pastes, each one character there, shown as a label.

One character, because then whatever edits the line can move over it and delete it, but never get inside. The characters
come from the end of the last private-use plane, where no font of icons has any.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..printable import printable
from .attachments import Attachment

_FIRST = 0x108000
_LAST = 0x10FEFF
# In the history's file these surround a pasted text, or a file's path and its name in the words.
_FILE, _PASTED, _NAME, _END = map(chr, range(0x10FF00, 0x10FF04))
TOKEN = re.compile(f"[{chr(_FIRST)}-\U0010fffd]")
_REMEMBERED = re.compile(f"([{_FILE}{_PASTED}])([^{_END}]*){_END}")

MOST_LABELS = 4
"""Files dropped at once that have a label each; more of them share one."""
_LONGEST_PASTE = 1_000
_MOST_LINES = 8
_PLURALS = {"image": ("picture", "pictures"), "audio": ("sound", "sounds"), "video": ("video", "videos")}
_PLURALS |= {"text": ("text", "texts")}


@dataclass(frozen=True)
class Typed:
    """What a person sent.

    Attributes:
        text: their words, without the attachments' labels and with all that was pasted.
        attachments: in the order in which they stood in the line.
        literal: the text is words, even if a command begins like it.
    """

    text: str
    attachments: list[Attachment] = field(default_factory=list)
    literal: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class _Files:
    """Attachments behind one character.

    Attributes:
        name: how it is spelled in the words, if it is named there.
    """

    attachments: tuple[Attachment, ...]
    name: str = ""


@dataclass(frozen=True)
class _Remembered:
    """A file that went with an earlier message; not opened yet."""

    path: Path
    name: str


class Tokens:
    """What stands folded in the line, or did.

    Args:
        image_tokens: the most soft tokens a picture may take, as chosen now.
    """

    def __init__(self, image_tokens: Callable[[], int]) -> None:
        self._image_tokens = image_tokens
        self._folded: dict[str, _Files | _Remembered | str] = {}

    def add(self, attachments: Sequence[Attachment], name: str = "") -> str:
        """Text that stands for these attachments: one character each, or one for all when they are many.

        Args:
            name: how it is spelled in the words, where it stays.
        """
        if len(attachments) > MOST_LABELS:
            return self._fold(_Files(tuple(attachments), name))
        return "".join(self._fold(_Files((attachment,), name)) for attachment in attachments)

    def add_pasted(self, text: str) -> str:
        """The character that stands for a long text."""
        return self._fold(text)

    def _fold(self, folded: _Files | _Remembered | str) -> str:
        character = chr(_FIRST + len(self._folded) % (_LAST - _FIRST))
        self._folded[character] = folded
        return character

    def labels(self, line: str) -> dict[str, str]:
        """What is shown for each token of a line, such as `[image 1: cat.jpg 1024×768 → 266 tokens]`."""
        numbers: Counter[str] = Counter()
        labels = {}
        for character in TOKEN.findall(line):
            match self._folded.get(character):
                case str() as text:
                    labels[character] = _label_of_text(text)
                case _Remembered(path):
                    labels[character] = f"[{_shown(path.name)}]"
                case _Files(attachments):
                    numbers.update(attachment.kind for attachment in attachments)
                    first = attachments[0]
                    alone = len(attachments) == 1
                    labels[character] = self._label(first, numbers[first.kind]) if alone else self._count(attachments)
        return labels

    def _label(self, attachment: Attachment, number: int) -> str:
        label = f"{attachment.kind} {number}: {_shown(attachment.name)} {attachment.description}"
        soft_tokens = attachment.soft_tokens(self._image_tokens())
        return f"[{label}]" if soft_tokens is None else f"[{label} → {soft_tokens:,} tokens]"

    def _count(self, attachments: Iterable[Attachment]) -> str:
        """Such as `[30 pictures, 7,980 tokens]`."""
        kinds = Counter(attachment.kind for attachment in attachments)
        parts = [f"{count} {_PLURALS[kind][count > 1]}" for kind, count in kinds.items()]
        tokens = sum(attachment.soft_tokens(self._image_tokens()) or 0 for attachment in attachments)
        return f"[{', '.join([*parts, f'{tokens:,} tokens'] if tokens else parts)}]"

    def holds_folded(self, line: str) -> bool:
        """Whether something in a line can be opened."""
        return any(self._is_folded(character) for character in TOKEN.findall(line))

    def opened(self, line: str, position: int) -> tuple[str, int] | None:
        """The line with one thing opened that is folded in it, and where that ends; None when nothing is.

        It is what stands at the position, or last before it, or else last of all. A paste becomes its words; files
        that share a label get one each.
        """
        found = [match.start() for match in TOKEN.finditer(line) if self._is_folded(match[0])]
        if not found:
            return None
        start = ([place for place in found if place <= position] or found)[-1]
        folded = self._folded[line[start]]
        if isinstance(folded, _Files):
            text = "".join(self._fold(_Files((attachment,), folded.name)) for attachment in folded.attachments)
        else:
            text = self._text(line[start])
        return line[:start] + text + line[start + 1 :], start + len(text)

    def _is_folded(self, character: str) -> bool:
        folded = self._folded.get(character)
        return isinstance(folded, str) or (isinstance(folded, _Files) and len(folded.attachments) > 1)

    def attachments(self, line: str) -> list[Attachment]:
        """The attachments of a line, in order."""
        files = (self._folded.get(character) for character in TOKEN.findall(line))
        return [attachment for found in files if isinstance(found, _Files) for attachment in found.attachments]

    def typed(self, line: str) -> Typed:
        """The words of a line and its attachments."""
        attachments = self.attachments(line)
        if attachments:
            line = self._without_files(line)
        return Typed(TOKEN.sub(lambda token: self._text(token[0]), line), attachments)

    def _without_files(self, line: str) -> str:
        """A line without its attachments; where one stood by itself there is a space."""
        words = ""
        end = 0
        for match in TOKEN.finditer(line):
            found = self._folded.get(match[0])
            if not isinstance(found, _Files):
                continue
            words += line[end : match.start()]
            end = match.end()
            if found.name:
                words += found.name
            else:
                words = words.rstrip(" ") + " "
                end += len(line[end:]) - len(line[end:].lstrip(" "))
        return (words + line[end:]).strip()

    def _text(self, character: str) -> str:
        folded = self._folded.get(character)
        return folded if isinstance(folded, str) else ""

    def remembered_files(self, line: str) -> dict[str, tuple[Path, str]]:
        """The characters that stand for files of earlier messages: where each is, and its name in the words."""
        found = {character: self._folded.get(character) for character in TOKEN.findall(line)}
        return {character: (file.path, file.name) for character, file in found.items() if isinstance(file, _Remembered)}

    def first_words(self, line: str) -> str:
        """The line from the first character that stands for no attachment."""
        start = 0
        while start < len(line):
            folded = self._folded.get(line[start])
            if not isinstance(folded, _Files | _Remembered) or folded.name:
                break
            start += 1
        return line[start:]

    def spelled_out(self, line: str) -> str:
        """The line for an editor: what was pasted in full, and attachments as they are shown."""
        labels = self.labels(line)
        return TOKEN.sub(lambda token: self._text(token[0]) or labels.get(token[0], ""), line)

    def read_back(self, edited: str, line: str) -> str:
        """What came back from the editor, with the tokens of `line` that are still in it as tokens again."""
        edited = TOKEN.sub("", edited)
        for character, label in self.labels(line).items():
            edited = edited.replace(self._text(character) or label, character, 1)
        return edited

    def remembered(self, line: str) -> str:
        """The line as a history can keep it: with the files' paths, which find them again."""

        def kept(token: re.Match[str]) -> str:
            match self._folded.get(token[0]):
                case str() as text:
                    return f"{_PASTED}{text}{_END}"
                case _Remembered(path, name):
                    return f"{_FILE}{path}{_NAME}{name}{_END}"
                case _Files(attachments, name):
                    paths = (attachment.path for attachment in attachments if attachment.path)
                    return "".join(f"{_FILE}{path}{_NAME}{name}{_END}" for path in paths)
            return ""

        return TOKEN.sub(kept, line)

    def recalled(self, kept: str) -> str:
        """A line that a history kept, with tokens."""

        def token(match: re.Match[str]) -> str:
            mark, content = match.groups()
            path, _, name = content.partition(_NAME)
            return self._fold(content if mark == _PASTED else _Remembered(Path(path), name))

        return _REMEMBERED.sub(token, kept) if _END in kept else kept


def words_of(kept: str) -> str:
    """The words of a line that a history kept."""

    def words(match: re.Match[str]) -> str:
        mark, content = match.groups()
        return content if mark == _PASTED else f" {content.partition(_NAME)[2]} "

    return _REMEMBERED.sub(words, kept)


def is_long(text: str) -> bool:
    """Whether a pasted text is folded in the line."""
    return len(text) > _LONGEST_PASTE or text.count("\n") >= _MOST_LINES


def _label_of_text(text: str) -> str:
    lines = text.count("\n") + (not text.endswith("\n"))
    return f"[pasted {lines:,} lines]" if lines > 1 else f"[pasted {len(text):,} characters]"


def _shown(name: str) -> str:
    return " ".join(printable(name).split())
