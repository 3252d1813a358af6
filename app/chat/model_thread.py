"""The one thread that loads a model and computes with it, while the main thread reads keys and draws.

There is one, and it never ends, because MLX (0.32) wants it so: a process that has computed in two threads, or in one
that has ended, crashes at its exit, and so may one whose thread is still computing then. Python (before 3.14) ends a
thread that wants to go on when the interpreter is leaving, so this one must be blocked for good by then.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from ..line.attachments import Kind

if TYPE_CHECKING:
    from gemma4_mlx.generation import ConversationCache
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor

T = TypeVar("T")
Item = TypeVar("Item")

# An interrupt may be lost, in a `__del__` or a callback from C; a second one must not fall into the tidying up after
# the first.
_SECONDS_BETWEEN_INTERRUPTS = 2.0
# From one call to the next; much longer than it takes, and too short to be noticed.
_SECONDS_TO_BLOCK = 0.02


class ModelThread:
    """Runs functions one after the other in a thread of its own. All methods are for the main thread."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._futures: list[Future[Any]] = []  # of what runs or waits, and perhaps of what is done
        self._lock = threading.Lock()
        self._interruptible = False  # a function is running; changed and asked only under the lock
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run `function` when its turn comes."""
        future: Future[T] = Future()
        self._futures = [*(f for f in self._futures if not f.done()), future]
        self._jobs.put((function, future))
        return future

    def run(self, function: Callable[[], T]) -> T:
        """Run `function` and wait for it. Raises what it raises, and KeyboardInterrupt as `stream` does."""
        return self.stream(lambda _: function(), lambda _: None)

    def stream(self, function: Callable[[Callable[[Item], None]], T], show: Callable[[Item], None]) -> T:
        """Run `function` and show what it hands out on the way.

        Args:
            function: is given a function to hand items out with.
            show: called in the main thread with every item, in order.

        Returns:
            What `function` returns.

        Raises:
            KeyboardInterrupt: Ctrl-C. `function` was interrupted too, and the thread is at rest unless Ctrl-C was
                pressed again in the meantime.
            Exception: whatever `function` or `show` raises; in the latter case `function` was interrupted.
        """
        items: SimpleQueue[tuple[Item] | None] = SimpleQueue()
        future = self.submit(lambda: function(lambda item: items.put((item,))))
        future.add_done_callback(lambda _: items.put(None))
        try:
            while (item := items.get()) is not None:
                show(*item)
        except BaseException:
            self._interrupt(future)
            raise
        return future.result()

    @property
    def busy(self) -> bool:
        """Whether something is running or waits."""
        return any(not future.done() for future in self._futures)

    def close(self) -> None:
        """Come to rest for good: drop what waits, interrupt what is running. Before the process ends."""
        for future in self._futures:
            future.cancel()
        for future in self._futures:
            self._interrupt(future)
        about_to_block = threading.Event()
        forever = threading.Event()

        def block() -> None:
            about_to_block.set()
            forever.wait()

        self._jobs.put((block, Future()))
        about_to_block.wait()
        time.sleep(_SECONDS_TO_BLOCK)

    def _interrupt(self, future: Future[Any]) -> None:
        """Do to the function that runs what Ctrl-C does to the main thread, and wait until `future` is done."""
        while not future.done():
            with self._lock:
                if self._interruptible:
                    thread = ctypes.c_ulong(self._thread.ident or 0)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(KeyboardInterrupt))
            wait([future], _SECONDS_BETWEEN_INTERRUPTS)

    def _work(self) -> None:
        while True:
            function, future = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                continue
            outcome = _Outcome()
            try:
                self._call(function, outcome)
                _take_interrupt()
            except KeyboardInterrupt as late:
                self._interruptible = False
                outcome.error = outcome.error or late
            if outcome.error is None:
                future.set_result(outcome.result)
            else:
                future.set_exception(outcome.error)
            del function, future, outcome  # and with them pictures, sounds and what a traceback holds

    def _call(self, function: Callable[[], Any], outcome: _Outcome) -> None:
        try:
            with self._lock:
                self._interruptible = True
            outcome.result = function()
        except BaseException as error:  # handed on to whoever waits for it
            outcome.error = error
        finally:
            with self._lock:
                self._interruptible = False


@dataclass
class _Outcome:
    result: Any = None
    error: BaseException | None = None


def _take_interrupt() -> None:
    """One that was sent and has not fallen yet does so at the next call of a function, which is this."""


class ThreadedModel:
    """A model that is loaded in its thread while a person types.

    Attributes:
        thread: where it is loaded and may be used.
        name: what it was asked for by.
        failure: why it cannot be loaded; None as long as nothing is known against it.
    """

    def __init__(self, thread: ModelThread, name: str, folder: Path) -> None:
        self.thread = thread
        self.name = name
        self.failure: Exception | None = None
        self._folder = folder
        self._model: Gemma4 | None = None
        self._processor: Processor | None = None
        self._cache: ConversationCache | None = None
        self._loading: Future[None] | None = None

    def begin(self) -> None:
        """Begin to load it, if that has not begun. Once a person can type: it takes half of the time until then."""
        if self._loading is None:
            self._loading = self.thread.submit(self._load)

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._loading is not None and self._loading.done() and self.failure is None

    def wait(self) -> None:
        """Until it can be used. In the main thread; raises as a call does, and KeyboardInterrupt."""
        self.begin()
        self.thread.run(self)

    def __call__(self) -> tuple[Gemma4, Processor]:
        """Model and processor. Only in the model's thread, and once loading has begun.

        Raises:
            Exception: why they cannot be loaded; `failure` as well.
        """
        if self.failure is not None:
            raise self.failure
        assert self._model is not None, "loading is the first thing the thread does with it"
        if self._processor is None:
            from gemma4_mlx.processing import Processor

            try:
                self._processor = Processor.from_folder(self._folder, self._model.config)
            except Exception as error:
                self.failure = error
                raise
        return self._model, self._processor

    @property
    def context(self) -> int:
        """Tokens it can read and write at most; 0 before it is loaded."""
        return 0 if self._model is None else self._model.config.text.max_position_embeddings

    def takes(self, kind: Kind) -> bool:
        """Whether it can be given attachments of a kind. Only once it is loaded."""
        assert self._model is not None, "asked before it was loaded"
        config = self._model.config
        return kind == "text" or (config.audio if kind == "audio" else config.vision) is not None

    def cache(self) -> ConversationCache:
        """What it remembers of the conversation. Only in the model's thread."""
        if self._cache is None:
            from gemma4_mlx.generation import ConversationCache

            self._cache = ConversationCache(self()[0])
        return self._cache

    def _load(self) -> None:
        try:
            import gemma4_mlx as g4
            from gemma4_mlx.checkpoint import load_model, read_config

            # The processor waits for the first message: reading a large tokenizer holds Python's lock for a second, in
            # which nobody could type.
            self._model = load_model(self._folder, read_config(self._folder))
            # Two tokens, of nothing: the weights are read and a step of decoding is compiled, and the first answer need
            # not wait for either.
            list(g4.generate_tokens(self._model, [0], max_tokens=2))
        except Exception as error:  # raised where the model is used
            self.failure = error
