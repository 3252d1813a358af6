"""Going on with an earlier chat: which one, and what was said in it last."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from ..answer.answer_screen import AnswerScreen
from ..printable import printable
from ..terminal import note, shortened, terminal_size
from ..typed_ahead import asked

if TYPE_CHECKING:
    from .conversation import Exchange
    from .sessions import SavedChat, SessionStore

_MOST = 20
_SHOWN_WORDS = 60
_OTHER_ROWS = 4  # the shell's line, the question, and room to see that there is no more
_GIVEN_BY_NOBODY = re.compile(r"\d{4}-\d\d-\d\d-\d{6}(-\d+)?")


def choose_chat(store: SessionStore) -> str | None:
    """The name of the chat that the person at the terminal chooses; None: there are not two to choose from.

    Raises:
        EOFError: the terminal was closed instead.
        KeyboardInterrupt: Ctrl-C.
    """
    size = terminal_size(sys.stderr)
    chats = store.latest(max(2, min(_MOST, size.lines - _OTHER_ROWS)))
    if len(chats) < 2:
        return None
    note(*(_line(number, chat, size.columns) for number, chat in enumerate(chats, 1)))
    while True:
        answer = asked(f"which chat? 1-{len(chats)} or a name, Enter for 1: ")
        if not answer:
            raise EOFError
        chosen = answer.strip() or "1"
        if chosen.isdecimal() and 1 <= int(chosen) <= len(chats):
            return chats[int(chosen) - 1].name
        if chosen in store.names():
            return chosen
        note(f"there is no {shortened(printable(chosen), 40)}")


def _line(number: int, chat: SavedChat, columns: int) -> str:
    given = "" if _GIVEN_BY_NOBODY.fullmatch(chat.name) else f"{chat.name}: "
    start = f"{number:>2}  {_when(datetime.fromtimestamp(chat.changed)):<12}  "
    words = printable(f"{given}{chat.first_words or '(nothing was said)'}")
    return start + shortened(words, max(10, columns - len(start) - 1))


def chat_line(chat: SavedChat) -> str:
    """A chat for a list: its name, when something was last said in it, and its first words."""
    first = " ".join(chat.first_words.split()) or "(nothing was said)"
    return f"{chat.name}  {_when(datetime.fromtimestamp(chat.changed))}  {shortened(first, _SHOWN_WORDS)}"


def _when(moment: datetime) -> str:
    today = datetime.now()
    if moment.date() == today.date():
        return f"today {moment:%H:%M}"
    return f"{moment:%d %b %H:%M}" if moment.year == today.year else f"{moment:%d %b %Y}"


def show_again(exchange: Exchange) -> None:
    """One exchange, whole, as it looked when it was held."""
    note(*(f"{'>' if not at else ' '} {line}" for at, line in enumerate(exchange.title.split("\n"))))
    if exchange.answer:
        with AnswerScreen(show_thoughts=False) as screen:
            screen.answer(exchange.answer)
