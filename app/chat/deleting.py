"""Deleting a saved chat: in the chat by /delete, outside of it by `chat --delete`. A person is asked first."""

from __future__ import annotations

import shlex

from gemma4_mlx.errors import InputError

from ..printable import printable
from ..terminal import note, say
from ..typed_ahead import asked, can_be_asked
from .resuming import chat_line
from .sessions import SessionStore


def delete_chat(name: str, unasked: bool) -> None:
    """Delete a chat that no other process has open.

    Args:
        unasked: the person has said yes already.

    Raises:
        InputError: there is none, it is open, or there is nobody to ask.
        OSError: something of it cannot be removed.
    """
    store = SessionStore(note)
    check_deletable(store, name)
    if unasked or may_delete(name):
        store.delete(name)
        note(f"deleted: {name}")
    else:
        note(f"{name} stays")


def list_chats() -> None:
    """The saved chats on stdout, the one used last first."""
    store = SessionStore(note)
    chats = store.latest(len(store.names()))
    for chat in chats:
        say(printable(chat_line(chat)))
    if not chats:
        note("no chat has been saved yet")


def check_deletable(store: SessionStore, name: str) -> None:
    """Raise InputError if there is no chat of that name, before a person is asked."""
    if name not in store.names():
        raise InputError(f"there is no chat {name}; {store.saved()}")


def may_delete(name: str) -> bool:
    """Whether the person wants it.

    Raises:
        InputError: there is nobody to ask.
    """
    if not can_be_asked():
        way = f"gemma4-mlx chat --delete {shlex.quote(name)} --yes"
        raise InputError(f"{name} was not deleted, because there is nobody to ask: {way}")
    while True:
        answer = asked(f"delete {name}, its attachments and what was typed in it? y(es), n(o): ")
        match answer.strip().lower():
            case "y" | "yes":
                return True
            case "n" | "no":
                return False
        if not answer:  # Ctrl-D
            note("")
            return False
