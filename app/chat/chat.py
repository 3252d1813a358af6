"""A chat: what has been said, what waits to be said, and having it answered. It is typed at in `chat_loop`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gemma4_mlx.byte_sizes import byte_size
from gemma4_mlx.config import DEFAULT_IMAGE_TOKENS
from gemma4_mlx.errors import ContextLengthError, DeviceError, Gemma4Error, InputError

from ..answer.answering import Request, Sampling, say_why_it_ended
from ..exit_codes import INTERRUPTED, leave_at_once, one_line
from ..gpu import PREPARING
from ..interrupts import Interrupts
from ..line.attachments import Attachment
from ..messages import Message
from ..models.model_choice import fetch_model
from ..progress import Progress
from ..terminal import draw, edits_lines, note, shortened
from ..tools.tool_rounds import Permission, answer_in_rounds
from ..typed_ahead import asked
from .context import oldest_to_drop
from .conversation import Conversation, Exchange
from .kept_answer import KeptAnswer
from .model_thread import ThreadedModel
from .resuming import show_again
from .session import Session
from .sessions import SessionStore

if TYPE_CHECKING:
    from gemma4_mlx.generation import Generation, Stats
    from gemma4_mlx.generation.tool_functions import Tools

    from ..models.fetching import Fetch
    from ..speech.microphone_line import Heard


_SHOWN = 200  # characters of what was said last


@dataclass(frozen=True)
class ChatOptions:
    """How a chat begins.

    Attributes:
        system, thinking: of a new conversation; one that is gone on with keeps its own.
        resume: go on with an earlier chat: "" with the last one, else with that of this name.
        image_tokens: the most soft tokens a picture may take.
        tools: a Python file with functions for the model.
        run_tools: run them without asking.
        microphone: its number or part of its name; None: the default one.
        language: what is spoken into it; None leaves it to the model.
        private: nothing of it is written to disk.
    """

    sampling: Sampling
    system: str | None = None
    thinking: bool = False
    resume: str | None = None
    image_tokens: int = DEFAULT_IMAGE_TOKENS
    tools: Path | None = None
    run_tools: bool = False
    microphone: str | None = None
    language: str | None = None
    private: bool = False


class Chat:
    """A conversation with a model.

    Attributes:
        model: answers; perhaps still being loaded.
        conversation: what has been said.
        session: where it is kept.
        store: all sessions.
        sampling, image_tokens: how answers are drawn, and how closely pictures are looked at.
        microphone, language: see `ChatOptions`.
        show_thoughts: whether what the model thinks is shown.
        waiting: attachments for the next message.
        prefilled: what stands in the next line already.
        heard: what was said last into the microphone.
        answers: of this run, the last one last.
        over: the chat has ended.
        may_leave: Ctrl-C was pressed at an empty prompt, and nothing has been typed since.
        fetching: the model that is being fetched meanwhile; None once it is here, or failed to come.
        edits_lines: whether a person edits lines in a terminal, rather than a pipe sending them.
    """

    def __init__(
        self,
        model: ThreadedModel,
        conversation: Conversation,
        session: Session,
        store: SessionStore,
        options: ChatOptions,
        tools: Tools | None = None,
        fetching: Fetch | None = None,
    ) -> None:
        self.model = model
        self.conversation = conversation
        self.session = session
        self.store = store
        self.sampling = options.sampling
        self.image_tokens = options.image_tokens
        self.microphone = options.microphone
        self.language = options.language
        self.show_thoughts = True
        self.waiting: list[Attachment] = []
        self.prefilled = ""
        self.heard: Heard | None = None
        self.answers: list[Generation] = []
        self.over = False
        self.may_leave = False
        self.edits_lines = edits_lines()
        self._figures: Stats | None = None  # of the last answer, if the conversation stands as that left it
        self._tools = tools
        self._may_run = Permission(options.run_tools)
        self.fetching = fetching
        self._answered_again = 0

    def footer(self) -> str:
        """What stands beneath the line: the most important first."""
        if self.model.failure is not None:
            return f"{self.model.name} cannot be loaded: {one_line(self.model.failure)}"
        parts = ["private"] if self.session.private else []
        parts.append(self.model.name if self.model.loaded else f"{self.model.name} is being loaded")
        if not self.model.loaded and self.model.state == PREPARING:
            parts.append(PREPARING)
        if self.fetching is not None:
            parts.append(self.fetching.state())
        if (stats := self._figures) is not None:
            used = stats.prompt_tokens + stats.generation_tokens
            parts.append(f"{used:,} of {self.model.context:,} tokens")
            parts.append(f"{stats.generation_tps:.0f} tok/s")
            parts.append(byte_size(stats.peak_memory_bytes))
        if self.model.loaded and self.model.takes("audio"):
            parts.append("microphone off, Ctrl-R")
        return " · ".join(parts)

    def close(self) -> bool:
        """Leave everything in order. Ctrl-C meanwhile leaves at once.

        Returns:
            Whether the model has come to rest; if not, only `leave_at_once` is safe.
        """
        self.store.put_away(self.session, self.conversation)
        self.store.leave()
        if self.fetching is not None:
            self.fetching.stop()
        try:
            return self.model.thread.close()
        except KeyboardInterrupt:
            leave_at_once(INTERRUPTED)

    # Talking

    def attach(self, attachments: Sequence[Attachment]) -> None:
        """Keep files for the next message."""
        self.waiting += attachments
        if not self.edits_lines:  # there they stand in the line
            for attachment in self.waiting:
                note(f"attached: {attachment.name} ({attachment.description})")

    def say(self, text: str) -> None:
        """Send a message, with what waits, and show the answer."""
        with Interrupts() as interrupts:
            interrupts.never_thrown = True  # a message is sent whole, or not at all
            attachments, self.waiting = self.waiting, []
            exchange = self.conversation.begin(text, attachments)
            self.session.user(exchange, self.conversation, self.model.name)
            self._answered_again = 0
            self._answer(exchange, [], interrupts)

    def answer_again(self) -> None:
        """Answer the last message anew. Raises InputError if there is none."""
        exchange = self._last_exchange()
        with Interrupts() as interrupts:
            interrupts.never_thrown = True
            before, exchange.replies = exchange.replies, []
            self.session.again(exchange)
            self._answered_again += 1
            self._answer(exchange, before, interrupts)

    def request(self) -> Request:
        """What the model is asked now."""
        sampling = self.sampling
        if sampling.seed is not None:  # the same seed would draw the same answer again
            sampling = replace(sampling, seed=sampling.seed + self._answered_again)
        return Request(
            self.conversation.messages(),
            sampling,
            thinking=self.conversation.thinking,
            tools=None if self._tools is None else self._tools.descriptions,
            image_tokens=self.image_tokens,
        )

    def _answer(self, exchange: Exchange, before: list[Message], interrupts: Interrupts) -> None:
        """Have the last exchange answered. If nothing comes of it, all is as before: a new message is taken back."""
        answer = KeptAnswer(self.model, self.session, exchange, self.show_thoughts, interrupts)
        try:
            interrupts.never_thrown = False
            if interrupts.count:
                raise KeyboardInterrupt
            self._make_room()
            request = self.request()
            generation = answer_in_rounds(
                lambda replies: answer.write(request, replies), self._tools, self._may_run, answer.keep
            )
        except KeyboardInterrupt:
            interrupts.never_thrown = True
            if not self.edits_lines and sys.stderr.isatty() and (not answer.text or answer.text.endswith("\n")):
                draw(sys.stderr, "\n")  # the terminal has put ^C on this line
            if answer.keep_what_there_is():
                note("stopped; what was written stays in the conversation")
            else:
                self._take_back(exchange, before)
                if not before and self.edits_lines:
                    self.prefilled, self.waiting = exchange.text, exchange.attachments
                kept = "the answer before stays" if before else "your message was taken back"
                note(f"stopped before the answer began; {kept}")
            return
        except (Gemma4Error, ValueError, RuntimeError) as raised:
            interrupts.never_thrown = True
            error: Exception = raised
            if isinstance(raised, RuntimeError):
                if type(raised) is not RuntimeError:
                    raise  # one of Python's own kinds is a mistake of ours; the plain one is MLX's word for anything
                error = DeviceError(f"the computation failed: {one_line(raised)}")
                self.model.thread.run(lambda: self.model.cache().clear())
            if answer.keep_what_there_is() or error is self.model.failure:
                raise error from error.__cause__
            self._take_back(exchange, before)
            if before:
                raise error from error.__cause__
            self.prefilled = exchange.text
            lost = ""
            if isinstance(error, DeviceError) and self.edits_lines:
                self.waiting = exchange.attachments
            elif exchange.attachments:
                # Whatever was wrong with an attachment would be wrong with it again in the next message.
                lost = ", and what was attached is dropped"
            kind = type(error) if isinstance(error, Gemma4Error) else InputError
            raise kind(f"{one_line(error)} (not sent{lost})") from error
        self.answers.append(generation)
        self._figures = generation.stats
        say_why_it_ended(generation, self.sampling.max_tokens)

    def _make_room(self) -> None:
        """Forget what must go for the last message to be answered, if the person agrees."""
        with Progress(f"{self.model.name} is being loaded") as progress:
            if not self.model.loaded:
                progress.show(self.model.state)
            self.model.wait(progress.show)
        if self.model.concern is not None:
            note(f"note: {self.model.name}: {self.model.concern}")
            self.model.concern = None
        request = self.request()
        oldest = self.model.thread.run(
            lambda: oldest_to_drop(self.model()[1], request, self.conversation, self.sampling.max_tokens)
        )
        if not oldest:
            return
        count = len(oldest)
        if not self.edits_lines or not agrees(
            f"the context is full: forget the oldest {messages(count)}, on disk too?"
        ):
            raise ContextLengthError(f"the context is full: /forget {count} makes room, /clear begins anew")
        self.forget(oldest, typed=True)

    def _take_back(self, exchange: Exchange, before: list[Message]) -> None:
        if before:
            exchange.replies = before
            self.session.replied(exchange)
        else:
            self.forget([exchange])

    # What commands do

    def take_back_last(self) -> Exchange:
        """Forget the last message and its answer. Raises InputError if there is none."""
        exchange = self._last_exchange()
        self.forget([exchange])
        return exchange

    def forget(self, exchanges: list[Exchange], typed: bool = False) -> None:
        """Go on as if these had never been; with `typed`, as if they had never been typed either."""
        self.conversation.drop(exchanges)
        self.session.forgotten(exchanges, typed)
        self._figures = None

    def clear(self) -> None:
        """Begin another conversation, with the same instructions; this one stays on disk."""
        self.waiting = []
        self._go_on(self.store.new(), Conversation(self.conversation.system, self.conversation.thinking))

    def begin_from(self, conversation: Conversation) -> None:
        """Go on with a conversation from elsewhere, as a new session."""
        self._go_on(self.store.new(), conversation)
        self.session.whole(conversation, self.model.name)
        self._drop_what_it_cannot_take()
        self.tell_where_it_stands()

    def go_on_with(self, name: str | None) -> None:
        """Go on with another session; None: the last one. Raises InputError and OSError as `SessionStore.open`."""
        if name == self.session.name and self.session.begun:
            raise InputError(f"this is {name}")
        session, replay = self.store.open(name)
        self._go_on(session, replay.conversation)
        self._drop_what_it_cannot_take()
        self.tell_where_it_stands()

    def change_model(self, name: str) -> None:
        """Go on with another model. If it cannot be loaded, the one there is stays.

        Raises:
            Gemma4Error: there is none of that name, or it cannot be loaded.
        """
        name, folder = fetch_model(name)
        model = ThreadedModel(self.model.thread, name, folder, instead_of=self.model)
        try:
            model.wait()
        except BaseException:
            self.model.begin()  # it may have left memory already
            raise
        self.model = model
        self._may_run.forget()
        self.answers = []
        self._figures = None
        self._drop_what_it_cannot_take()
        self.settings_changed()

    def settings_changed(self) -> None:
        """Instructions, thinking or the model are others now."""
        self.session.settings(self.conversation, self.model.name)

    def _last_exchange(self) -> Exchange:
        if not self.conversation.exchanges:
            raise InputError("nothing has been said yet")
        return self.conversation.exchanges[-1]

    def _go_on(self, session: Session, conversation: Conversation) -> None:
        self.store.put_away(self.session, self.conversation)
        self.session, self.conversation = session, conversation
        self._figures = None
        self._may_run.forget()

    def _drop_what_it_cannot_take(self) -> None:
        self.model.wait()
        dropped = []
        for exchange in self.conversation.exchanges:
            dropped += [a.name for a in exchange.attachments if not self.model.takes(a.kind)]
            exchange.attachments = [a for a in exchange.attachments if self.model.takes(a.kind)]
        if dropped:
            note(f"note: {self.model.name} cannot be given {', '.join(dropped)}: it goes on without")

    def tell_where_it_stands(self) -> None:
        exchanges = self.conversation.exchanges
        note(f"going on with {self.session.name}: {messages(len(exchanges))}")
        if not exchanges:
            return
        last = exchanges[-1]
        if self.edits_lines:
            show_again(last)
        else:  # stdout is for answers to what is sent now
            note(f"> {shortened(last.title, _SHOWN)}")
            if last.answer:
                note(shortened(last.answer, _SHOWN))
        if not last.replies:
            note("the last one was not answered: /regen answers it, /edit changes it")


def messages(count: int) -> str:
    """So many of what a person says."""
    return "1 message" if count == 1 else f"{count} messages"


def agrees(question: str) -> bool:
    """Whether the person at the terminal says yes, or just Enter. Who closes the terminal agrees to nothing."""
    answer = asked(f"{question} Y/n: ")
    return answer != "" and answer.strip().lower() in ("", "y", "yes")
