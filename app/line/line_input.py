"""The line a person types in the chat: edited in a terminal (`line_editor`), read as it is from anywhere else.

What is a command and what is a file is decided here, once. A command is a command's name at the very beginning of what
was typed, behind nothing but attachments. Files are for `named_files` to find. All else is words, as they stand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gemma4_mlx.config import DEFAULT_IMAGE_TOKENS
from gemma4_mlx.errors import InputError

from ..terminal import draw, edits_lines, note
from .attachments import Attachment
from .history_file import NOWHERE, Place
from .line_blocks import is_open, unblocked
from .line_tokens import TOKEN, Tokens, Typed
from .named_files import Dropped, open_files, read_dropped, read_typed, refusal

if TYPE_CHECKING:
    from .line_completion import Command
    from .line_editor import LineEditor

__all__ = ["InputLine", "Typed"]

_COMMAND = re.compile(r"/\w+(?= |\Z)")


@dataclass(frozen=True)
class Checked:
    """A line that is about to be sent.

    Attributes:
        line: with a token for every file that goes with it.
        refused: why other files do not, a line each.
        is_ready: it can go; else there is nothing left of it but files that cannot be attached.
        is_pasted: all of it is.
    """

    line: str
    refused: list[str] = field(default_factory=list)
    is_ready: bool = True
    is_pasted: bool = False


class InputLine:
    """Reads one message at a time.

    Args:
        commands: slash commands; they complete, and what follows one is not searched for files.
        footer: what stands beneath the line: parts joined by " · ", the most important first.
        image_tokens: the most soft tokens a picture may take, as chosen now.
        place: where a line is typed now; None: it is not written down, here or elsewhere.
        chats: the names that CHAT completes.
        on_shown: called when the line has been drawn and keys are taken, every time.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        footer: Callable[[], str],
        *,
        image_tokens: Callable[[], int] = lambda: DEFAULT_IMAGE_TOKENS,
        place: Callable[[], Place | None] = lambda: NOWHERE,
        chats: Callable[[], Sequence[str]] = list,
        on_shown: Callable[[], None] = lambda: None,
    ) -> None:
        self._commands = commands
        self._names = {command.name for command in commands}
        self._footer = footer
        self._on_shown = on_shown
        self._image_tokens = image_tokens
        self._tokens = Tokens(image_tokens)
        self._place = place
        self._chats = chats
        self._editor: LineEditor | None = None

    def read(self, prefilled: str = "", attachments: Sequence[Attachment] = ()) -> Typed:
        """One message.

        Args:
            prefilled: stands in the line already, and can be edited; nothing where lines are not edited.
            attachments: stand in front of it.

        Raises:
            EOFError: Ctrl-D on an empty line, or stdin ended.
            KeyboardInterrupt: Ctrl-C on an empty line; with something typed it only clears the line.
            InputError: a line of a pipe is not text, or nothing but files that cannot be attached.
        """
        if not edits_lines():
            line = _plain_message()
            checked = self.checked(line)
            if not checked.is_ready:
                raise InputError("; ".join(checked.refused))
        else:
            if self._editor is None:
                from .line_editor import LineEditor

                self._editor = LineEditor(
                    self._commands, self._footer, self._tokens, self, self._place, self._chats, self._on_shown
                )
            checked = self._editor.read(self._tokens.add(attachments), prefilled)
        if checked.refused:
            note(refusal(checked.refused))
        return self.sent(checked)

    def sent(self, checked: Checked) -> Typed:
        """What is sent of a line."""
        block = unblocked(checked.line)
        typed = self._tokens.typed(checked.line if block is None else block)
        is_words = block is not None or checked.is_pasted
        is_words |= self._begins_as_command(typed.text) and not self.is_command(checked.line)
        return Typed(typed.text, typed.attachments, literal=is_words)

    def checked(self, line: str, is_foreign: Callable[[str], bool] = lambda _: False) -> Checked:
        """A line with the files that it names.

        Args:
            is_foreign: whether a name came into the line by other ways than typing.
        """
        refused: list[str] = []
        for character, (path, name) in self._tokens.remembered_files(line).items():
            attachments, refusals = open_files([path], self._image_tokens())
            line = line.replace(character, self._tokens.add(attachments, name))
            refused += refusals
        if refused:
            return Checked(line, refused, is_ready=False)
        if self.is_command(line) or unblocked(line) is not None:
            return Checked(line)
        checked = ""
        is_files = []
        for part, token in zip(TOKEN.split(line), [*TOKEN.findall(line), ""], strict=True):
            typed = read_typed(part, self._image_tokens(), is_foreign)
            files = [piece for piece in typed.pieces if not isinstance(piece, str)]
            if typed.is_files and files:
                checked += self._tokens.add([attachment for attachment, _ in files])
            else:
                for piece in typed.pieces:
                    checked += piece if isinstance(piece, str) else self._tokens.add([piece[0]], piece[1])
            checked += token
            refused += typed.refused
            is_files.append(typed.is_files or not part.strip())
        return Checked(checked, refused, is_ready=not (refused and all(is_files)))

    def opened(self, files: Sequence[Path]) -> tuple[list[Attachment], list[str]]:
        """Files as attachments, and a line for each that cannot be one."""
        return open_files(files, self._image_tokens())

    def dropped(self, text: str) -> Dropped:
        """The files in what was dropped or pasted."""
        return read_dropped(text, self._image_tokens())

    def is_command(self, line: str) -> bool:
        """Whether a line begins with a command's name, behind nothing but attachments."""
        return self._begins_as_command(self._tokens.first_words(line))

    def _begins_as_command(self, text: str) -> bool:
        name = _COMMAND.match(text)
        return name is not None and name[0] in self._names


def _plain_message() -> str:
    """The next line of stdin, or all lines of a block; what there is of it when stdin ends."""
    message = _plain_line()
    while is_open(message):
        try:
            message += "\n" + _plain_line()
        except EOFError:
            break
    return message


def _plain_line() -> str:
    if sys.stdin is None:  # closed by whoever started this
        raise EOFError
    if sys.stdin.isatty():
        draw(sys.stderr, "> ")
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError("that line is not UTF-8 text: give a file's path to attach it")
    return TOKEN.sub("", text.rstrip("\r\n"))
