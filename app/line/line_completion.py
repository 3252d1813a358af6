"""What Tab completes in the chat: commands, their choices, languages, saved chats, and paths anywhere in a message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

LANGUAGES = (
    "Arabic",
    "Bengali",
    "Chinese",
    "Czech",
    "Danish",
    "Dutch",
    "English",
    "Finnish",
    "French",
    "German",
    "Greek",
    "Hebrew",
    "Hindi",
    "Hungarian",
    "Indonesian",
    "Italian",
    "Japanese",
    "Korean",
    "Norwegian",
    "Polish",
    "Portuguese",
    "Romanian",
    "Russian",
    "Spanish",
    "Swedish",
    "Thai",
    "Turkish",
    "Ukrainian",
    "Vietnamese",
)
_MOST_PATHS = 200
# The word before the cursor, when it begins as a path does; spaces in it are escaped.
_PATH_AT_END = re.compile(r"(?:^|(?<=\s))(?:~?/|\.\.?/)(?:[^\s\\]|\\.)*$")
_SPECIAL = re.compile(r"""([\s\\'"()\[\]{}$&;|*?!#<>`])""")


class Command(Protocol):
    """A slash command: what completes it, and what its argument is."""

    @property
    def name(self) -> str:
        """With its slash."""

    @property
    def argument(self) -> str:
        """FILE, CHAT, LANGUAGE, choices such as `on|off`, anything else, or nothing."""

    @property
    def help(self) -> str:
        """What it does."""


class LineCompleter(Completer):
    """Completes one line.

    Args:
        commands: with what their arguments are; FILE completes paths, CHAT chats, LANGUAGE languages, `a|b` its
            choices.
        chats: the names of all that are saved.
    """

    def __init__(self, commands: Sequence[Command], chats: Callable[[], Sequence[str]] = list) -> None:
        self._chats = chats
        self._commands = {command.name: command for command in commands}

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What can stand where the cursor is."""
        before = document.text_before_cursor
        name, space, argument = before.partition(" ")
        command = self._commands.get(name)
        if command is not None and space:
            typed = argument.lstrip()
            if "CHAT" in command.argument:
                yield from _choices(self._chats(), typed)
            yield from _arguments(command.argument, typed)
            return
        fitting = [c for c in self._commands.values() if before.startswith("/") and c.name.startswith(before)]
        if fitting:
            for command in fitting:
                yield Completion(command.name, start_position=-len(before), display_meta=command.help)
            return
        # While somebody types, only commands are offered: folders may be large, or on a network.
        if complete_event.completion_requested and (path := _PATH_AT_END.search(before)):
            yield from _paths(path[0])


def _arguments(kind: str, typed: str) -> Iterator[Completion]:
    if "FILE" in kind:
        yield from _paths(typed)
    elif "LANGUAGE" in kind:
        yield from _choices(LANGUAGES, typed)
    elif "|" in kind:
        yield from _choices([choice.strip() for choice in kind.strip("[]").split("|")], typed)


def _choices(choices: Sequence[str], typed: str) -> Iterator[Completion]:
    for choice in choices:
        if choice.lower().startswith(typed.lower()):
            yield Completion(choice, start_position=-len(typed))


def _paths(typed: str) -> Iterator[Completion]:
    """Files and folders whose path begins with what is typed; hidden ones when it says so."""
    folder, slash, beginning = re.sub(r"\\(.)", r"\1", typed).rpartition("/")
    try:
        entries = sorted(Path(folder + slash or ".").expanduser().iterdir(), key=lambda entry: entry.name.lower())
    except (OSError, RuntimeError):  # no such folder, or not for us
        return
    length = len(typed) - typed.rfind("/") - 1
    fitting = [
        entry
        for entry in entries
        if entry.name.lower().startswith(beginning.lower()) and (beginning or not entry.name.startswith("."))
    ]
    for entry in fitting[:_MOST_PATHS]:
        name = entry.name + "/" if entry.is_dir() else entry.name
        if name.rstrip("/").isprintable():
            yield Completion(_SPECIAL.sub(r"\\\1", name), start_position=-length, display=name)
