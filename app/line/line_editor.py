"""The chat's line in a terminal: keys, paste, tokens for what is folded, completion, footer and history."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.application.current import get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.input.ansi_escape_sequences import ANSI_SEQUENCES
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from gemma4_mlx.errors import Gemma4Error

from ..exit_codes import one_line
from ..printable import on_one_line
from ..terminal import note, pasted
from ..typed_ahead import pastes_wait
from .history_file import Place
from .interruptible import ctrl_c_interrupts
from .line_blocks import BLOCK, is_open
from .line_completion import Command, LineCompleter
from .line_display import ShowLine
from .line_history import LineHistory
from .line_input import Checked, InputLine
from .line_tokens import MOST_LABELS, TOKEN, Tokens, is_long
from .named_files import names_in, refusal
from .steady_output import steady_output

PROMPT = "> "
_FOOTER_SECONDS = 1.0
_DROPPED = re.compile(r"""\s*["']?(?:/|~/|file://)""")
_LISTEN = "/listen"
"""Leaves no line behind: what it led to stands in the next one, and what led to nothing has no trace."""
_LONGEST_SEARCHED = 20_000
"""Characters of a pasted text that is searched for files to offer."""
_NOT_TEXT = "error: what was pasted is not text: drop the file itself, or give its path"
# Names of colours, not values: the terminal's own palette is readable on its own background.
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse dim", "token": "ansicyan", "prompt": "bold"})
# Enter with a modifier, as kitty, Ghostty, iTerm2 and WezTerm send it (CSI u) and xterm does (modifyOtherKeys); the
# number is 1 and 1 for Shift, 2 for Alt, 4 for Ctrl.
_NEW_LINE = (Keys.Escape, Keys.ControlM)
ANSI_SEQUENCES.update({f"\x1b[13;{modifiers}u": _NEW_LINE for modifiers in range(2, 9)})
ANSI_SEQUENCES.update({f"\x1b[27;{modifiers};13~": _NEW_LINE for modifiers in range(2, 9)})


class LineEditor:
    """Reads lines from a terminal.

    Args:
        commands, footer: as for `InputLine`.
        tokens: what stands for attachments and long pastes in the line.
        rules: says what is a command, and which files go with a line.
        place, chats: as for `InputLine`.
        on_shown: called when the line has been drawn, every time.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        footer: Callable[[], str],
        tokens: Tokens,
        rules: InputLine,
        place: Callable[[], Place | None],
        chats: Callable[[], Sequence[str]],
        on_shown: Callable[[], None],
    ) -> None:
        self._place = place
        self._footer = footer
        self._tokens = tokens
        self._rules = rules
        self._draft = ""
        self._pasted: list[str] = []
        self._prefilled = ""
        self._offered: dict[Path, str] = {}  # files that a pasted text names, and their names there
        self._told: str | None = None  # the line of which was said that it is no more than files that are not attached
        self._checked: Checked | None = None
        # The prompt goes to whichever of stdout and stderr is the terminal, so that `chat > answers.txt` works.
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", PROMPT)],
            style=_STYLE,
            history=LineHistory(tokens, place, _say),
            completer=LineCompleter(commands, chats),
            complete_while_typing=Condition(_types_a_command),
            input_processors=[ShowLine(tokens, margin=len(PROMPT))],
            key_bindings=self._key_bindings(),
            bottom_toolbar=lambda: fitted(self._hints(), get_app().output.get_size().columns),
            prompt_continuation=" " * len(PROMPT),
            refresh_interval=_FOOTER_SECONDS,
            enable_suspend=True,
            output=steady_output(),
        )
        # What prompt_toolkit says of a terminal that does not tell where its cursor is helps nobody: it draws anyway.
        self._session.app.renderer.cpr_not_supported_callback = None
        self._session.app.after_render += lambda _: on_shown()

    def read(self, attachments: str, prefilled: str) -> Checked:
        """One line, with tokens.

        Args:
            attachments: tokens that stand in front.
            prefilled: words that stand there already.

        Raises:
            EOFError, KeyboardInterrupt: as for `InputLine.read`.
        """
        draft, self._draft = self._draft, ""
        between = " " if draft and prefilled and not draft[-1].isspace() else ""
        if not draft:
            self._forget_the_line_before()
        if self._rules.is_command(prefilled) or prefilled.startswith(BLOCK):  # it was words before
            prefilled = " " + prefilled
        self._prefilled = prefilled
        self._checked = None
        if is_long(prefilled):  # folded, so that what was said of it stays in sight
            prefilled = self._tokens.add_pasted(prefilled)
        try:
            self._session.app.erase_when_done = False
            line = self._session.prompt(default=draft + attachments + between + prefilled)
        finally:
            pastes_wait()
        return self._checked or Checked(line)

    def _forget_the_line_before(self) -> None:
        self._pasted = []
        self._offered = {}
        self._told = None

    def _key_bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        bindings.add("c-c")(_clear_or_leave)
        bindings.add("escape", "enter")(_begin_new_line)
        bindings.add("c-j")(_begin_new_line)
        bindings.add("enter")(self._submit)
        bindings.add(Keys.BracketedPaste)(lambda event: self._paste(event, event.data))
        bindings.add("c-v")(self._paste_clipboard)
        bindings.add("c-t")(self._attach_offered)
        bindings.add("c-o")(self._open_folded)
        bindings.add("c-r")(self._listen)
        bindings.add("c-g")(self._open_editor)
        return bindings

    def _hints(self) -> str:
        """What keys do with what stands in the line, and the footer."""
        line = get_app().current_buffer.text
        hints = []
        if is_open(line):
            hints.append(f"{BLOCK} ends the message")
        if offered := self._still_offered(line):
            what = offered[0].name if len(offered) == 1 else f"{len(offered)} files"
            hints.append(f"Ctrl-T attaches {what}")
        if self._tokens.holds_folded(line):
            hints.append("Ctrl-O opens what is folded")
        return " · ".join([*hints, self._footer()])

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
        if text == self._told:
            checked = Checked(text)
        else:
            is_recalled = buffer.working_index < len(buffer._working_lines) - 1
            foreign = [*self._pasted, self._prefilled, *(self._session.history.get_strings() if is_recalled else ())]
            try:
                with ctrl_c_interrupts():
                    checked = self._rules.checked(text, lambda name: any(name in came for came in foreign))
            except KeyboardInterrupt:
                _say("stopped: nothing was sent")
                return
        if checked.line != buffer.text:
            buffer.text = checked.line
        if checked.is_ready:
            self._checked = replace(checked, is_pasted=text in self._pasted)
            event.app.erase_when_done = buffer.text.strip() == _LISTEN
            buffer.validate_and_handle()
        else:
            self._told = buffer.text
            _say(f"{refusal(checked.refused)} (Enter sends the line as it is)")

    def _paste(self, event: KeyPressEvent, data: str) -> None:
        text = pasted(data)
        if text is None:
            _say(_NOT_TEXT)
            return
        text = TOKEN.sub("", text)
        if self._rules.is_command(event.current_buffer.text):  # its file is for the command to open
            self._insert_words(event.current_buffer, text)
            return
        try:
            with ctrl_c_interrupts():
                dropped = self._rules.dropped(text)
        except KeyboardInterrupt:
            _say("stopped: nothing was attached")
            return
        if dropped.refused:
            _say(refusal(dropped.refused))
        if dropped.attachments:
            # Terminals drop whole paths; a name on its own was copied, and is words as well.
            name = "" if _DROPPED.match(text) else text.strip()
            self._insert(event.current_buffer, self._tokens.add(dropped.attachments, name))
        elif dropped.is_words:
            self._insert_words(event.current_buffer, text)

    def _insert(self, buffer: Buffer, tokens: str) -> None:
        from .preview import picture_protocol, show_pictures

        buffer.insert_text(tokens)
        attachments = self._tokens.attachments(tokens)
        if len(attachments) <= MOST_LABELS and picture_protocol() is not None:
            run_in_terminal(lambda: show_pictures(attachments))

    def _insert_words(self, buffer: Buffer, text: str) -> None:
        """Put a pasted text into the line. Files that it names are offered, and nothing in it is a command."""
        self._pasted.append(text)
        if len(text) <= _LONGEST_SEARCHED:
            self._offered |= {path: name for name, path in names_in(text)}
        begins_line = self._tokens.first_words(buffer.document.text_before_cursor) == ""
        if is_long(text):
            text = self._tokens.add_pasted(text)
        elif begins_line and (self._rules.is_command(text) or text.startswith(BLOCK)):
            text = " " + text  # what a space stands in front of is words
        buffer.insert_text(text)

    def _still_offered(self, line: str) -> list[Path]:
        if not self._offered:
            return []
        words = self._tokens.spelled_out(line)
        return [path for path, name in self._offered.items() if name in words]

    def _attach_offered(self, event: KeyPressEvent) -> None:
        """Attach the files that a pasted text names."""
        offered = self._still_offered(event.current_buffer.text)
        try:
            with ctrl_c_interrupts():
                attachments, refused = self._rules.opened(offered)
        except KeyboardInterrupt:
            _say("stopped: nothing was attached")
            return
        self._offered = {}
        if refused:
            _say(refusal(refused))
        if attachments:
            self._insert(event.current_buffer, self._tokens.add(attachments))

    def _open_folded(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        opened = self._tokens.opened(buffer.text, buffer.cursor_position)
        if opened is not None:
            buffer.save_to_undo_stack()
            buffer.text, buffer.cursor_position = opened

    def _paste_clipboard(self, event: KeyPressEvent) -> None:
        from . import clipboard

        try:
            found = clipboard.read()
        except (Gemma4Error, OSError) as error:
            _say(f"error: {one_line(error)}")
            return
        if isinstance(found, str):
            self._paste(event, found)
        else:
            self._insert(event.current_buffer, self._tokens.add(found))

    def _listen(self, event: KeyPressEvent) -> None:
        """Leave for /listen; what is typed stands in the line again afterwards."""
        self._draft = event.current_buffer.text
        event.current_buffer.text = _LISTEN
        event.app.erase_when_done = True
        event.app.exit(result=_LISTEN)

    def _open_editor(self, event: KeyPressEvent) -> None:
        if self._place() is None:
            _say("Ctrl-G is off: an editor works on a file, and this chat is private")
            return
        buffer = event.current_buffer
        line = buffer.text
        buffer.text = self._tokens.spelled_out(line)
        edited = buffer.open_in_editor()

        def take_back(_: asyncio.Future[None]) -> None:
            buffer.text = self._tokens.read_back(buffer.text, line)
            buffer.cursor_position = len(buffer.text)

        edited.add_done_callback(take_back)


def _clear_or_leave(event: KeyPressEvent) -> None:
    if event.current_buffer.text:
        event.current_buffer.reset()
    else:
        event.app.exit(exception=KeyboardInterrupt)


def _begin_new_line(event: KeyPressEvent) -> None:
    event.current_buffer.insert_text("\n")


def _types_a_command() -> bool:
    before = get_app().current_buffer.document.text_before_cursor
    return re.fullmatch(r"/\w*", before) is not None


def _say(message: str) -> None:
    """Put a line above the one being typed."""
    run_in_terminal(lambda: note(message))


def fitted(footer: str, columns: int) -> str:
    """As many parts of a footer, from its first, as have room."""
    parts = on_one_line(footer).split(" · ")
    while len(parts) > 1 and get_cwidth(" · ".join(parts)) >= columns:
        parts.pop()
    return " · ".join(parts)
