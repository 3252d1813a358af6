"""Chats on disk: one JSON line per event, written as it happens, and the attachments once each beside them.

A crash loses nothing but the last moment of an answer. A disk that is full loses nothing either as long as the chat
runs: what could not be written is written later.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import platformdirs

from gemma4_mlx.errors import Gemma4Error, InputError

from ..endings import one_line
from ..line.attachments import LARGEST, Attachment, Kind, open_attachment
from ..terminal import shortened
from .conversation import Conversation, Exchange
from .session_events import Event, Replay, again, begun, digest, first_words, forgotten, piece, replied, settings
from .session_files import SUFFIX, append, attachment_path, check_regular, create, lock, read_regular, store, unused

_NAME = re.compile(r"\w[\w .+-]*")
_SECONDS_BETWEEN_PIECES = 0.2
_SHOWN_NAMES = 5
_SHOWN_TITLE = 40  # characters of a chat's first words
_READ_FOR_FIRST_WORDS = 1 << 16
_LARGEST = 512 << 20
"""Bytes of a session's file: hundreds of times what the longest context holds."""


class Session:
    """One chat's file. It appears when the first message is sent.

    Args:
        folder: where sessions are kept.
        name: of the session; its file is called so.
        report: is told, in a line, when saving fails and when it works again.
        file: the open and locked file of a session that exists; None: a new one.
    """

    def __init__(self, folder: Path, name: str, report: Callable[[str], None], file: int | None = None) -> None:
        self.name = name
        self._folder = folder
        self._report = report
        self._file = file
        self._unwritten: list[Event] = []
        self._unstored: dict[Path, bytes] = {}
        self._failing = False
        self._settings: Event | None = None
        self._piece = ""
        self._piece_written = 0.0

    @property
    def path(self) -> Path:
        """Its file."""
        return self._folder / f"{self.name}{SUFFIX}"

    @property
    def begun(self) -> bool:
        """Whether there is anything in it."""
        return self._file is not None or bool(self._unwritten)

    @property
    def on_disk(self) -> bool:
        """Whether all that has been said in it is on disk."""
        return not self._unwritten

    def user(self, exchange: Exchange, conversation: Conversation, model: str) -> None:
        """A person has said something; on disk when this returns."""
        self._note_settings(conversation, model)
        self._note_attachments(exchange)
        self._write(begun(exchange), sync=True)

    def piece(self, exchange: Exchange, text: str) -> None:
        """More of the answer; on its way to disk within a fraction of a second."""
        self._piece += text
        if time.monotonic() - self._piece_written >= _SECONDS_BETWEEN_PIECES:
            self._write(piece(exchange, self._piece))
            self._piece = ""
            self._piece_written = time.monotonic()

    def replied(self, exchange: Exchange) -> None:
        """The answer, or as far as it has come; on disk when this returns."""
        self._piece = ""
        self._write(replied(exchange), sync=True)

    def again(self, exchange: Exchange) -> None:
        """It is answered anew; the answer it has counts until there is another."""
        self._piece = ""
        self._write(again(exchange))

    def settings(self, conversation: Conversation, model: str) -> None:
        """Instructions, thinking or the model have changed, perhaps."""
        if self.begun:
            self._note_settings(conversation, model)
            self._write(sync=True)

    def forgotten(self, exchanges: list[Exchange]) -> None:
        """These are no longer part of the conversation."""
        if exchanges:
            self._piece = ""
            self._write(forgotten(exchanges), sync=True)

    def whole(self, conversation: Conversation, model: str) -> None:
        """A conversation that was begun elsewhere."""
        self._note_settings(conversation, model)
        events = []
        for exchange in conversation.exchanges:
            self._note_attachments(exchange)
            events += [begun(exchange), replied(exchange)]
        self._write(*events, sync=True)

    def rename(self, name: str) -> None:
        """Give it another name.

        Raises:
            InputError: there is a session of that name, or no file can be called so.
            OSError: the file cannot be renamed.
        """
        check_name(name)
        target = self._folder / f"{name}{SUFFIX}"
        if name == self.name:
            return
        if target.exists() and not (self._file is not None and target.samefile(self.path)):  # Trip and trip on a Mac
            raise InputError(f"there is a chat {name} already: choose another name, or go on with it: /load {name}")
        if self._file is not None:
            self.path.rename(target)
        self.name = name

    def close(self) -> bool:
        """Write what is unwritten and let others have the file; False, and all stays as it is, if that cannot be."""
        if self._unwritten:
            self._write(sync=True)
        if self._unwritten:
            return False
        if self._file is not None:
            os.close(self._file)
            self._file = None
        return True

    def give_up(self) -> bool:
        """Let others have the file as it is; whether there is anything in it."""
        if self._file is None:
            return False
        size = os.fstat(self._file).st_size
        if not size:
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = None
        return size > 0

    def _note_settings(self, conversation: Conversation, model: str) -> None:
        now = settings(conversation, model)
        if now != self._settings:
            self._settings = now
            self._unwritten.append(now)

    def _note_attachments(self, exchange: Exchange) -> None:
        for attachment in exchange.attachments:
            self._unstored[attachment_path(self._folder, digest(attachment), attachment.name)] = attachment.data

    def _write(self, *events: Event, sync: bool = False) -> None:
        self._unwritten += events
        try:
            if self._file is None:
                self.name, self._file = create(self._folder, self.name)
            for path in list(self._unstored):
                store(path, self._unstored[path])
                del self._unstored[path]
            lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in self._unwritten)
            append(self._file, lines.encode("utf-8", "surrogatepass"), sync)
            self._unwritten = []
        except OSError as error:
            if not self._failing:
                self._report(
                    f"note: this chat cannot be saved ({one_line(error)}); it goes on, and is saved when it can be"
                )
            self._failing = True
            return
        if self._failing:
            self._report(f"note: this chat is saved again, as {self.name}")
            self._failing = False


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
    """

    def __init__(self, report: Callable[[str], None], folder: Path | None = None) -> None:
        self.folder = folder or platformdirs.user_data_path("gemma4-mlx") / "sessions"
        self._report = report
        self._unwritten: dict[Session, Conversation] = {}

    def new(self) -> Session:
        """One that is not on disk yet."""
        return Session(self.folder, datetime.now().strftime("%Y-%m-%d-%H%M%S"), self._report)

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
        busy = []
        for candidate in self.names() if name is None else [name]:
            for session, conversation in self._unwritten.items():
                if session.name == candidate:
                    del self._unwritten[session]
                    return session, Replay.of(conversation)
            path = self.folder / f"{candidate}{SUFFIX}"
            file, kept = None, False
            try:
                file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NONBLOCK)
                if lock(file):
                    replay = self._read(path, file)
                    kept = True
                    return Session(self.folder, candidate, self._report, file), replay
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
            raise InputError(f"{busy[0]} is open in another chat: close it there first")
        raise InputError(self.no_such(name))

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


def check_name(name: str) -> None:
    """Raise InputError for a name that a session's file cannot have."""
    if not _NAME.fullmatch(name) or len(name.encode()) > 200 or name.strip() != name:
        raise InputError(f"a session cannot be called {name!r}: use letters, digits, spaces, . _ + and -")


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
