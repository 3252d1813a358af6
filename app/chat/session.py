"""One chat on disk: one JSON line per event, written as it happens, and the attachments once each beside it.

A crash loses nothing but the last moment of an answer. A disk that is full loses nothing either as long as the chat
runs: what could not be written, or not be taken out, is so later.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gemma4_mlx.errors import InputError

from ..exit_codes import one_line
from ..line.history_file import NAME, HistoryFile, Place
from ..whole_file import append, folder_locked, remove_unfinished
from .conversation import Conversation, Exchange
from .session_events import Event, again, begun, digest, forgotten, piece, replied, settings
from .session_files import (
    SUFFIX,
    attachment_path,
    create,
    damaged_copies,
    replace_content,
    store,
    sweep_attachments,
    sync_folder,
)
from .session_forgetting import Contents

_NAME = re.compile(r"\w[\w .+-]*")
_SECONDS_BETWEEN_PIECES = 0.2


class Session:
    """One chat's file. It appears when the first message is sent.

    Args:
        folder: where sessions are kept.
        name: of the session; its file is called so.
        report: is told, in a line, when saving fails and when it works again.
        file: the open and locked file of a session that exists; None: a new one.
        chat: the id by which the history knows the chat; None: a new one.
    """

    private = False

    def __init__(
        self, folder: Path, name: str, report: Callable[[str], None], file: int | None = None, chat: str | None = None
    ) -> None:
        self.name = name
        self._folder = folder
        self._report = report
        self._file = file
        self._chat = chat or secrets.token_hex(8)
        self._unwritten: list[Event] = []
        self._unstored: dict[Path, bytes] = {}
        self._forgetting = False  # something in the file is forgotten, and must leave it
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

    @property
    def holds_forgotten(self) -> bool:
        """Whether something that is forgotten could not be taken out of its file yet."""
        return self._forgetting

    def place(self, conversation: Conversation) -> Place | None:
        """Where a line is typed now; None: it must not be written down."""
        return Place(self._chat, conversation.next_number)

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

    def forgotten(self, exchanges: list[Exchange], typed: bool = False) -> None:
        """These are no longer part of the conversation, and no longer on disk when this returns.

        Args:
            typed: nor are the lines that were typed for them.
        """
        if exchanges:
            self._piece = ""
            self._forgetting = True
            self._write(forgotten(exchanges, typed), sync=True)

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
            for copy in list(damaged_copies(self.path)):
                copy.rename(copy.with_stem(name + copy.stem.removeprefix(self.name)))
            self.path.rename(target)
        self.name = name

    def close(self) -> bool:
        """Write what is unwritten and let others have the file; False, and all stays as it is, if that cannot be."""
        if self._unwritten or self._forgetting:
            self._write(sync=True)
        if self._unwritten or self._forgetting:
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

    def take_out_forgotten(self) -> None:
        """Take what is forgotten out of the file, the attachments and the history; later, if that cannot be now.

        The file says what is forgotten until all of it is gone. So a crash at any moment leaves a chat without it, and
        whoever opens that next goes on from here.
        """
        self._forgetting = True
        try:
            self._take_out()
        except OSError as error:
            self._tell_failure(f"what was forgotten cannot be taken off the disk yet ({one_line(error)})")
            return
        self._forgetting = False
        self._tell_success()

    def _take_out(self) -> None:
        assert self._file is not None
        contents = Contents.of(self.path.read_bytes())
        if contents.typed:
            self._history().forget(self._chat, contents.typed, contents.said(contents.typed))
            for copy in list(damaged_copies(self.path)):
                copy.unlink(missing_ok=True)
        with folder_locked(self._folder):
            sweep_attachments(self._folder, {self.path: contents.left})
            replace_content(self._file, self.path, contents.left)

    def delete(self) -> None:
        """Remove the chat, the attachments that no other one has, and the lines that were typed in it.

        Raises:
            InputError: the file holds no chat.
            OSError: something of it cannot be removed.
        """
        contents = Contents()
        if self._file is not None:
            data = self.path.read_bytes()
            contents = Contents.of(data)
            if data and not contents.is_chat:
                raise InputError(f"{self.path} holds no chat and is left as it is: give the name of another")
        texts = [*contents.said(), *(str(event["text"]) for event in self._unwritten if event["event"] == "user")]
        chats = contents.chats | {self._chat}
        with suppress(OSError):  # no room to write it anew, perhaps, and in a moment there is
            self._forget_lines(chats, texts)
        if self._file is not None:
            self._remove_files()
        self._unwritten, self._unstored, self._forgetting = [], {}, False
        self._forget_lines(chats, texts)

    def _remove_files(self) -> None:
        assert self._file is not None
        with folder_locked(self._folder):
            for copy in list(damaged_copies(self.path)):
                copy.unlink(missing_ok=True)
            sweep_attachments(self._folder, {self.path: b""})
            real = Path(os.path.realpath(self.path))
            remove_unfinished(real)
            real.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)  # where that was a link
            sync_folder(self._folder)
        os.close(self._file)
        self._file = None

    def _forget_lines(self, chats: set[str], texts: list[str]) -> None:
        for chat in chats:
            self._history().forget(chat, None, texts)

    def _history(self) -> HistoryFile:
        return HistoryFile(self._folder.with_name(NAME))

    def _note_settings(self, conversation: Conversation, model: str) -> None:
        now = settings(conversation, model, self._chat)
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
            lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in self._unwritten)
            data = lines.encode("utf-8", "surrogatepass")
            if self._unstored:
                with folder_locked(self._folder):  # nobody may take an attachment for one that no chat names
                    for path, content in self._unstored.items():
                        store(path, content)
                    append(self._file, data, sync)
                self._unstored = {}
            else:
                append(self._file, data, sync)
            self._unwritten = []
        except OSError as error:
            self._tell_failure(
                f"this chat cannot be saved ({one_line(error)}); it goes on, and is saved when it can be"
            )
            return
        if not self._forgetting:
            self._tell_success()
        elif sync:
            self.take_out_forgotten()

    def _tell_failure(self, what: str) -> None:
        if not self._failing:
            self._report(f"note: {what}")
        self._failing = True

    def _tell_success(self) -> None:
        if self._failing:
            self._report(f"note: this chat is saved again, as {self.name}")
            self._failing = False


class PrivateSession(Session):
    """A chat that is in memory only."""

    private = True

    def place(self, conversation: Conversation) -> Place | None:
        """Nowhere: nothing that is typed is written down."""
        return None

    def rename(self, name: str) -> None:
        """There is nothing that could have a name. Raises InputError."""
        raise InputError("this chat is private and has no name")

    def delete(self) -> None:
        """There is nothing of it on disk."""

    def forgotten(self, exchanges: list[Exchange], typed: bool = False) -> None:
        """There is nothing of them on disk."""

    def _note_settings(self, conversation: Conversation, model: str) -> None:
        pass

    def _note_attachments(self, exchange: Exchange) -> None:
        pass

    def _write(self, *events: Event, sync: bool = False) -> None:
        pass


def check_name(name: str) -> None:
    """Raise InputError for a name that a session's file cannot have."""
    if not _NAME.fullmatch(name) or len(name.encode()) > 200 or name.strip() != name:
        raise InputError(f"a session cannot be called {name!r}: use letters, digits, spaces, . _ + and -")
