"""The thread that owns the model, and everything that waits for it.

Answers are written together, a step at a time. Between two steps new ones begin, those that nobody waits for any more
leave, and a piece of a prompt is read. Sound is heard by jobs, which hand the thread on at every piece and token of
theirs: answers go on meanwhile, and live sound goes on while a recording is written down. One thread does it all,
because MLX (0.32) wants it so, see `chat.model_thread`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from gemma4_mlx.errors import Gemma4Error

from ..exit_codes import one_line
from ..terminal import note
from .refusals import Refusal

if TYPE_CHECKING:
    from gemma4_mlx.generation import Chunk, Generation
    from gemma4_mlx.generation.answers import Request
    from gemma4_mlx.generation.many_answers import Answer, ManyAnswers
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor

T = TypeVar("T")
_SECONDS_PER_ANSWER = 10


@dataclass(frozen=True)
class News:
    """What has become of an answer.

    Attributes:
        chunks: what has been written since the last news.
        result: all of it, once it is over.
        error: what went wrong; nothing comes after it.
    """

    chunks: list[Chunk]
    result: Generation | None = None
    error: Exception | None = None


@dataclass(eq=False)
class Ticket:
    """An answer as the event loop knows it. The first news come when its prompt has been found good.

    Attributes:
        news: come here; those with a result or an error are the last.
    """

    news: asyncio.Queue[News] = field(default_factory=asyncio.Queue)
    is_unwanted: bool = False
    answer: Answer | None = None

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self.is_unwanted = True
        if self.answer is not None:
            self.answer.stop()


@dataclass(eq=False)
class Job:
    """Work with the model that is no answer.

    Attributes:
        work: is given what it asks between its steps, which says whether to stop.
        is_short: it may come between the steps of one that is not.
        done: what it returned or raised.
    """

    work: Callable[[Callable[[], bool]], Any]
    is_short: bool
    done: Future[Any] = field(default_factory=Future)
    is_unwanted: bool = False

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self.is_unwanted = True


@dataclass
class Counts:
    """What has been done since the start."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    peak_memory_bytes: int = 0


class Engine:
    """Owns the model. All methods but `load` are for the event loop's thread.

    Args:
        parallel: most answers in work.
        waiting: most requests that wait beyond them.
        context: most tokens of a prompt and its answer; None: the model's.
        cache_bytes: most bytes of prompts that are remembered.

    Attributes:
        counts: what has been done.
        in_work: requests that have not ended.
    """

    def __init__(self, parallel: int, waiting: int, context: int | None, cache_bytes: int) -> None:
        self.counts = Counts()
        self.in_work = 0
        self._parallel = parallel
        self._waiting = waiting
        self._context = context
        self._cache_bytes = cache_bytes
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._tickets: dict[Answer, Ticket] = {}
        self._short: deque[Job] = deque()
        self._long: deque[Job] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._many: ManyAnswers
        self.model: Gemma4
        self.processor: Processor
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def load(self, load: Callable[[], tuple[Gemma4, Processor]]) -> None:
        """Load the model, in its thread. Raises what that raises."""
        done: Future[None] = Future()

        def order() -> None:
            try:
                from gemma4_mlx.generation.many_answers import ManyAnswers

                self.model, self.processor = load()
                self._many = ManyAnswers(
                    self.model, self.processor, self._parallel, self._cache_bytes, context=self._context
                )
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._orders.put(order)
        done.result()

    def answer(self, messages: Any, request: Request) -> Ticket:
        """Have a prompt answered. Raises Refusal if too many wait already."""
        self._admit()
        ticket = Ticket()
        self._orders.put(lambda: self._begin(ticket, messages, request))
        return ticket

    def job(self, work: Callable[[Callable[[], bool]], T], is_short: bool = False) -> tuple[Job, asyncio.Future[T]]:
        """Have a function run. Raises Refusal if too many wait already."""
        self._admit()
        job = Job(work, is_short)
        self._orders.put(lambda: (self._short if is_short else self._long).append(job))
        return job, asyncio.wrap_future(job.done)

    def _admit(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self.in_work >= self._parallel + self._waiting:
            wait = _SECONDS_PER_ANSWER * (1 + self._waiting // self._parallel)
            raise Refusal(
                f"{self.in_work} requests are in work: try again later",
                status=429,
                code="rate_limit_exceeded",
                retry_after=wait,
            )
        self.in_work += 1
        self.counts.requests += 1

    @property
    def context_length(self) -> int:
        """Most tokens of a prompt and its answer."""
        return min(self.model.context_length, self._context or self.model.context_length)

    @property
    def tokens_written(self) -> int:
        """Of all answers so far."""
        return self._many.tokens_written

    # What follows runs in the model's thread.

    def _work(self) -> None:
        self._orders.get()()  # loads the model
        while True:
            self._take_orders(wait=not self._short and not self._long and self._many.are_over)
            self._run_short()
            if self._long:
                self._run(self._long.popleft())
            self._step()

    def _take_orders(self, wait: bool) -> None:
        with suppress(Empty):
            if wait:
                self._orders.get()()
            while True:
                self._orders.get_nowait()()

    def _between(self, job: Job) -> bool:
        """Give the others their turn; whether the job is to stop."""
        self._take_orders(wait=False)
        if not job.is_short:
            self._run_short()
        self._step()
        return job.is_unwanted

    def _run_short(self) -> None:
        while self._short:
            self._run(self._short.popleft())

    def _run(self, job: Job) -> None:
        try:
            result = None if job.is_unwanted else job.work(lambda: self._between(job))
        except BaseException as error:
            self._tell(self._end_job, job, None, error)
        else:
            self._tell(self._end_job, job, result, None)

    def _begin(self, ticket: Ticket, messages: Any, request: Request) -> None:
        try:
            answer = self._many.begin(messages, request)
        except Exception as error:
            self._tell(self._news, ticket, News([], error=error))
            return
        ticket.answer = answer
        if ticket.is_unwanted:
            answer.stop()
        self._tickets[answer] = ticket
        self._tell(self._news, ticket, News([]))

    def _step(self) -> None:
        if self._many.are_over:
            return
        for answer in self._many.step():
            ticket = self._tickets[answer]
            if answer.is_over:
                del self._tickets[answer]
                self._tell(self._news, ticket, News(answer.take_chunks(), answer.result(), answer.error))
            elif chunks := answer.take_chunks():
                self._tell(self._news, ticket, News(chunks))

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function in the event loop's thread."""
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: nobody waits for anything
            self._loop.call_soon_threadsafe(function, *arguments)

    # These run in the event loop's thread again.

    def _note(self, error: BaseException | None) -> None:
        """What no client can mend is for whoever looks after the server."""
        if error is not None and not isinstance(error, Gemma4Error | ValueError | Refusal):
            note(f"error: {type(error).__name__}: {one_line(error)}")

    def _news(self, ticket: Ticket, news: News) -> None:
        self._note(news.error)
        if news.result is not None or news.error is not None:
            self.in_work -= 1
        if news.result is not None:
            stats = news.result.stats
            self.counts.prompt_tokens += stats.prompt_tokens
            self.counts.cached_tokens += stats.cached_tokens
            self.counts.peak_memory_bytes = stats.peak_memory_bytes
        ticket.news.put_nowait(news)

    def _end_job(self, job: Job, result: Any, error: BaseException | None) -> None:
        self.in_work -= 1
        self._note(error)
        if job.done.cancelled():
            return
        if error is not None:
            job.done.set_exception(error)
        else:
            job.done.set_result(result)
