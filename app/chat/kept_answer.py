"""One answer of the chat while it is written: on the screen, and on disk as far as it has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..answer.answer_screen import AnswerScreen
from ..answer.answering import Request, generate, prompt_progress, show
from ..exit_codes import ComputingError, computing
from ..interrupts import Interrupts
from ..messages import Message, assistant_message
from .conversation import Exchange
from .model_thread import ThreadedModel
from .session import Session

if TYPE_CHECKING:
    from gemma4_mlx.generation import Chunk, Generation


class KeptAnswer:
    """One answer being written: shown, and on disk as it grows.

    Attributes:
        text: what the model has written since it last read a function's result.
    """

    def __init__(
        self,
        model: ThreadedModel,
        session: Session,
        exchange: Exchange,
        show_thoughts: bool,
        interrupts: Interrupts,
    ) -> None:
        self.text = ""
        self._interrupts = interrupts
        self._model = model
        self._session = session
        self._exchange = exchange
        self._show_thoughts = show_thoughts

    def write(self, request: Request, replies: list[Message]) -> Generation:
        """Let the model go on after `replies`.

        Raises what `generate` does, `ComputingError`, and KeyboardInterrupt as `ModelThread.stream`.
        """
        self.text = ""
        request = replace(request, messages=[*request.messages, *replies])

        def work(hand_out: Callable[[Chunk | tuple[int, int]], None]) -> Generation:
            try:
                with computing():
                    return generate(
                        *self._model(),
                        request,
                        hand_out,
                        self._model.cache(),
                        should_stop=self._interrupts,
                        on_prompt=lambda read, tokens: hand_out((read, tokens)),
                    )
            except ComputingError:
                self._model.forget()
                raise

        with AnswerScreen(self._show_thoughts) as screen:
            tell_progress = prompt_progress(screen)

            def take(chunk: Chunk | tuple[int, int]) -> None:
                if isinstance(chunk, tuple):
                    tell_progress(*chunk)
                    return
                if chunk.kind == "answer":
                    self.text += chunk.text
                    self._session.piece(self._exchange, chunk.text)
                show(chunk, screen)

            return self._model.thread.stream(
                work, take, self._interrupts, on_stopping=lambda: screen.status("stopping…")
            )

    def keep(self, replies: list[Message]) -> None:
        """This is the answer, or a part of it that can be gone on from."""
        self.text = ""
        self._exchange.replies = replies
        self._session.replied(self._exchange)

    def keep_what_there_is(self) -> bool:
        """Make what has come so far the answer; whether anything has."""
        if self.text.strip():
            self.keep([*self._exchange.replies, assistant_message(self.text)])
        return bool(self._exchange.replies)
