"""Answers for who serves many at once: each begins when it is asked for, and may be given up between any two steps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ..errors import ContextLengthError
from ..model import Gemma4
from .answers import Prepared, Request, prepare, sampling_settings
from .batch import Batch
from .channels import Chunk
from .choices import make_choice
from .conversation_cache import ConversationCache, prompt_keys
from .conversations import Conversations
from .decode import Choose, Greedy
from .generation_stream import Generation, GenerationStream
from .loop import PromptReading, check_max_tokens
from .many_prompts import no_tokens

if TYPE_CHECKING:
    from ..processing import Processor


@dataclass(eq=False)
class Answer:
    """An answer that waits, is being written, or is over.

    Attributes:
        error: why there is no more of it; None: nothing went wrong.
        is_over: whether no more comes.
        prompt_tokens: of its prompt.
    """

    _prepared: Prepared
    _stream: GenerationStream
    _choose: Choose
    _limit: int
    _stopping: list[bool]
    prompt_tokens: int
    error: Exception | None = None
    is_over: bool = False
    _count: int = 0
    _new: list[Chunk] = field(default_factory=list)
    _reading: PromptReading | None = None
    _cache: ConversationCache | None = None
    _keys: np.ndarray | None = None

    def stop(self) -> None:
        """It is not wanted any more, and is over at the next step. May be called from any thread."""
        self._stopping[0] = True

    def take_chunks(self) -> list[Chunk]:
        """What has been written since this was asked last."""
        chunks, self._new = self._new, []
        return chunks

    def result(self) -> Generation:
        """All that has been written so far."""
        return self._stream.result()

    def _add(self, chunks: list[Chunk]) -> None:
        self._stream.keep(chunks)
        self._new += chunks

    def _take(self, token: int) -> None:
        self._count += 1
        self._add(self._stream.take(token))
        if self._stream.has_ended or self._count >= self._limit:
            self._end()

    def _end(self) -> None:
        if not self.is_over:
            self._prepared.stop_asked()  # so that the stream knows why
            self._add(self._stream.end())
            self.is_over, self._reading, self._cache = True, None, None

    def _fail(self, error: Exception) -> None:
        self.error = error
        self.is_over, self._reading, self._cache = True, None, None


class ManyAnswers:
    """Answers written together; all methods are for the one thread that computes.

    Each is the answer that its prompt gets alone, up to the order in which kernels sum. A prompt is read in pieces, one
    between two steps, those of several prompts in turn: answers under way go on meanwhile. Of a prompt that begins as
    one before it, only the rest is read.

    Args:
        model, processor: from `load`.
        at_once: most prompts and answers in work; others wait, in the order in which they came.
        cache_bytes: most bytes of prompts that are remembered.
        context: most tokens of a prompt and its answer together; None: as many as the model's context holds.

    Attributes:
        conversations: the prompts that are remembered.
        tokens_written: of all answers so far.
    """

    def __init__(
        self, model: Gemma4, processor: Processor, at_once: int, cache_bytes: int, context: int | None = None
    ) -> None:
        self._model = model
        self._processor = processor
        self._at_once = at_once
        self._context = min(model.context_length, context or model.context_length)
        self._batch = Batch(model)
        self._rows: list[Answer] = []
        self._reading: deque[Answer] = deque()
        self._waiting: deque[Answer] = deque()
        self.conversations = Conversations(model, cache_bytes)
        self.tokens_written = 0

    @property
    def are_over(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._rows or self._reading or self._waiting)

    def begin(self, messages: Any, request: Request) -> Answer:
        """Take a prompt in; `step` does the rest.

        Args:
            messages: as for `generate`.
            request: the other arguments of `generate`; `cache` and `should_stop` are not heeded.

        Raises:
            ValueError, InputError: as `generate`.
        """
        check_max_tokens(request.max_tokens)
        stopping = [False]
        request = replace(request, should_stop=lambda: stopping[0], cache=None)
        sampling = sampling_settings(self._processor.generation_config, request)
        make_choice(**sampling, seed=request.seed)  # before pictures are opened
        prepared = prepare(self._model, self._processor, messages, request)
        choose = make_choice(**sampling, seed=request.seed, constraint=prepared.constraint)
        length = prepared.inputs.input_ids.shape[1]
        if length > self._context:
            message = f"the prompt has {length:,} tokens, the context {self._context:,}: shorten it"
            raise ContextLengthError(message, length, self._context)
        answer = Answer(
            prepared,
            prepared.stream(no_tokens()),
            choose if isinstance(choose, Greedy) else _Guarded(choose),
            min(request.max_tokens, self._context - length),
            stopping,
            length,
        )
        answer._stream.start()
        self._waiting.append(answer)
        return answer

    def step(self) -> list[Answer]:
        """Read a piece of a prompt, if there is one to be read, and write a token of every answer.

        Returns:
            The answers of which there is something new, or that are over.
        """
        changed = self._without_stopped()
        while self._waiting and len(self._rows) + len(self._reading) < self._at_once:
            answer = self._waiting.popleft()
            if answer._limit > 0:
                self._reading.append(answer)
            else:
                answer._end()
                changed.append(answer)
        if self._reading:
            answer = self._reading.popleft()
            try:
                self._read_on(answer)
            except Exception as error:  # memory, most of all: the others go on
                answer._fail(error)
            if answer.is_over:
                changed.append(answer)
        if self._rows:
            self._write()
            changed += self._rows
            self._leave()
        return changed

    def _without_stopped(self) -> list[Answer]:
        """End those that are not wanted any more."""
        stopped = [a for a in (*self._waiting, *self._reading, *self._rows) if a._stopping[0]]
        for answer in stopped:
            answer._end()
        if stopped:
            self._waiting = deque(a for a in self._waiting if not a.is_over)
            self._reading = deque(a for a in self._reading if not a.is_over)
            self._leave()
        return stopped

    def _read_on(self, answer: Answer) -> None:
        if answer._reading is None:
            inputs = answer._prepared.inputs
            answer._keys = prompt_keys(inputs, self._model.config)
            answer._cache = self.conversations.find(answer._keys)
            answer._reading = PromptReading(self._model, answer._cache.begin(inputs))
            answer._stream.reuse(answer._cache.reused)
        reading, cache = answer._reading, answer._cache
        reading.go_on()
        if not reading.is_over:
            self._reading.append(answer)
            return
        assert cache is not None
        assert answer._keys is not None
        assert reading.logits is not None
        self._batch.join([reading.cache], [answer._choose], reading.logits)
        self._rows.append(answer)
        self.conversations.keep(cache, answer._keys)
        answer._reading = answer._cache = None

    def _write(self) -> None:
        try:
            tokens = self._batch.step()
        except Exception as error:
            for answer in self._rows:
                answer._fail(error)
            return
        self.tokens_written += len(tokens)
        for answer, token in zip(self._rows, tokens, strict=True):
            if isinstance(answer._choose, _Guarded) and answer._choose.error is not None:
                answer._fail(answer._choose.error)
            else:
                answer._take(token)

    def _leave(self) -> None:
        over = [number for number, answer in enumerate(self._rows) if answer.is_over]
        if not over:
            return
        for number in over:
            self._remember(number)
        self._rows = [answer for answer in self._rows if not answer.is_over]
        if self._rows:
            self._batch.leave(over)
        else:
            self._batch = Batch(self._model)  # also after a step that failed

    def _remember(self, row: int) -> None:
        """Hold a whole answer beside its prompt: the next one begins with both."""
        answer = self._rows[row]
        tokens = answer.result().tokens
        held = self._batch.lengths[row] == answer.prompt_tokens + len(tokens)
        if answer.error is None and held and answer._keys is not None and not answer._stopping[0]:
            self.conversations.go_on(answer._keys, lambda: self._batch.cache_of(row), tokens)


class _Guarded:
    """A choice of which an error ends its own answer only. It is kept, and a token taken that nobody sees.

    Attributes:
        error: what went wrong.
    """

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self.waits = choose.waits
        self.error: Exception | None = None

    def __call__(self, logits: mx.array) -> mx.array:
        if self.error is None:
            try:
                return self._choose(logits)
            except ValueError as error:
                self.error = error
        return mx.argmax(logits, axis=-1)
