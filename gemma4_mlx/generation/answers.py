"""Messages in, words out: `generate` and `stream_generate`.

They join the processor, the token loop and what turns tokens into text. Nothing is computed here.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from ..config import DEFAULT_IMAGE_TOKENS
from ..device_errors import device_errors
from ..model import Gemma4, ModelInputs
from ..processing.attached import with_media
from ..processing.tool_descriptions import read_tools
from .answer_reader import AnswerReader
from .choices import Constraint
from .conversation_cache import ConversationCache
from .forced_call import ForcedCall
from .generation_stream import Generation, GenerationStream
from .logprobs import Logprobs, check_logprobs
from .loop import generate_tokens
from .loose_calls import declared_tools
from .schema import SchemaConstraint
from .schema_class import AnswerForm, Schema
from .should_stop import StopAsked
from .stop_strings import StopStrings
from .thought_first import ThoughtFirst

if TYPE_CHECKING:
    from ..processing import Processor

P = ParamSpec("P")
R = TypeVar("R")

# Gemma 4's published sampling, for checkpoints that come without generation_config.json.
_PUBLISHED_SAMPLING = {"temperature": 1.0, "top_p": 0.95, "top_k": 64}


@dataclass(frozen=True)
class Request:
    """How an answer is to be made; the fields are the arguments of `generate`, which explains them.

    Two are for servers: `must_call` are names of tools of which one has to be called, `several_calls` whether more than
    one call may come then.
    """

    images: Iterable[Any] = ()
    audio: Iterable[Any] = ()
    max_tokens: int = 512
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    thinking: bool = False
    tools: Sequence[Any] | None = None
    schema: Schema | None = None
    stop: str | Sequence[str] | None = None
    image_tokens: int = DEFAULT_IMAGE_TOKENS
    cache: ConversationCache | None = None
    should_stop: Callable[[], bool] | None = None
    on_prompt: Callable[[int, int], None] | None = None
    logprobs: int | None = None
    must_call: Sequence[str] = ()
    several_calls: bool = True


def with_arguments_of(known: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Give a function that hands its arguments on the signature of the one it hands them to."""

    def give(function: Callable[..., R]) -> Callable[P, R]:
        returns = inspect.signature(function).return_annotation
        signature = inspect.signature(known).replace(return_annotation=returns)
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return give


def stream_generate(
    model: Gemma4,
    processor: Processor,
    messages: Any,
    *,
    images: Iterable[Any] = (),
    audio: Iterable[Any] = (),
    max_tokens: int = 512,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    thinking: bool = False,
    tools: Sequence[Any] | None = None,
    schema: Schema | None = None,
    stop: str | Sequence[str] | None = None,
    image_tokens: int = DEFAULT_IMAGE_TOKENS,
    cache: ConversationCache | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_prompt: Callable[[int, int], None] | None = None,
    logprobs: int | None = None,
) -> GenerationStream:
    """Like `generate`, but the answer comes in chunks while it is being written.

    The chunks of each kind add up to `generate`'s `text`, `thought` and `tool_calls`. Arguments and errors are
    `generate`'s; errors come at the call.
    """
    request = Request(
        images=images,
        audio=audio,
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
        logprobs=logprobs,
    )
    return answer(model, processor, messages, request)


@with_arguments_of(stream_generate)
def generate(*arguments: Any, **options: Any) -> Generation:
    """Answer `messages`.

    Args:
        model, processor: from `load`.
        messages: a string, or the Hugging Face chat list.
        images, audio: lists of pictures and sounds that the last user message is about, each what a message's part may
            have (see `Processor`); they come before its words.
        max_tokens: upper limit of new tokens, the thought's included.
        temperature, top_p, top_k: None takes the checkpoint's `generation_config.json`, where that is silent 1.0, 0.95
            and 64. Temperature 0 always takes the most likely token; top_p 1 and top_k 0 switch these two off.
        seed: makes the answer repeatable; None: different every time.
        thinking: let the model think before it answers.
        tools: what the model may call: Python functions with a docstring and a type for every parameter, or JSON
            descriptions in the form of OpenAI, MCP or Anthropic. Nothing is run: see `run_tools`, `Generation.message`.
        schema: a JSON schema (a dict, or JSON text; also as Pydantic and OpenAPI write them, and in OpenAI's
            `response_format`), or a pydantic class, that the answer follows: unless `max_tokens` cuts it short it
            parses and validates, and `Generation.parsed` is its value. An object has the keys that the schema names,
            and others only where it says so itself (`additionalProperties`; pydantic's `extra="allow"`). A thought
            comes before the answer. Not together with `tools` or `stop`.
        stop: one or more strings that end the answer; they are not part of it, and not looked for in thoughts and
            tool calls.
        image_tokens: the most soft tokens a picture may take: 70, 140, 280, 560 or 1120.
        cache: a `ConversationCache`. What it holds of these messages' beginning, from earlier turns of a conversation,
            is not read again.
        should_stop: asked between pieces of the prompt and between tokens; once it says yes, the answer is what has
            come so far. It may be set by another thread.
        on_prompt: told how far the prompt has been read, before every piece of it: tokens read, tokens in all.
        logprobs: tell of every token how likely it was, and of so many of the likeliest at its place, in
            `Generation.logprobs` and `Chunk.logprobs`; 0 for the token alone. They are the model's own: log_softmax of
            its logits, before temperature, `top_p`, `top_k` and what a schema forbids. None: nothing.

    Raises:
        ValueError: an argument out of its range.
        InputError: messages, a picture or sound the model cannot be given; `ContextLengthError` if there is too much.
        OutOfMemoryError: this machine has less memory than the prompt's keys and values take; or memory ran out.
        DeviceError: the GPU failed. What `cache` held is forgotten.
    """
    stream = stream_generate(*arguments, **options)
    for _ in stream:
        pass
    return stream.result()


def answer(model: Gemma4, processor: Processor, messages: Any, request: Request) -> GenerationStream:
    """Begin the answer to `messages`. Errors are `generate`'s."""
    prepared = prepare(model, processor, messages, request)
    tokens = generate_tokens(
        model,
        prepared.inputs,
        max_tokens=request.max_tokens,
        seed=request.seed,
        stop_ids=prepared.stop_ids,
        cache=request.cache,
        constraint=prepared.constraint,
        should_stop=prepared.stop_asked,
        on_prompt=request.on_prompt,
        logprobs=prepared.logprobs,
        **sampling_settings(processor.generation_config, request),
    )
    return prepared.stream(tokens)


@dataclass(frozen=True)
class Prepared:
    """Everything about an answer but its tokens.

    Attributes:
        inputs: the prompt.
        stop_ids: tokens that end the answer.
        constraint: what its schema allows; None: everything.
        stop_asked: the caller's `should_stop`.
        logprobs: notes how likely tokens are; None: nobody asked.
        stream: the answer, once it is known where its tokens come from.
    """

    inputs: ModelInputs
    stop_ids: frozenset[int]
    constraint: Constraint | None
    stop_asked: StopAsked
    logprobs: Logprobs | None
    stream: Callable[[Generator[int, None, None]], GenerationStream]


@device_errors()
def prepare(model: Gemma4, processor: Processor, messages: Any, request: Request) -> Prepared:
    """Make ready what an answer needs. Errors are `generate`'s."""
    called = time.perf_counter()
    stop_asked = StopAsked(request.should_stop)
    check_logprobs(request.logprobs, model.config.text.vocab_size)
    if request.cache is not None and not isinstance(request.cache, ConversationCache):
        raise ValueError(
            f"cache must be a ConversationCache, not {type(request.cache).__name__}: make it with "
            "g4.ConversationCache(model); what make_cache() gives is for generate_tokens and the model itself"
        )
    stop_strings = StopStrings(() if request.stop is None else request.stop)
    messages = with_media(messages, request.images, request.audio)
    inputs = processor(messages, thinking=request.thinking, tools=request.tools, image_tokens=request.image_tokens)
    prompt = cast(list[int], inputs.input_ids[0].tolist())
    stop_ids = end_of_turn_ids(processor)
    constraint, form = None, None
    if request.schema is not None:
        form = AnswerForm.of(request.schema)
        if request.tools or request.stop:
            raise ValueError("an answer with a schema has no room for tools or stop strings: leave them out")
        vocab_size = model.config.text.vocab_size
        of_schema = SchemaConstraint(form.schema, processor.tokenizer, vocab_size, stop_ids)
        constraint = ThoughtFirst(of_schema, processor.tokenizer, prompt, request.thinking, stop_ids, vocab_size)
    logprobs = None
    if request.logprobs is not None:
        logprobs = Logprobs(int(request.logprobs), lambda token: processor.tokenizer.decode([token]))
    if request.must_call:
        schemas = declared_tools(read_tools(request.tools))
        vocab_size = model.config.text.vocab_size
        call = ForcedCall(
            {name: schemas[name] for name in request.must_call},
            request.several_calls,
            processor.tokenizer,
            vocab_size,
            stop_ids,
        )
        constraint = ThoughtFirst(call, processor.tokenizer, prompt, request.thinking, stop_ids, vocab_size)
    stream = partial(
        GenerationStream,
        reader=AnswerReader(processor.tokenizer, prompt, declared_tools(read_tools(request.tools))),
        prompt_tokens=len(prompt),
        cache=request.cache,
        stop_ids=stop_ids,
        stop_strings=stop_strings,
        stop_asked=stop_asked,
        logprobs=logprobs,
        # JSON repeats itself where the schema says so: a table of zeros is no loop.
        may_loop=lambda: constraint is None or not constraint.answer_begun,
        preparation_s=time.perf_counter() - called,
        form=form,
    )
    return Prepared(inputs, stop_ids, constraint, stop_asked, logprobs, stream)


def sampling_settings(generation_config: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """temperature, top_p and top_k: those given, else the checkpoint's, else the published ones."""
    given = {name: getattr(request, name) for name in _PUBLISHED_SAMPLING}
    configured = {**_PUBLISHED_SAMPLING, **{k: v for k, v in generation_config.items() if v is not None}}
    if configured.get("do_sample") is False:
        configured["temperature"] = 0.0
    return {name: configured[name] if value is None else value for name, value in given.items()}


def end_of_turn_ids(processor: Processor) -> frozenset[int]:
    """Ids that end an answer: `generation_config.json`'s, the tokenizer's, and the chat format's own."""
    return processor.end_of_turn_ids
