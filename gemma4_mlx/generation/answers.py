"""Messages in, words out: `generate` and `stream_generate`.

They join the processor, the token loop and what turns tokens into text, and decide when an answer is over. Nothing is
computed here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import mlx.core as mx

from ..model import Gemma4
from .answer_reader import AnswerReader
from .channels import Chunk
from .conversation_cache import ConversationCache
from .loop import generate_tokens
from .loop_guard import LoopGuard
from .loose_calls import declared_tools
from .schema import SchemaConstraint
from .stop_strings import StopStrings
from .stopping import StopAsked
from .thought_first import ThoughtFirst
from .tool_calls import ToolCall

if TYPE_CHECKING:
    from ..processing import Processor

FinishReason = Literal["stop", "length", "tool_call", "loop", "stopped"]

# Gemma 4's published sampling, for checkpoints that come without generation_config.json.
_PUBLISHED_SAMPLING = {"temperature": 1.0, "top_p": 0.95, "top_k": 64}
# Ends of the model's turn: it has said all, or it waits for a tool's result.
_END_OF_TURN = ("<turn|>", "<|tool_response>")


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


def generate(
    model: Gemma4,
    processor: Processor,
    messages: Any,
    *,
    max_tokens: int = 512,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    thinking: bool = False,
    tools: Sequence[Any] | None = None,
    schema: Mapping[str, Any] | str | None = None,
    stop: str | Sequence[str] | None = None,
    image_tokens: int = 280,
    cache: ConversationCache | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_prompt: Callable[[int, int], None] | None = None,
) -> Generation:
    """Answer `messages`.

    Args:
        model, processor: from `load`.
        messages: a string, or the Hugging Face chat list.
        max_tokens: upper limit of new tokens, the thought's included.
        temperature, top_p, top_k: None takes the checkpoint's `generation_config.json`, where that is silent 1.0, 0.95
            and 64. Temperature 0 always takes the most likely token; top_p 1 and top_k 0 switch these two off.
        seed: makes the answer repeatable; None: different every time.
        thinking: let the model think before it answers.
        tools: functions the model may call, as in the Hugging Face chat format.
        schema: a JSON schema (a dict, or JSON text; also as Pydantic and OpenAPI write them, and in OpenAI's
            `response_format`) that the answer follows: unless `max_tokens` cuts it short it parses and validates. A
            thought comes before it. Not together with `tools` or `stop`.
        stop: one or more strings that end the answer; they are not part of it, and not looked for in thoughts and
            tool calls.
        image_tokens: the most soft tokens a picture may take: 70, 140, 280, 560 or 1120.
        cache: what it holds of these messages' beginning, from earlier turns of a conversation, is not read again.
        should_stop: asked between pieces of the prompt and between tokens; once it says yes, the answer is what has
            come so far. It may be set by another thread.
        on_prompt: told how far the prompt has been read, before every piece of it: tokens read, tokens in all.

    Raises:
        ValueError: an argument out of its range.
        InputError: messages, a picture or sound the model cannot be given; `ContextLengthError` if there is too much.
    """
    stream = stream_generate(
        model,
        processor,
        messages,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        thinking=thinking,
        tools=tools,
        schema=schema,
        stop=stop,
        image_tokens=image_tokens,
        cache=cache,
        should_stop=should_stop,
        on_prompt=on_prompt,
    )
    for _ in stream:
        pass
    return stream.result()


def stream_generate(
    model: Gemma4,
    processor: Processor,
    messages: Any,
    *,
    max_tokens: int = 512,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    thinking: bool = False,
    tools: Sequence[Any] | None = None,
    schema: Mapping[str, Any] | str | None = None,
    stop: str | Sequence[str] | None = None,
    image_tokens: int = 280,
    cache: ConversationCache | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_prompt: Callable[[int, int], None] | None = None,
) -> GenerationStream:
    """Like `generate`, but the answer comes in chunks while it is being written.

    The chunks of each kind add up to `generate`'s `text`, `thought` and `tool_calls`. Arguments and errors are
    `generate`'s; errors come at the call.
    """
    # The processor is here, so this costs nothing; at the top it would make every model wait for all of that room.
    from ..processing import read_tools

    called = time.perf_counter()
    stop_asked = StopAsked(should_stop)
    stop_strings = StopStrings([stop] if isinstance(stop, str) else stop or ())
    inputs = processor(messages, thinking=thinking, tools=tools, image_tokens=image_tokens)
    prompt = cast(list[int], inputs.input_ids[0].tolist())
    stop_ids = end_of_turn_ids(processor)
    constraint = None
    if schema is not None:
        if tools or stop:
            raise ValueError("an answer with a schema has no room for tools or stop strings: leave them out")
        vocab_size = model.config.text.vocab_size
        answer = SchemaConstraint(schema, processor.tokenizer, vocab_size, stop_ids)
        constraint = ThoughtFirst(answer, processor.tokenizer, prompt, thinking, stop_ids, vocab_size)
    tokens = generate_tokens(
        model,
        inputs,
        max_tokens=max_tokens,
        seed=seed,
        stop_ids=stop_ids,
        cache=cache,
        constraint=constraint,
        should_stop=stop_asked,
        on_prompt=on_prompt,
        **sampling_settings(processor.generation_config, temperature, top_p, top_k),
    )
    return GenerationStream(
        AnswerReader(processor.tokenizer, prompt, declared_tools(read_tools(tools))),
        len(prompt),
        tokens,
        cache,
        stop_ids,
        stop_strings,
        stop_asked,
        # JSON repeats itself where the schema says so: a table of zeros is no loop.
        (lambda: True) if constraint is None else (lambda: not constraint.answer_begun),
        time.perf_counter() - called,
    )


def sampling_settings(
    generation_config: dict[str, Any], temperature: float | None, top_p: float | None, top_k: int | None
) -> dict[str, Any]:
    """temperature, top_p and top_k: those given, else the checkpoint's, else the published ones."""
    given = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    configured = {**_PUBLISHED_SAMPLING, **{k: v for k, v in generation_config.items() if v is not None}}
    if configured.get("do_sample") is False:
        configured["temperature"] = 0.0
    return {name: configured[name] if value is None else value for name, value in given.items()}


def end_of_turn_ids(processor: Processor) -> frozenset[int]:
    """Ids that end an answer: `generation_config.json`'s, the tokenizer's, and the chat format's own."""
    configured = processor.generation_config.get("eos_token_id") or []
    ids = set(configured if isinstance(configured, list) else [configured])
    ids.update(processor.tokenizer.eos_token_ids)
    ids.update(i for string in _END_OF_TURN if (i := processor.tokenizer.token_id(string)) is not None)
    return frozenset(ids)


class GenerationStream(Iterator[Chunk]):
    """The chunks of an answer being written; made by `stream_generate`.

    `result()` tells at any time what has come so far: after the last chunk, or after Ctrl-C.
    """

    def __init__(
        self,
        reader: AnswerReader,
        prompt_tokens: int,
        tokens: Generator[int, None, None],
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
        self._may_loop = may_loop  # whether repetition may be a loop just now
        self._loop_guard = LoopGuard()
        self._preparation_s = preparation_s
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = 0
        self._cache = cache
        self._tokens: list[int] = []
        self._written: list[Chunk] = []
        self._started = self._first = self._last = 0.0
        self._finish_reason: FinishReason = "length"
        self._chunks = self._run()

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def result(self) -> Generation:
        """All that has been written so far. Of an unfinished answer the `finish_reason` is "length"."""
        written = {kind: "".join(c.text for c in self._written if c.kind == kind) for kind in ("answer", "thought")}
        return Generation(
            text=written["answer"],
            thought=written["thought"],
            tool_calls=self._tool_calls(),
            tokens=list(self._tokens),
            finish_reason=self._finish_reason,
            stats=self._stats(),
            unread_calls=self._reader.unread_calls,
        )

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

    def _run(self) -> Iterator[Chunk]:
        with closing(self._token_source):  # an answer that ended early must not keep its cache in memory
            yield from self._until_the_end()
        if not self._stop_strings.hit and self._finish_reason != "stopped":  # half a call is none, and no text
            yield from self._show(self._reader.finish())
        if self._stop_strings.hit:
            self._finish_reason = "stop"
            return
        yield from self._show_answer(self._stop_strings.flush())
        if self._finish_reason == "stop" and self._tool_calls():
            self._finish_reason = "tool_call"

    def _until_the_end(self) -> Iterator[Chunk]:
        self._started = self._first = self._last = time.perf_counter()
        for token in self._token_source:
            self._tokens.append(token)
            self._last = time.perf_counter()
            if len(self._tokens) == 1:
                self._first = self._last
                self._cached_tokens = self._cache.reused if self._cache is not None else 0
            if token in self._stop_ids:
                self._finish_reason = "stop"
                return
            yield from self._show(self._reader.feed(token))
            if self._stop_strings.hit:
                return
            if self._may_loop() and self._loop_guard.feed(token):
                self._finish_reason = "loop"
                return
        if self._stop_asked.said_yes:
            self._finish_reason = "stopped"

    def _show(self, chunks: list[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if chunk.kind == "answer":
                yield from self._show_answer(self._stop_strings.feed(chunk.text))
                if self._stop_strings.hit:
                    return
            else:
                # Stop strings do not reach across a thought or a call; what was held back comes first.
                yield from self._show_answer(self._stop_strings.flush())
                self._written.append(chunk)
                yield chunk

    def _show_answer(self, text: str) -> Iterator[Chunk]:
        if text:
            chunk = Chunk(text, "answer")
            self._written.append(chunk)
            yield chunk
