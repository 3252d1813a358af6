"""`gemma4-mlx chat`: the loop of typing and answering, and its slash commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gemma4_mlx.errors import Gemma4Error, InputError

from . import attachments
from .answering import Sampling, StreamedAnswer, say_why_it_ended
from .attachments import Attachment
from .conversation import Conversation
from .endings import one_line
from .line_input import typed_lines
from .model_choice import open_model
from .terminal import note, write

if TYPE_CHECKING:
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor

HELP = """\
/image FILE      attach a picture to your next message
/audio FILE      attach a sound (up to 30 s) to your next message
/think on|off    let the model think before it answers
/system TEXT     instructions for the model; without TEXT: none
/clear           forget the conversation
/help            this list
/quit            leave (so does Ctrl-D)
A file's path, typed or dropped here, attaches it too.
Ctrl-C stops an answer and keeps what was written of it."""
COMMANDS = {line.partition(" ")[0] for line in HELP.splitlines() if line.startswith("/")}


def chat(*, model_name: str | None, system: str | None, thinking: bool, sampling: Sampling) -> None:
    """Read lines and answer them until stdin ends, /quit, or Ctrl-C at an empty prompt.

    Raises:
        Gemma4Error: the model cannot be loaded. Errors in a message are reported and the conversation goes on.
        KeyboardInterrupt: Ctrl-C at an empty prompt.
    """
    model, processor = open_model(model_name)
    session = ChatSession(model, processor, Conversation(system=system, thinking=thinking), sampling)
    note("/help lists the commands, Ctrl-D leaves.")
    for line in typed_lines():
        try:
            if not session.handle(line):
                return
        except (Gemma4Error, ValueError) as error:
            note(f"error: {one_line(error)}")


class ChatSession:
    """A conversation with a loaded model, one typed line at a time."""

    def __init__(self, model: Gemma4, processor: Processor, conversation: Conversation, sampling: Sampling) -> None:
        self.model = model
        self.processor = processor
        self.conversation = conversation
        self.sampling = sampling

    def handle(self, line: str) -> bool:
        """Do what one line asks for.

        Returns:
            Whether the conversation goes on.

        Raises:
            Gemma4Error, ValueError: it cannot be done; the turns so far are as they were.
        """
        command, _, argument = line.partition(" ")
        if command in COMMANDS:
            return self._command(command, argument.strip())
        words, found = attachments.attachments_in(line)
        if words.startswith("/") and not found:
            raise InputError(f"no command and no file {command}: /help lists commands; to say it, begin with a space")
        for attachment in found:
            self._attach(attachment)
        if words.strip():
            self._answer(words.strip())
        return True

    def _command(self, command: str, argument: str) -> bool:
        match command, argument:
            case "/help", _:
                note(HELP)
            case "/quit", _:
                return False
            case "/clear", _:
                self.conversation.clear()
                note("forgotten")
            case "/think", "on" | "off":
                self.conversation.thinking = argument == "on"
                note(f"thinking {argument}")
            case "/think", _:
                raise InputError("/think on or /think off")
            case "/system", _:
                self.conversation.system = argument or None
                note("instructions set" if argument else "no instructions")
            case "/image", _:
                self._attach(attachments.open_attachment(attachments.unquoted(argument), "image"))
            case "/audio", _:
                self._attach(attachments.open_attachment(attachments.unquoted(argument), "audio"))
        return True

    def _attach(self, attachment: Attachment) -> None:
        self.conversation.waiting.append(attachment)
        note(f"attached: {attachment.name} ({attachment.description})")

    def _answer(self, text: str) -> None:
        screen = StreamedAnswer(show_thoughts=self.conversation.thinking)
        try:
            answer = screen.stream(
                self.model,
                self.processor,
                self.conversation.messages_with(text),
                self.conversation.thinking,
                self.sampling,
            )
        except KeyboardInterrupt:
            if sys.stderr.isatty() and (not screen.text or screen.text.endswith("\n")):
                write(sys.stderr, "\n")  # the terminal has put ^C on this line
            self._keep_partial(text, screen.text)
            return
        except (Gemma4Error, ValueError) as error:
            if not self.conversation.waiting:
                raise
            # Whatever was wrong with an attachment would be wrong with it again in the next message.
            self.conversation.waiting = []
            raise InputError(f"{one_line(error)} (not sent, and what was attached is dropped)") from error
        self.conversation.answered(text, answer.text)
        say_why_it_ended(answer, self.sampling.max_tokens)

    def _keep_partial(self, text: str, partial: str) -> None:
        if partial.strip():
            self.conversation.answered(text, partial)
            note("stopped; what was written stays in the conversation")
        else:
            note("stopped before the answer began; your message was taken back")
