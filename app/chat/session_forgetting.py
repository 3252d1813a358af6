"""What is taken out of a session's file when something of it is forgotten, and what its lines in the history were."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_ID = re.compile(r"[0-9a-f]{16}")


@dataclass
class Contents:
    """A session's file, read for what must leave it.

    Attributes:
        is_chat: whether a line of it is an event.
        chats: the ids that the chat has had.
        texts: what a person said, by the numbers of the exchanges; also what is forgotten.
        forgotten: the exchanges that are still in the file and must go.
        typed: those of which the lines in the history must go, too.
    """

    is_chat: bool = False
    chats: set[str] = field(default_factory=set)
    texts: dict[int, list[str]] = field(default_factory=dict)
    forgotten: set[int] = field(default_factory=set)
    typed: set[int] = field(default_factory=set)
    _settings: bytes = b""
    _kept: dict[int, list[bytes]] = field(default_factory=dict)

    @classmethod
    def of(cls, data: bytes) -> Contents:
        """Of a file's content. What is no event of ours is left out."""
        contents = cls()
        for line in data.split(b"\n"):
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                contents._take(json.loads(line.decode("utf-8", "surrogatepass")), line + b"\n")
        return contents

    @property
    def left(self) -> bytes:
        """The lines that say how the conversation stands; no instructions or answers that others came in place of."""
        return self._settings + b"".join(line for lines in self._kept.values() for line in lines)

    def said(self, exchanges: Iterable[int] | None = None) -> list[str]:
        """What a person said in these exchanges; None: in all."""
        numbers = self.texts if exchanges is None else exchanges
        return [text for number in numbers for text in self.texts.get(number, [])]

    def _take(self, event: dict[str, Any], line: bytes) -> None:
        match event["event"]:
            case "settings":
                self._settings = line
                if (chat := chat_id(event)) is not None:
                    self.chats.add(chat)
            case "user":
                number = event["exchange"]
                self._kept.setdefault(number, [line])
                self.texts.setdefault(number, []).append(str(event["text"]))
            case "replies":
                if begun := self._kept.get(event["exchange"]):
                    begun[1:] = [line]
            case "piece" | "again":
                if begun := self._kept.get(event["exchange"]):
                    begun.append(line)
            case "forgotten":
                numbers = [number for number in event["exchanges"] if isinstance(number, int)]
                for number in numbers:
                    self._kept.pop(number, None)
                self.forgotten.update(numbers)
                if event.get("typed"):
                    self.typed.update(numbers)
            case _:
                return
        self.is_chat = True


def chat_id(event: dict[str, Any]) -> str | None:
    """The chat's id that a settings event tells; None: an earlier version wrote it."""
    chat = event.get("chat")
    return chat if isinstance(chat, str) and _ID.fullmatch(chat) else None
