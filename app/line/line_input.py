"""The line a person types in the chat: edited in a terminal (`line_editor`), read as it is from anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gemma4_mlx.errors import InputError

from ..terminal import edits_lines
from .attachments import IMAGE_TOKENS, Attachment, dropped_attachments, pieces
from .dropped import dropped_files
from .line_blocks import is_open, unblocked
from .line_tokens import TOKEN, Tokens, Typed

if TYPE_CHECKING:
    from .line_completion import Command
    from .line_editor import LineEditor

__all__ = ["InputLine", "Typed"]


class InputLine:
    """Reads one message at a time.

    Args:
        commands: slash commands; they complete, and what follows one is not searched for files.
        footer: what stands beneath the line: parts joined by " · ", the most important first.
        image_tokens: the most soft tokens a picture may take, as chosen now.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        footer: Callable[[], str],
        *,
        image_tokens: Callable[[], int] = lambda: IMAGE_TOKENS,
    ) -> None:
        self._commands = commands
        self._names = {command.name for command in commands}
        self._footer = footer
        self._image_tokens = image_tokens
        self._tokens = Tokens(image_tokens)
        self._editor: LineEditor | None = None

    def read(self, prefilled: str = "", attachments: Sequence[Attachment] = ()) -> Typed:
        """One message.

        Args:
            prefilled: stands in the line already, and can be edited; nothing where lines are not edited.
            attachments: stand in front of it.

        Raises:
            EOFError: Ctrl-D on an empty line, or stdin ended.
            KeyboardInterrupt: Ctrl-C on an empty line; with something typed it only clears the line.
            InputError: a file that the message names cannot be used.
        """
        if not edits_lines():
            return self._tokens.typed(self.with_tokens(_plain_message()))
        if self._editor is None:
            from .line_editor import LineEditor

            self._editor = LineEditor(self._commands, self._footer, self._tokens, self.with_tokens, self.dropped)
        line = self._editor.read(self._tokens.add(attachments) + prefilled)
        return self._tokens.typed(unblocked(line))

    def with_tokens(self, line: str) -> str:
        """The line with every file it names as a token.

        Raises:
            InputError: such a file cannot be used, or the line is the path of one that is not there.
        """
        if self.is_command(line):
            return line
        parts = TOKEN.split(line)
        tokens = [*TOKEN.findall(line), ""]
        with_tokens = ""
        for part, token in zip(parts, tokens, strict=True):
            for piece in pieces(part, self._image_tokens()):
                with_tokens += piece if isinstance(piece, str) else self._tokens.add([piece])
            with_tokens += token
        return with_tokens

    def dropped(self, text: str) -> str | None:
        """Tokens for what was dropped or pasted; None when that is not files.

        Raises:
            InputError: a file cannot be used, or it is the path of one that is not there.
        """
        attachments = dropped_attachments(text, self._image_tokens())
        return self._tokens.add(attachments) if attachments else None

    def is_command(self, line: str) -> bool:
        """Whether a line begins with a command's name and is not a file's path all the same."""
        return line.partition(" ")[0] in self._names and not dropped_files(line)


def _plain_message() -> str:
    """The next line of stdin, or all lines of a block."""
    message = _plain_line()
    while is_open(message):
        message += "\n" + _plain_line()
    return unblocked(message)


def _plain_line() -> str:
    if sys.stdin is None:  # closed by whoever started this
        raise EOFError
    if sys.stdin.isatty():
        sys.stderr.write("> ")
        sys.stderr.flush()
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError("that line is not UTF-8 text: give a file's path to attach it")
    return text.rstrip("\r\n")
