"""An answer while it is being written, and what it was in the end."""

from __future__ import annotations

import inspect
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import TracebackType
from typing import Any, Literal

import mlx.core as mx

from .answer_reader import AnswerReader
from .channels import Chunk
from .conversation_cache import ConversationCache
from .logprobs import Logprobs, TokenLogprob
from .loop_guard import LoopGuard
from .schema_class import AnswerForm
from .should_stop import StopAsked
from .stop_strings import StopStrings
from .tool_calls import ToolCall

FinishReason = Literal["stop", "length", "tool_call", "loop", "stopped"]


@dataclass(frozen=True)
class Stats:
    """How long it took and how much it was.

    Attributes:
        prompt_tokens: of the whole prompt, soft tokens included.
        cached_tokens: how many of them a `ConversationCache` held already; only the others were read.
        prompt_tps: prompt tokens read per second, up to the first new token.
        ttft_s: seconds from the call to the first new token, pictures and sound made ready included.
        generation_tokens: new tokens.
        generation_tps: new tokens per second, counted from the first one to the last; 0 for fewer than two.
        peak_memory_bytes: the most MLX has had in use since the process began (or `mx.reset_peak_memory()`).
    """

    prompt_tokens: int
    cached_tokens: int
    prompt_tps: float
    ttft_s: float
    generation_tokens: int
    generation_tps: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Generation:
    """What the model said.

    Attributes:
        text: the answer, without markers, thoughts and tool calls. Empty when the model never got beyond its thought.
        thought: the thought, empty if there was none. A thought that was never closed is all here.
        tool_calls: tools the model wants run, in order.
        tokens: every id the model produced, the one that ended its turn included.
        finish_reason: "stop": it ended its turn, or wrote a stop string; "tool_call": it ended its turn having asked
            for tools; "length": `max_tokens` or the context was reached; "loop": it repeated itself without end;
            "stopped": `should_stop` said yes, or the stream was closed.
        stats: durations and counts.
        unread_calls: what the model meant for calls of tools, but wrote so that it could not be read, or not in one way
            only. They are no `tool_calls`; their text is part of `text`.
        logprobs: one for each of `tokens`, if they were asked for; None if not.
        form: how the text of an answer with a schema is read, see `parsed`.
    """

    text: str
    thought: str
    tool_calls: list[ToolCall]
    tokens: list[int] = field(repr=False)
    finish_reason: FinishReason
    stats: Stats = field(repr=False)
    unread_calls: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] | None = field(default=None, repr=False)
    form: AnswerForm | None = field(default=None, repr=False, compare=False)

    @cached_property
    def parsed(self) -> Any:
        """The value of an answer with a `schema`: plain JSON, or an instance of the class. None without a schema.

        Raises:
            ValueError: the answer is not whole, because `max_tokens` or the context was reached, or it was stopped; or
                the class refuses it for a reason that its JSON schema does not tell.
        """
        if self.form is None:
            return None
        try:
            return self.form.read(self.text)
        except ValueError as error:
            if self.finish_reason == "stop":
                raise
            raise ValueError(
                f"the answer ended before its JSON did (finish_reason {self.finish_reason!r}): give it more max_tokens"
            ) from error

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        """The answer as a notebook shows it: formatted, JSON as code, calls by name and arguments."""
        if self.form is not None:
            return f"```json\n{self.text}\n```"
        calls = [json.dumps({call.name: call.arguments}, ensure_ascii=False) for call in self.tool_calls]
        return "\n\n".join([*([self.text] if self.text else []), *(f"```json\n{call}\n```" for call in calls)])

    def message(self, *, with_calls: bool = True) -> dict[str, Any]:
        """The answer as a message of the conversation, to go on with.

        Args:
            with_calls: every call then needs its result, a message with the call's id:
                `{"role": "tool", "tool_call_id": call.id, "content": result}`.
        """
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.thought:
            message["reasoning_content"] = self.thought
        if with_calls and self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        return message


class GenerationStream(Iterator[Chunk]):
    """The chunks of an answer being written; made by `stream_generate`.

    `result()` tells at any time what has come so far: after the last chunk, or after Ctrl-C. In a `with` statement, or
    by `close()` from any thread, an answer that nobody wants any more ends.

    It may go from thread to thread. The model is held only while a piece is computed: between two chunks others have
    their turns, and a stream that is never finished keeps nobody out.

    Args:
        tokens: the model's, as they come; none for who hands them in by `take`.
        reader: tells answer, thought and calls apart.
        prompt_tokens: how many the prompt has.
        cache: of the conversation, where there is one.
        stop_ids: tokens that end the model's turn.
        stop_strings: texts that end the answer.
        stop_asked: whether a caller asked for the end.
        logprobs: has noted how likely the tokens are; None: nobody asked.
        may_loop: whether repetition may be a loop just now.
        preparation_s: seconds that went by before the model had anything to do.
        form: how the answer is read, where it has a schema.

    Attributes:
        has_ended: whether the answer is over.
    """

    def __init__(
        self,
        tokens: Generator[int, None, None],
        reader: AnswerReader,
        *,
        prompt_tokens: int,
        cache: ConversationCache | None,
        stop_ids: frozenset[int],
        stop_strings: StopStrings,
        stop_asked: StopAsked,
        logprobs: Logprobs | None = None,
        may_loop: Callable[[], bool],
        preparation_s: float,
        form: AnswerForm | None = None,
    ) -> None:
        self._token_source = tokens
        self._stop_ids = stop_ids
        self._stop_strings = stop_strings
        self._stop_asked = stop_asked
        self._noted = logprobs
        self._logprobs: list[TokenLogprob] = []
        self._logprobs_given = 0  # with chunks
        self._reader = reader
        self._may_loop = may_loop
        self._loop_guard = LoopGuard()
        self._preparation_s = preparation_s
        self._form = form
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = 0
        self._cache = cache
        self._tokens: list[int] = []
        self._written: list[Chunk] = []
        self._started = self._first = self._last = 0.0
        self._finish_reason: FinishReason = "length"
        self.has_ended = False
        self._chunks = self._run()
        self._is_closed = False
        self._in_use = threading.RLock()

    def __next__(self) -> Chunk:
        with self._in_use:
            if self._is_closed:
                self._close_now()
                raise StopIteration
            chunk = next(self._chunks)
            self._written.append(chunk)
            return chunk

    def close(self) -> None:
        """End the answer here. What has come stays.

        Any thread may call it. It does not wait for another one that is just then computing a piece of the answer: that
        piece, a token or at most about 512 of the prompt, is the last one.
        """
        self._is_closed = self._stop_asked.said_yes = True
        if self._in_use.acquire(blocking=False):
            try:
                if (
                    inspect.getgeneratorstate(self._chunks) != inspect.GEN_RUNNING
                ):  # it runs if one of the caller's functions closes it
                    self._close_now()
            finally:
                self._in_use.release()

    def _close_now(self) -> None:
        self._chunks.close()
        if not self.has_ended:
            self._finish_reason, self.has_ended = "stopped", True

    def __enter__(self) -> GenerationStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def result(self) -> Generation:
        """All that has been written so far. Of an answer that is still being written `finish_reason` is "length"."""
        written = {kind: "".join(c.text for c in self._written if c.kind == kind) for kind in ("answer", "thought")}
        calls = self._tool_calls()
        return Generation(
            text=written["answer"],
            thought=written["thought"],
            tool_calls=calls,
            tokens=list(self._tokens),
            finish_reason="tool_call" if calls and self._reached_its_end() else self._finish_reason,
            stats=self._stats(),
            unread_calls=self._reader.unread_calls,
            logprobs=None if self._noted is None else list(self._logprobs),
            form=self._form,
        )

    def _reached_its_end(self) -> bool:
        return self._finish_reason == "stop" and not self._stop_strings.hit

    def _tool_calls(self) -> list[ToolCall]:
        return [chunk.tool_call for chunk in self._written if chunk.tool_call is not None]

    def _stats(self) -> Stats:
        prompt_s, generation_s = self._first - self._started, self._last - self._first
        count = len(self._tokens)
        return Stats(
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            prompt_tps=(self._prompt_tokens - self._cached_tokens) / prompt_s if prompt_s > 0 else 0.0,
            ttft_s=self._preparation_s + prompt_s,
            generation_tokens=count,
            generation_tps=(count - 1) / generation_s if generation_s > 0 else 0.0,
            peak_memory_bytes=mx.get_peak_memory(),
        )

    def take(self, token: int) -> list[Chunk]:
        """The chunks that a token completes. After one that ends the answer, `has_ended`."""
        self._count(token)
        if self._noted is not None:
            self._logprobs.append(self._noted.of_next(token))
        if token in self._stop_ids:
            self._finish_reason, self.has_ended = "stop", True
            return []
        chunks = self._before_stop_strings(self._reader.feed(token))
        if self._stop_strings.hit:
            self.has_ended = True
        elif self._may_loop() and self._loop_guard.feed(token):
            self._finish_reason, self.has_ended = "loop", True
        return self._with_logprobs(chunks)

    def end(self) -> list[Chunk]:
        """The last chunks, of what was held back. No token comes after them."""
        if not self.has_ended and self._stop_asked.said_yes:
            self._finish_reason = "stopped"
        self.has_ended, chunks = True, []
        if not self._stop_strings.hit and self._finish_reason != "stopped":  # half a call is none, and no text
            chunks = self._before_stop_strings(self._reader.finish())
        if self._stop_strings.hit:
            self._finish_reason = "stop"
            return self._with_logprobs(chunks)
        if text := self._stop_strings.flush():
            chunks.append(Chunk(text, "answer"))
        return self._with_logprobs(chunks)

    def keep(self, chunks: list[Chunk]) -> None:
        """Count chunks among what has been written, for who gets them by `take` and `end`."""
        self._written += chunks

    def start(self) -> None:
        """The model begins with the prompt now."""
        self._started = self._first = self._last = time.perf_counter()

    def reuse(self, tokens: int) -> None:
        """So many of the prompt's tokens were held already, for who reads the prompt."""
        self._cached_tokens = tokens

    def _run(self) -> Generator[Chunk, None, None]:
        self.start()
        with closing(self._token_source):  # an answer that ended early must not keep its cache in memory
            for token in self._token_source:
                yield from self.take(token)
                if self.has_ended:
                    break
        yield from self.end()

    def _count(self, token: int) -> None:
        self._tokens.append(token)
        self._last = time.perf_counter()
        if len(self._tokens) == 1:
            self._first = self._last
            if self._cache is not None:
                self._cached_tokens = self._cache.reused

    def _with_logprobs(self, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks, the first with the log probabilities that no chunk before had."""
        if not chunks or self._noted is None:
            return chunks
        given, self._logprobs_given = self._logprobs_given, len(self._logprobs)
        return [replace(chunks[0], logprobs=tuple(self._logprobs[given:])), *chunks[1:]]

    def _before_stop_strings(self, chunks: list[Chunk]) -> list[Chunk]:
        """What of the next chunks comes before a stop string, with what was held back of those before."""
        shown = []
        for chunk in chunks:
            is_answer = chunk.kind == "answer"
            # Stop strings do not reach across a thought or a call; what was held back comes first.
            if text := self._stop_strings.feed(chunk.text) if is_answer else self._stop_strings.flush():
                shown.append(Chunk(text, "answer"))
            if self._stop_strings.hit:
                break
            if not is_answer:
                shown.append(chunk)
        return shown
