"""Many prompts, answered together: `batch_generate`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import DEFAULT_IMAGE_TOKENS
from ..device_errors import device_errors
from ..model import Gemma4
from .answers import Prepared, Request, prepare, sampling_settings
from .batch import Batch
from .choices import make_choice
from .decode import Choose
from .generation_stream import Generation, GenerationStream
from .loop import check_max_tokens, read_prompt
from .should_stop import StopAsked

if TYPE_CHECKING:
    from ..processing import Processor

# As many as mlx-lm takes at a time. A step for 32 rows costs little more than one for 16.
_AT_ONCE = 32
# When rows leave, the caches of the others are written anew, and a step of another size is traced.
_LEAVE_TOGETHER = 8


@device_errors()
def batch_generate(
    model: Gemma4,
    processor: Processor,
    prompts: Sequence[Any],
    *,
    max_tokens: int = 512,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    thinking: bool = False,
    tools: Sequence[Any] | None = None,
    stop: str | Sequence[str] | None = None,
    image_tokens: int = DEFAULT_IMAGE_TOKENS,
    on_done: Callable[[int, Generation], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Generation]:
    """Answer many prompts, several at a time: what `generate` answers to each, in the order of the prompts.

    The model's weights are read once a step for all prompts in work. An answer that ends makes room for the next
    prompt. At temperature 0, and with a seed, each answer is the one that its prompt gets alone, up to the order in
    which kernels sum.

    Args:
        model, processor: from `load`.
        prompts: of any length and kind, pictures and sound too: each what `generate` takes as `messages`.
        max_tokens, temperature, top_p, top_k, seed, thinking, tools, stop, image_tokens: as for `generate`, for each.
        on_done: is given the place of a prompt and its answer as soon as it is there; the shorter ones come first.
        should_stop: asked at every step; once it says yes, answers are what has come so far, and empty for prompts that
            were not begun. Their `finish_reason` is "stopped".

    Raises:
        ValueError: an argument out of its range.
        InputError: as `generate`, for any of the prompts; it is raised before anything is answered, but for pictures
            and sound, which are opened when it is their prompt's turn.
        OutOfMemoryError, DeviceError: as `generate`. Answers that were there before have been given to `on_done`.
    """
    check_max_tokens(max_tokens)
    stop_asked = StopAsked(should_stop)
    request = Request(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        thinking=thinking,
        tools=tools,
        stop=stop,
        image_tokens=image_tokens,
        should_stop=stop_asked,
    )
    for prompt in prompts:
        processor.render(prompt, thinking=thinking, tools=tools)
    sampling = sampling_settings(processor.generation_config, request)
    make_choice(**sampling, seed=seed)
    answers: list[Generation | None] = [None] * len(prompts)

    def done(row: _Row) -> None:
        row.stream.keep(row.stream.end())
        answers[row.place] = row.stream.result()
        if on_done is not None:
            on_done(row.place, row.stream.result())

    batch, rows = Batch(model), list[_Row]()
    waiting = deque(enumerate(prompts))
    while waiting or rows:
        while waiting and len(rows) < _AT_ONCE:
            place, prompt = waiting.popleft()
            prepared = prepare(model, processor, prompt, request)
            row = _Row(place, prepared, prepared.stream(no_tokens()))
            row.limit = min(max_tokens, model.context_length - prepared.inputs.input_ids.shape[1])
            row.stream.start()
            if not _joins(batch, model, row, make_choice(**sampling, seed=seed)):
                done(row)
                continue
            rows.append(row)
        if stop_asked():
            for row in rows:
                row.is_stopped = row.prepared.stop_asked()
        else:
            for row, token in zip(rows, batch.step(), strict=True):
                if not row.is_over:
                    row.take(token)
                    if row.is_over:
                        done(row)
        for row in rows:
            if row.is_stopped and not row.stream.has_ended:
                done(row)
        ended = [number for number, row in enumerate(rows) if row.is_over]
        if len(ended) >= min(_LEAVE_TOGETHER, (len(rows) + 1) // 2):
            batch.leave(ended)
            rows = [row for row in rows if not row.is_over]
    return [answer for answer in answers if answer is not None]


@dataclass
class _Row:
    """An answer in work.

    Attributes:
        place: its prompt's among all.
        prepared: its prompt.
        stream: gathers it.
        limit: most tokens of it.
        count: how many have come.
        is_stopped: whether it was asked to end.
    """

    place: int
    prepared: Prepared
    stream: GenerationStream
    limit: int = 0
    count: int = 0
    is_stopped: bool = False

    def take(self, token: int) -> None:
        self.count += 1
        self.stream.keep(self.stream.take(token))

    @property
    def is_over(self) -> bool:
        return self.stream.has_ended or self.is_stopped or self.count >= self.limit


def _joins(batch: Batch, model: Gemma4, row: _Row, choose: Choose) -> bool:
    """Read a prompt and let its answer join; False if there is no room for one, or it was stopped."""
    if row.limit == 0:
        return False
    cache = model.make_cache()
    logits = read_prompt(model, row.prepared.inputs, cache, row.prepared.stop_asked)
    if logits is None:
        return False
    batch.join([cache], [choose], logits)
    return True


def no_tokens() -> Generator[int, None, None]:
    """An answer's tokens are handed in as they come."""
    yield from ()
