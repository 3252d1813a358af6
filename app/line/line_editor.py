"""The chat's line in a terminal: keys, paste, tokens for attachments, completion, footer and history."""

from __future__ import annotations

import asyncio
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.application.current import get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.utils import explode_text_fragments
from prompt_toolkit.output import create_output
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from gemma4_mlx.errors import Gemma4Error

from ..endings import one_line
from ..terminal import note, pasted
from ..typed_ahead import pastes_wait
from .line_blocks import is_open
from .line_completion import Command, LineCompleter
from .line_tokens import TOKEN, Tokens

PROMPT = "> "
_FOOTER_SECONDS = 1.0
_NOT_TEXT = "error: what was pasted is not text: drop the file itself, or give its path"
# Names of colours, not values: the terminal's own palette is readable on its own background.
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse dim", "token": "ansicyan", "prompt": "bold"})


class LineEditor:
    """Reads lines from a terminal.

    Args:
        commands, footer: as for `InputLine`.
        tokens: what stands for attachments in the line.
        with_tokens: puts a token in the place of every file a line names; raises Gemma4Error.
        dropped: tokens for a dropped text, or None; raises Gemma4Error.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        footer: Callable[[], str],
        tokens: Tokens,
        with_tokens: Callable[[str], str],
        dropped: Callable[[str], str | None],
    ) -> None:
        self._names = {command.name for command in commands}
        self._footer = footer
        self._tokens = tokens
        self._with_tokens = with_tokens
        self._dropped = dropped
        self._draft = ""
        # The prompt goes to whichever of stdout and stderr is the terminal, so that `chat > answers.txt` works.
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", PROMPT)],
            style=_STYLE,
            history=_History(tokens),
            completer=LineCompleter(commands),
            complete_while_typing=Condition(_types_a_command),
            input_processors=[_ShowTokens(tokens)],
            key_bindings=self._key_bindings(),
            bottom_toolbar=lambda: fitted(self._footer(), get_app().output.get_size().columns),
            prompt_continuation=" " * len(PROMPT),
            refresh_interval=_FOOTER_SECONDS,
            enable_suspend=True,
            output=create_output(always_prefer_tty=True),
        )

    def read(self, prefilled: str) -> str:
        """One line, with tokens.

        Raises:
            EOFError, KeyboardInterrupt: as for `InputLine.read`.
        """
        draft, self._draft = self._draft, ""
        between = " " if draft and prefilled and not draft[-1].isspace() else ""
        try:
            return self._session.prompt(default=draft + between + prefilled)
        finally:
            pastes_wait()

    def _key_bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        bindings.add("c-c")(_clear_or_leave)
        bindings.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
        bindings.add("enter")(self._submit)
        bindings.add(Keys.BracketedPaste)(lambda event: self._paste(event, event.data))
        bindings.add("c-v")(self._paste_clipboard)
        bindings.add("c-r")(self._listen)
        bindings.add("c-g")(self._open_editor)
        return bindings

    def _submit(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
            return
        text = pasted(buffer.text)
        if text is None:
            buffer.reset()
            _say(_NOT_TEXT)
            return
        try:
            line = self._with_tokens(text)
        except (Gemma4Error, OSError) as error:
            _say(f"error: {one_line(error)}")
            return
        if line != buffer.text:
            buffer.text = line
        buffer.validate_and_handle()

    def _paste(self, event: KeyPressEvent, data: str) -> None:
        text = pasted(data)
        if text is None:
            _say(_NOT_TEXT)
            return
        text = TOKEN.sub("", text)
        buffer = event.current_buffer
        if buffer.text.partition(" ")[0] in self._names:
            buffer.insert_text(text)
            return
        try:
            tokens = self._dropped(text)
        except (Gemma4Error, OSError) as error:
            _say(f"error: {one_line(error)}")
            return
        if tokens is None:
            buffer.insert_text(text)
        else:
            self._insert(event, tokens)

    def _insert(self, event: KeyPressEvent, tokens: str) -> None:
        from .preview import show_pictures

        event.current_buffer.insert_text(tokens)
        attachments = self._tokens.typed(tokens).attachments
        run_in_terminal(lambda: show_pictures(attachments))

    def _paste_clipboard(self, event: KeyPressEvent) -> None:
        from . import clipboard

        try:
            found = clipboard.read()
            if isinstance(found, str):
                self._paste(event, found)
            else:
                self._insert(event, self._tokens.add(found))
        except (Gemma4Error, OSError) as error:
            _say(f"error: {one_line(error)}")

    def _listen(self, event: KeyPressEvent) -> None:
        """Leave for /listen; what is typed stands in the line again afterwards."""
        self._draft = event.current_buffer.text
        event.current_buffer.text = "/listen"
        event.app.exit(result="/listen")

    def _open_editor(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        line = buffer.text
        buffer.text = self._tokens.spelled_out(line)
        edited = buffer.open_in_editor()

        def take_back(_: asyncio.Future[None]) -> None:
            buffer.text = self._tokens.read_back(buffer.text, line)
            buffer.cursor_position = len(buffer.text)

        edited.add_done_callback(take_back)


class _ShowTokens(Processor):
    """Shows each token's label in the place of its one character, followed by a space."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        labels = self._tokens.labels(transformation_input.document.text)
        if not labels:
            return Transformation(transformation_input.fragments)
        fragments: StyleAndTextTuples = []
        starts = [0]  # where each character of the line begins on the screen
        for style, text, *_ in explode_text_fragments(transformation_input.fragments):
            if label := labels.get(text):
                fragments += [(f"{style} class:token", label), (style, " ")]
                starts.append(starts[-1] + len(label) + 1)
            else:
                fragments.append((style, text))
                starts.append(starts[-1] + len(text))
        return Transformation(
            fragments,
            source_to_display=lambda position: starts[min(position, len(starts) - 1)],
            display_to_source=lambda position: bisect_right(starts, position) - 1,
        )


class _History(FileHistory):
    """Earlier lines, with files' paths instead of tokens, kept across runs in a file only its owner can read."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        path = platformdirs.user_data_path("gemma4-mlx") / "chat-history"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            note(f"note: what you type is not remembered ({path}: {error.strerror})")
            path = Path(os.devnull)  # remembered until the end of this run
        super().__init__(path)

    def append_string(self, string: str) -> None:
        """Remember a line."""
        super().append_string(self._tokens.remembered(string))

    def store_string(self, string: str) -> None:
        """Write a line down; a full disk is no reason to lose the message itself."""
        try:
            super().store_string(string)
        except OSError as error:
            _say(f"note: what you type is not remembered ({self.filename!s}: {error.strerror})")
            self.filename = os.devnull


def _clear_or_leave(event: KeyPressEvent) -> None:
    if event.current_buffer.text:
        event.current_buffer.reset()
    else:
        event.app.exit(exception=KeyboardInterrupt)


def _types_a_command() -> bool:
    before = get_app().current_buffer.document.text_before_cursor
    return re.fullmatch(r"/\w*", before) is not None


def _say(message: str) -> None:
    """Put a line above the one being typed."""
    run_in_terminal(lambda: note(message))


def fitted(footer: str, columns: int) -> str:
    """As many parts of a footer, from its first, as have room."""
    parts = footer.split(" · ")
    while len(parts) > 1 and get_cwidth(" · ".join(parts)) >= columns:
        parts.pop()
    return " · ".join(parts)
