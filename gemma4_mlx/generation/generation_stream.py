"""An answer while it is being written, and what it was in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

import mlx.core as mx

from .answer_reader import AnswerReader
from .channels import Chunk
from .conversation_cache import ConversationCache
from .loop_guard import LoopGuard
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
            "stopped": `should_stop` said yes.
        stats: durations and counts.
        unread_calls: what the model meant for calls of tools, but wrote so that it could not be read, or not in one way
            only. They are no `tool_calls`; their text is part of `text`.
    """

    text: str
    thought: str
    tool_calls: list[ToolCall]
    tokens: list[int]
    finish_reason: FinishReason
    stats: Stats
    unread_calls: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.text


class GenerationStream(Iterator[Chunk]):
    """The chunks of an answer being written; made by `stream_generate`.

    `result()` tells at any time what has come so far: after the last chunk, or after Ctrl-C. In a `with` statement, or
    by `close()`, an answer that nobody wants any more ends at once.

    Args:
        tokens: the model's, as they come; none for who hands them in by `take`.
        reader: tells answer, thought and calls apart.
        prompt_tokens: how many the prompt has.
        cache: of the conversation, where there is one.
        stop_ids: tokens that end the model's turn.
        stop_strings: texts that end the answer.
        stop_asked: whether a caller asked for the end.
        may_loop: whether repetition may be a loop just now.
        preparation_s: seconds that went by before the model had anything to do.

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
        may_loop: Callable[[], bool],
        preparation_s: float,
    ) -> None:
        self._token_source = tokens
        self._stop_ids = stop_ids
        self._stop_strings = stop_strings
        self._stop_asked = stop_asked
        self._reader = reader
        self._may_loop = may_loop
        self._loop_guard = LoopGuard()
        self._preparation_s = preparation_s
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = 0
        self._cache = cache
        self._tokens: list[int] = []
        self._written: list[Chunk] = []
        self._started = self._first = self._last = 0.0
        self._finish_reason: FinishReason = "length"
        self.has_ended = False
        self._chunks = self._run()

    def __next__(self) -> Chunk:
        chunk = next(self._chunks)
        self._written.append(chunk)
        return chunk

    def close(self) -> None:
        """End the answer here. What has come stays."""
        self._chunks.close()

    def __enter__(self) -> GenerationStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def result(self) -> Generation:
        """All that has been written so far. Of an unfinished answer the `finish_reason` is "length"."""
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
        if token in self._stop_ids:
            self._finish_reason, self.has_ended = "stop", True
            return []
        chunks = self._before_stop_strings(self._reader.feed(token))
        if self._stop_strings.hit:
            self.has_ended = True
        elif self._may_loop() and self._loop_guard.feed(token):
            self._finish_reason, self.has_ended = "loop", True
        return chunks

    def end(self) -> list[Chunk]:
        """The last chunks, of what was held back. No token comes after them."""
        if not self.has_ended and self._stop_asked.said_yes:
            self._finish_reason = "stopped"
        self.has_ended, chunks = True, []
        if not self._stop_strings.hit and self._finish_reason != "stopped":  # half a call is none, and no text
            chunks = self._before_stop_strings(self._reader.finish())
        if self._stop_strings.hit:
            self._finish_reason = "stop"
            return chunks
        if text := self._stop_strings.flush():
            chunks.append(Chunk(text, "answer"))
        return chunks

    def keep(self, chunks: list[Chunk]) -> None:
        """Count chunks among what has been written, for who gets them by `take` and `end`."""
        self._written += chunks

    def start(self) -> None:
        """The model begins with the prompt now."""
        self._started = self._first = self._last = time.perf_counter()

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
            self._cached_tokens = self._cache.reused if self._cache is not None else 0

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
