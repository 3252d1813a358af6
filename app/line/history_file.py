"""The lines typed in chats, on disk for the arrow keys: each with the chat and the message that it was typed for.

The form is prompt_toolkit's (`FileHistory`): a comment, then the line behind plus signs. What is said of a chat stands
in the comment, where every version reads over it. Many chats add lines at the same time, and one of them may take some
out: whoever changes the file has its folder locked.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..whole_file import append, folder_locked, remove_unfinished, write_whole
from .line_blocks import unblocked
from .line_tokens import words_of

NAME = "chat-history"
_PLACE = re.compile(rb" chat ([0-9a-f]{16}) message (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Place:
    """Where a line was typed.

    Attributes:
        chat: its session's id.
        message: the number of the message that it is, or that is the next one.
    """

    chat: str
    message: int


NOWHERE = Place("0" * 16, 0)
"""In no chat that is kept."""


class HistoryFile:
    """The file, which only its owner can read. It appears with the first line.

    Args:
        path: a link is followed.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))

    def version(self) -> object:
        """Another one whenever lines were taken out."""
        try:
            return self.path.stat().st_ino
        except OSError:
            return None

    def lines(self) -> list[str]:
        """All of them, the first one first. Raises OSError."""
        return [_text(body) for _, body in self._entries() if body]

    def add(self, line: str, place: Place) -> None:
        """Write one down, whole or not at all. Raises OSError."""
        entry = f"\n# {datetime.now()} chat {place.chat} message {place.message}\n" + "".join(
            f"+{part}\n" for part in line.split("\n")
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with folder_locked(self.path.parent):
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                if os.fstat(file).st_mode & 0o077:
                    os.fchmod(file, 0o600)
                append(file, entry.encode("utf-8", "replace"))
            finally:
                os.close(file)

    def forget(self, chat: str, messages: Collection[int] | None, texts: Collection[str]) -> None:
        """Take out what was typed in a chat.

        Args:
            chat: its id.
            messages: only for these; None: all that was typed in it.
            texts: what was sent; lines of earlier versions, which do not say where they were typed, go by that.

        Raises:
            OSError: it cannot be written; it is as it was.
        """
        sent = {_spaced_once(text) for text in texts} - {""}

        def is_of_it(comment: bytes, body: bytes) -> bool:
            if place := _PLACE.search(comment):
                return place[1] == chat.encode() and (messages is None or int(place[2]) in messages)
            return _sent(_text(body)) in sent

        if not self.path.parent.is_dir():
            return
        with folder_locked(self.path.parent):
            remove_unfinished(self.path)
            try:
                entries = list(self._entries())
            except (PermissionError, IsADirectoryError):  # then no line was ever added either
                return
            kept = [entry for entry in entries if not (entry[1] and is_of_it(*entry))]
            if len(kept) < len(entries):
                write_whole(self.path, b"".join(comment + body for comment, body in kept), private=True)

    def _entries(self) -> Iterator[tuple[bytes, bytes]]:
        """What stands in front of each line, and the line as it is in the file."""
        comment, body = b"", b""
        try:
            content = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return
        for line in io.BytesIO(content):
            if line.startswith(b"+"):
                body += line
                continue
            if body:
                yield comment, body
                comment, body = b"", b""
            comment += line
        yield comment, body


def _text(body: bytes) -> str:
    return "".join(line[1:].decode("utf-8", "replace") for line in io.BytesIO(body))[:-1]


def _sent(line: str) -> str:
    """What became of a line that was sent, but for its spaces."""
    words = words_of(line)
    block = unblocked(words.strip())
    return _spaced_once(words if block is None else block)


def _spaced_once(text: str) -> str:
    return " ".join(text.split())
