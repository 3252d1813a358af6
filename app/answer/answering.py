"""One answer on its way from the model to a person, and why it ended early."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gemma4_mlx.config import DEFAULT_IMAGE_TOKENS

from ..messages import Message
from ..terminal import note
from .answer_screen import AnswerScreen

if TYPE_CHECKING:
    from gemma4_mlx.generation import Chunk, ConversationCache, Generation
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor


_SECONDS_WITHOUT_A_WORD = 1.0


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; None leaves a choice to the checkpoint's generation_config."""

    max_tokens: int
    temperature: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Request:
    """What the model is to answer, and how.

    Attributes:
        messages: all of the conversation.
        tools: JSON descriptions of functions it may call.
        schema: a JSON schema that the answer follows.
        image_tokens: the most soft tokens a picture may take.
    """

    messages: list[Message]
    sampling: Sampling
    thinking: bool = False
    tools: Sequence[Any] | None = None
    schema: str | None = None
    image_tokens: int = DEFAULT_IMAGE_TOKENS


def generate(
    model: Gemma4,
    processor: Processor,
    request: Request,
    hand_out: Callable[[Chunk], None],
    cache: ConversationCache | None = None,
    *,
    should_stop: Callable[[], bool],
    on_prompt: Callable[[int, int], None] | None = None,
) -> Generation:
    """Answer a request; every chunk is handed out as it comes.

    Args:
        should_stop, on_prompt: as for `gemma4_mlx.generate`.

    Raises:
        InputError: something in the messages cannot be given to this model; `ContextLengthError` if it is too much.
        ValueError: the options do not go together.
    """
    import gemma4_mlx as g4

    chunks = g4.stream_generate(
        model,
        processor,
        request.messages,
        thinking=request.thinking,
        tools=request.tools,
        schema=request.schema,
        image_tokens=request.image_tokens,
        cache=cache,
        should_stop=should_stop,
        on_prompt=on_prompt,
        **asdict(request.sampling),
    )
    for chunk in chunks:
        hand_out(chunk)
    return chunks.result()


def prompt_progress(screen: AnswerScreen) -> Callable[[int, int], None]:
    """To be told how far a prompt has been read; a person who waits for longer than a moment sees it."""
    begun = time.monotonic()

    def tell(read: int, tokens: int) -> None:
        if time.monotonic() - begun >= _SECONDS_WITHOUT_A_WORD:
            screen.status(f"reading {read:,} of {tokens:,} tokens")

    return tell


def show(chunk: Chunk, screen: AnswerScreen) -> None:
    """Put a chunk on the screen. A tool call is shown by whoever runs it."""
    if chunk.kind == "answer":
        screen.answer(chunk.text)
    elif chunk.kind == "thought":
        screen.thought(chunk.text)


def say_why_it_ended(answer: Generation, max_tokens: int) -> None:
    """A note when an answer is not what the model would have said if left alone, or is nothing."""
    match answer.finish_reason:
        case "length" if len(answer.tokens) < max_tokens:
            note("note: cut because the model's context is full; begin anew, or ask with less in front")
        case "length":
            note(f"note: cut after {max_tokens} tokens; --max-tokens allows more")
        case "loop":
            note("note: stopped because the answer repeated itself; ask in other words, or with another --temperature")
        case "stop" if not answer.text.strip():
            note("note: the model gave no answer")
