"""A conversation that remembers: `Chat`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..processing.attached import with_media
from ..processing.chat_file import in_memory, read_chat, write_chat
from .answers import stream_generate
from .conversation_cache import ConversationCache
from .tool_functions import Rounds, Tools

if TYPE_CHECKING:
    from ..model import Gemma4
    from ..processing import Processor
    from .generation_stream import Generation, GenerationStream
    from .tool_calls import ToolCall


class Chat:
    """A conversation with the model: it knows what was said, and reads of every question only what is new.

    A question that fails, is interrupted or is closed leaves the conversation as it was; an answer that `should_stop`
    ended counts, as far as it has come. One thread at a time asks.

    Args:
        model, processor: from `load`.
        system: instructions for the whole conversation.
        tools: functions the model may call, see `run_tools`.
        thinking: let the model think before it answers.
        may_run: asked before each call of a function, with its `name` and `arguments`; None: every call is run.

    Attributes:
        messages: what was said, as chat lists have it. May be edited between two questions: the next one is about what
            it holds then.
        thinking: as above; may be changed between two questions.

    Raises:
        ValueError: a tool is no function with a docstring and types.
    """

    def __init__(
        self,
        model: Gemma4,
        processor: Processor,
        system: str | None = None,
        tools: Sequence[Callable[..., Any]] | None = None,
        thinking: bool = False,
        *,
        may_run: Callable[[ToolCall], bool] | None = None,
    ) -> None:
        if system is not None and not isinstance(system, str):
            raise ValueError(f"system must be a text, not a {type(system).__name__}")
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self.thinking = thinking
        self._model = model
        self._processor = processor
        self._functions = Tools.of(tools) if tools else None
        self._may_run = may_run
        self._cache = ConversationCache(model)
        self._asked: Rounds | None = None

    def __repr__(self) -> str:
        return f"Chat({len(self.messages)} messages, {self._cache.tokens:,} tokens)"

    def ask(self, text: str, images: Iterable[Any] = (), audio: Iterable[Any] = (), **options: Any) -> Generation:
        """Say something, and get the answer.

        Args:
            text: what is said.
            images, audio: lists of pictures and sounds that it is about, as for `generate`. They are read at once, so
                that later questions can be about them whatever becomes of their files.
            options: further arguments of `generate`: max_tokens, temperature, schema, …

        Raises:
            ValueError: an argument out of its range.
            InputError: a picture or sound the model cannot be given; `ContextLengthError` if the conversation has
                become too long: take something out of `messages`.
        """
        stream = self.stream(text, images, audio, **options)
        for _ in stream:
            pass
        return stream.result()

    def stream(self, text: str, images: Iterable[Any] = (), audio: Iterable[Any] = (), **options: Any) -> Rounds:
        """Like `ask`, but the answer comes in chunks while it is being written.

        The question becomes part of the conversation with the last chunk. In a `with` statement, or by `close()`, an
        answer that nobody wants any more ends at once; so it does when the next question is asked.
        """
        if wrong := options.keys() & {"tools", "cache"}:
            raise ValueError(f"{min(wrong)} cannot be given with a question: a chat has its own, from its beginning")
        if self._asked is not None:
            self._asked.close()
        question = [{"role": "user", "content": text}]
        told = with_media(question, in_memory(images, "images"), in_memory(audio, "audio"))
        options = {"thinking": self.thinking, **options}
        if self._functions is not None:
            options["tools"] = self._functions.descriptions

        def begin(history: Any) -> GenerationStream:
            return stream_generate(self._model, self._processor, history, cache=self._cache, **options)

        def keep(history: list[Any], is_over: bool) -> None:
            if is_over:
                self.messages[:] = history

        self._asked = Rounds(begin, [*self.messages, *told], self._functions, self._may_run, keep)
        return self._asked

    def save(self, path: str | Path) -> None:
        """Write the conversation down, pictures and sound included; the file appears whole or not at all.

        It is JSON, and only its owner can read it. Tools are not in it.

        Raises:
            InputError: something in `messages` cannot be written down.
            OSError: the file cannot be written.
        """
        write_chat(Path(path), self.messages, self.thinking)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: Gemma4,
        processor: Processor,
        tools: Sequence[Callable[..., Any]] | None = None,
        *,
        may_run: Callable[[ToolCall], bool] | None = None,
    ) -> Chat:
        """A conversation that `save` wrote. The first question reads it whole.

        Args:
            path: the file.
            model, processor, tools, may_run: as for a new chat. Another model may go on with it.

        Raises:
            InputError: there is no such file, or it holds no chat.
        """
        messages, thinking = read_chat(Path(path))
        chat = cls(model, processor, tools=tools, thinking=thinking, may_run=may_run)
        chat.messages = messages
        return chat
