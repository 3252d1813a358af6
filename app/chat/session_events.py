"""A conversation as a list of events, and back: what the lines of a session's file say.

An event is a JSON object. `settings`: instructions, thinking, the model's name, the chat's id. `user`: an exchange
begins. `piece`: the next words of its answer. `replies`: the whole answer so far, in place of its pieces. `again`:
another answer begins, in place of the one there is. `forgotten`: these exchanges are no longer part of the
conversation, and soon no longer in the file (`what_is_left`). Exchanges go by their numbers, so that a lost line spoils
nothing but the exchange it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

from ..line.attachments import Attachment, Kind
from ..messages import Message, assistant_message, reply
from .conversation import Conversation, Exchange
from .session_forgetting import chat_id

Event = dict[str, Any]
OpenAttachment = Callable[[Kind, str, str], Attachment | None]
"""Kind, name and SHA-256 → the attachment, None if it is lost."""


def settings(conversation: Conversation, model: str, chat: str) -> Event:
    """How the conversation goes on from here, in the chat of this id."""
    how = {"model": model, "system": conversation.system, "thinking": conversation.thinking}
    return {"event": "settings", **how, "chat": chat}


def begun(exchange: Exchange) -> Event:
    """A person has said something."""
    attachments = [{"kind": a.kind, "name": a.name, "sha256": digest(a)} for a in exchange.attachments]
    return {"event": "user", "exchange": exchange.number, "text": exchange.text, "attachments": attachments}


def piece(exchange: Exchange, text: str) -> Event:
    """More of the answer."""
    return {"event": "piece", "exchange": exchange.number, "text": text}


def replied(exchange: Exchange) -> Event:
    """All of the answer so far."""
    return {"event": "replies", "exchange": exchange.number, "replies": exchange.replies}


def again(exchange: Exchange) -> Event:
    """It is answered anew."""
    return {"event": "again", "exchange": exchange.number}


def forgotten(exchanges: Sequence[Exchange], typed: bool) -> Event:
    """These are no longer part of the conversation; with `typed` no line that was typed for them is kept either."""
    return {"event": "forgotten", "exchanges": [exchange.number for exchange in exchanges], "typed": typed}


def digest(attachment: Attachment) -> str:
    """What an attachment is kept under."""
    return hashlib.sha256(attachment.data).hexdigest()


def first_words(beginning: bytes) -> str | None:
    """What a person said first, and has not taken back, in the beginning of a session's file.

    None if not a line of it is an event.
    """
    is_chat = False
    said: dict[int, str] = {}
    for line in beginning.split(b"\n"):
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            event = json.loads(line.decode("utf-8", "surrogatepass"))
            kind = event["event"]
            is_chat = is_chat or isinstance(kind, str)
            if kind == "user":
                names = ", ".join(str(file["name"]) for file in event["attachments"])
                said[event["exchange"]] = str(event["text"]).strip() or names
            elif kind == "forgotten":
                for number in event["exchanges"]:
                    said.pop(number, None)
    return next(iter(said.values()), "") if is_chat else None


class Replay:
    """Events in, conversation out.

    Attributes:
        conversation: as far as the events have come.
        model: the name of the model it was held with, None if no event said.
        chat: the chat's id, None if no event said.
        lost: names of attachments that could not be opened.
        holds_forgotten: whether something was forgotten, and is in the events still.
        cut_off: whether the end of the last answer was never written.
    """

    def __init__(self, open_attachment: OpenAttachment) -> None:
        self._opened: dict[tuple[Kind, str], Attachment | None] = {}  # each once, however often it was sent
        self.conversation = Conversation()
        self.model: str | None = None
        self.chat: str | None = None
        self.lost: list[str] = []
        self.holds_forgotten = False
        self.cut_off = False
        self._open_attachment = open_attachment
        self._pieces: dict[int, list[str]] = {}
        self._exchanges: dict[int, Exchange] = {}  # in their order, without those that are forgotten
        self._lost: dict[int, list[str]] = {}
        self._replaced: dict[int, list[Message]] = {}  # answers that others were to come in place of

    @classmethod
    def of(cls, conversation: Conversation) -> Replay:
        """Of a conversation that never left memory."""
        replay = cls(lambda kind, name, sha256: None)
        replay.conversation = conversation
        return replay

    def feed(self, event: Event) -> None:
        """Take the next event.

        Raises:
            KeyError, TypeError, ValueError, RecursionError: it is none of ours.
        """
        match event["event"]:
            case "settings":
                self.model = _text(event["model"])
                system = event["system"]
                self.conversation.system = None if system is None else _text(system)
                self.conversation.thinking = bool(event["thinking"])
                self.chat = chat_id(event)
            case "user":
                self._begin(event)
            case "piece":
                self._pieces.setdefault(_number(event["exchange"]), []).append(_text(event["text"]))
            case "again":
                for exchange in self._numbered([event["exchange"]]):
                    self._replaced[exchange.number] = self._answer(exchange)
                    self._pieces.pop(exchange.number, None)
                    exchange.replies = []
            case "replies":
                replies = [reply(message) for message in event["replies"]]
                self._pieces.pop(_number(event["exchange"]), None)
                for exchange in self._numbered([event["exchange"]]):
                    exchange.replies = replies
            case "forgotten":
                for exchange in self._numbered(event["exchanges"]):
                    del self._exchanges[exchange.number]
                    self._lost.pop(exchange.number, None)
                self.holds_forgotten = True
            case other:
                raise ValueError(f"no event is called {other!r}")

    def finish(self) -> Conversation:
        """The conversation. An answer whose end was never written is kept as far as it came."""
        self.conversation.exchanges = list(self._exchanges.values())
        self.lost = [name for names in self._lost.values() for name in names]
        self.cut_off = any(e.number in self._pieces or not e.replies for e in self.conversation.exchanges[-1:])
        for exchange in self.conversation.exchanges:
            exchange.replies = self._answer(exchange)
        return self.conversation

    def _answer(self, exchange: Exchange) -> list[Message]:
        """As far as it came; if nothing of it did, the one it was to come in place of."""
        if rest := "".join(self._pieces.get(exchange.number, [])):
            return [*exchange.replies, assistant_message(rest)]
        return exchange.replies or self._replaced.get(exchange.number, [])

    def _begin(self, event: Event) -> None:
        exchange = Exchange(_number(event["exchange"]), _text(event["text"]))
        if self._numbered([exchange.number]):  # written twice: Ctrl-C came between writing and noting that
            return
        for entry in event["attachments"]:
            kind, name, sha256 = entry["kind"], _text(entry["name"]), _text(entry["sha256"])
            if kind not in get_args(Kind):
                raise ValueError(f"no attachment is a {kind!r}")
            if (kind, sha256) not in self._opened:
                self._opened[kind, sha256] = self._open_attachment(kind, name, sha256)
            attachment = self._opened[kind, sha256]
            if attachment is None:
                self._lost.setdefault(exchange.number, []).append(name)
            else:
                exchange.attachments.append(attachment if attachment.name == name else replace(attachment, name=name))
        self._exchanges[exchange.number] = exchange
        self.conversation.add(exchange)

    def _numbered(self, numbers: Sequence[Any]) -> list[Exchange]:
        wanted = dict.fromkeys(_number(number) for number in numbers)
        return [self._exchanges[number] for number in wanted if number in self._exchanges]


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 53:  # as far as JSON's numbers are the same everywhere
        raise TypeError(f"{value!r} where an exchange's number should be")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where a text should be")
    return value
