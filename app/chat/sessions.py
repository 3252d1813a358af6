"""All chats on disk: found, opened, read and deleted. Each of them is a `Session`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import platformdirs

from gemma4_mlx.errors import Gemma4Error, InputError

from ..line.attachments import LARGEST, Attachment, Kind, open_attachment
from ..terminal import shortened
from ..whole_file import append, remove_unfinished
from .conversation import Conversation
from .session import PrivateSession, Session, check_name
from .session_events import Replay, first_words
from .session_files import SUFFIX, attachment_path, check_regular, open_locked, read_regular, unused

_SHOWN_NAMES = 5
_SHOWN_TITLE = 40  # characters of a chat's first words
_READ_FOR_FIRST_WORDS = 1 << 16
_LARGEST = 512 << 20
"""Bytes of a session's file: hundreds of times what the longest context holds."""


@dataclass(frozen=True)
class SavedChat:
    """What a person knows a chat by.

    Attributes:
        first_words: what was said first and not taken back; empty if nothing was.
        changed: when something was last said in it, in seconds since the epoch.
    """

    name: str
    first_words: str
    changed: float


class SessionStore:
    """All sessions of this user.

    Args:
        report: is told in a line what a person should know.
        folder: where they are kept; by default in the user's data folder.
        private: chats that begin, or are gone on with, are in memory only; what is on disk is read and stays.
    """

    def __init__(self, report: Callable[[str], None], folder: Path | None = None, private: bool = False) -> None:
        self.folder = folder or platformdirs.user_data_path("gemma4-mlx") / "sessions"
        self._report = report
        self._private = private
        self._unwritten: dict[Session, Conversation] = {}

    def new(self) -> Session:
        """One that is not on disk yet."""
        kind = PrivateSession if self._private else Session
        return kind(self.folder, datetime.now().strftime("%Y-%m-%d-%H%M%S"), self._report)

    def keep(self, name: str) -> Session:
        """A new one on disk, for a chat that was private. Raises InputError for a name that will not do."""
        session = Session(self.folder, name, self._report)
        check_name(name)
        if session.path.exists():
            raise InputError(f"there is a chat {name} already: choose another name")
        return session

    def names(self) -> list[str]:
        """Of all sessions, the one used last first."""
        try:
            files = [(path.stat().st_mtime_ns, path.stem) for path in self.folder.glob(f"*{SUFFIX}")]
        except OSError:  # one was renamed at this moment
            files = []
        unwritten = [session.name for session in reversed(self._unwritten)]
        return [*unwritten, *(name for _, name in sorted(files, reverse=True) if name not in unwritten)]

    def latest(self, most: int) -> list[SavedChat]:
        """The chats used last, the last one first. What is no chat, or cannot be read, is left out."""
        chats: list[SavedChat] = []
        for name in self.names():
            if len(chats) == most:
                break
            path = self.folder / f"{name}{SUFFIX}"
            with suppress(OSError):
                words = first_words(read_regular(path, _LARGEST, only=_READ_FOR_FIRST_WORDS))
                if words is not None:
                    chats.append(SavedChat(name, words, path.stat().st_mtime))
        return chats

    def put_away(self, session: Session, conversation: Conversation) -> None:
        """The chat goes on with another session. What cannot be written of this one is kept, and tried again."""
        self.try_again()
        if not session.close():
            self._unwritten[session] = conversation

    def try_again(self) -> None:
        """Write what could not be written before."""
        for session in list(self._unwritten):
            if session.close():
                del self._unwritten[session]

    def leave(self) -> None:
        """The program ends: write what can be written now, and say what cannot."""
        self.try_again()
        for session, conversation in self._unwritten.items():
            if session.holds_forgotten:
                when = "it goes when that is opened again" if session.on_disk else "forget it there again"
                self._report(f"error: what was forgotten of the chat {session.name} is still on disk: {when}")
            if session.on_disk:
                session.give_up()
                continue
            first = conversation.exchanges[0].title if conversation.exchanges else ""
            about = f", which begins with “{shortened(first, _SHOWN_TITLE)}”," if first else ""
            what = "the end of the chat" if session.give_up() else "the chat"
            self._report(f"error: {what} {session.name}{about} could not be saved and is lost")
        self._unwritten = {}

    def open(self, name: str | None = None) -> tuple[Session, Replay]:
        """Go on with a session.

        Args:
            name: None takes the one used last that no other chat has open.

        Raises:
            InputError: there is none, no session can be called so, its file holds no chat, or another chat has it open.
            OSError: its file cannot be read.
        """
        if name is not None:
            check_name(name)
        self.try_again()
        if self._private:
            return self._read_only(name)
        busy = []
        for candidate in self.names() if name is None else [name]:
            for session, conversation in self._unwritten.items():
                if session.name == candidate:
                    del self._unwritten[session]
                    return session, Replay.of(conversation)
            path = self.folder / f"{candidate}{SUFFIX}"
            file, kept = None, False
            try:
                file = open_locked(path)
                if file is not None:
                    session, replay = self._opened(candidate, path, file)
                    kept = True
                    return session, replay
                busy.append(candidate)
            except FileNotFoundError:
                pass
            except (InputError, OSError):  # the last one may be any, but not a file that holds no chat
                if name is not None:
                    raise
            finally:
                if file is not None and not kept:
                    os.close(file)
        if busy:
            raise InputError(_open_elsewhere(busy[0]))
        raise InputError(self.no_such(name))

    def _opened(self, name: str, path: Path, file: int) -> tuple[Session, Replay]:
        remove_unfinished(Path(os.path.realpath(path)))
        replay = self._read(path, file)
        session = Session(self.folder, name, self._report, file, replay.chat)
        if replay.holds_forgotten:  # the program was killed, or an earlier version forgot it
            session.take_out_forgotten()
        return session, replay

    def _read_only(self, name: str | None) -> tuple[Session, Replay]:
        for candidate in self.names() if name is None else [name]:
            try:
                replay = self.read_file(self.folder / f"{candidate}{SUFFIX}")
            except FileNotFoundError:
                continue
            except (InputError, OSError):
                if name is not None:
                    raise
                continue
            self._report(f"note: {candidate} is read and stays as it is: this chat is private")
            return PrivateSession(self.folder, candidate, self._report), replay
        raise InputError(self.no_such(name))

    def delete(self, name: str) -> None:
        """Remove a chat that is not open, its attachments, and the lines that were typed in it.

        Raises:
            InputError: there is none, another chat has it open, or its file holds no chat.
            OSError: something of it cannot be removed.
        """
        check_name(name)
        self.try_again()
        for session in self._unwritten:
            if session.name == name:
                session.delete()
                del self._unwritten[session]
                return
        try:
            file = open_locked(self.folder / f"{name}{SUFFIX}")
        except FileNotFoundError:
            raise InputError(f"there is no chat {name}; {self.saved()}") from None
        if file is None:
            raise InputError(_open_elsewhere(name))
        session = Session(self.folder, name, self._report, file)
        try:
            session.delete()
        finally:
            session.give_up()

    def no_such(self, name: str | None) -> str:
        """What to say when there is no session of that name, or none that is free."""
        return f"there is no chat to go on with{'' if name is None else f' called {name}'}; {self.saved()}"

    def saved(self) -> str:
        """Which sessions there are, for people."""
        names = self.names()
        more = ", …" if len(names) > _SHOWN_NAMES else ""
        return f"saved are: {', '.join(names[:_SHOWN_NAMES])}{more}" if names else "none has been saved yet"

    def read_file(self, path: Path) -> Replay:
        """The session in a file from elsewhere, which is left as it is. Raises InputError and OSError."""
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            check_regular(stream.fileno(), path, _LARGEST)
            data = stream.read()
        replay, whole, _ = replayed(data, path.parent)
        if not whole:
            raise InputError(f"{path} holds no chat: give a file that /export or this program wrote")
        self._tell_what_is_missing(replay)
        return replay

    def _read(self, path: Path, file: int) -> Replay:
        check_regular(file, path, _LARGEST)
        data = path.read_bytes()
        replay, whole, damaged = replayed(data, self.folder)
        if data and not whole:
            raise InputError(f"{path} holds no chat and is left as it is: give the name of another")
        if damaged:
            kept = unused(path.with_suffix(".damaged"))
            kept.write_bytes(data)
            kept.chmod(0o600)
            self._report(
                f"note: {path.name} was damaged: what is whole of it is here, the damaged file is kept as {kept}"
            )
            os.ftruncate(file, 0)
            append(file, whole, sync=True)
        else:
            os.ftruncate(file, len(whole))  # half a line may follow, and the next event needs one of its own
        self._tell_what_is_missing(replay)
        return replay

    def _tell_what_is_missing(self, replay: Replay) -> None:
        for name in replay.lost:
            self._report(f"note: {name} could not be opened again and is left out")
        if replay.cut_off:
            self._report("note: the last answer was cut off; /regen has it written anew")


def _open_elsewhere(name: str) -> str:
    return f"{name} is open in another chat: close it there first"


def replayed(data: bytes, folder: Path) -> tuple[Replay, bytes, bool]:
    """A session file's content → the conversation, its whole lines, and whether there were others.

    A line without its end, the last one after a crash, counts as not written rather than as damaged; but not if there
    is no other line.

    Args:
        folder: beside which its attachments are.
    """
    replay = Replay(lambda kind, name, sha256: reopened(folder, kind, name, sha256))
    *lines, _ = data.split(b"\n")
    whole = []
    for line in lines:
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            replay.feed(json.loads(line.decode("utf-8", "surrogatepass")))
            whole.append(line + b"\n")
    replay.finish()
    return replay, b"".join(whole), len(whole) != len(lines) or bool(data and not lines)


def reopened(folder: Path, kind: Kind, name: str, sha256: str) -> Attachment | None:
    """An attachment of an earlier turn; None if it is not there, or not what it was."""
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        return None
    try:
        data = read_regular(attachment_path(folder, sha256, name), LARGEST[kind])
        if hashlib.sha256(data).hexdigest() != sha256:
            return None  # before it is decoded
        return open_attachment(data, kind, name)
    except (OSError, Gemma4Error):
        return None
