"""Lines a person types in the chat: edited and remembered in a terminal, read as they are from a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import platformdirs

from .terminal import note

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent


def typed_lines() -> Iterator[str]:
    """The lines of stdin until it ends.

    Raises:
        KeyboardInterrupt: Ctrl-C at an empty prompt; with something typed it only clears the line.
    """
    if sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty()):
        return _edited_lines()
    return (line.rstrip("\n") for line in sys.stdin)


def _edited_lines() -> Iterator[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    # The prompt goes to whichever of stdout and stderr is the terminal, so that `chat > answers.txt` works.
    session: PromptSession[str] = PromptSession(
        "> ", history=_history(), key_bindings=_key_bindings(), output=create_output(always_prefer_tty=True)
    )
    while True:
        try:
            yield session.prompt()
        except EOFError:
            return


def _history() -> History:
    """Earlier lines, kept across runs in a file only its owner can read."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    path = platformdirs.user_data_path("gemma4-mlx") / "chat-history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        note(f"note: what you type is not remembered ({path}: {error.strerror})")
        return InMemoryHistory()
    return FileHistory(path)


def _key_bindings() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("c-c")
    def clear_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings
