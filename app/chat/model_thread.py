"""The one thread that loads a model and computes with it, while the main thread reads keys and draws.

A queue and a loop. Nothing breaks into what runs in it: an answer asks whether it is to stop, and a model that is being
loaded is waited for, or not.

There is one thread, and it never ends, because MLX (0.32) wants it so: a process that has computed in two threads, or
in one that has ended, crashes at its exit, and so may one whose thread is still computing then. Python (before 3.14)
ends a thread that wants to go on when the interpreter is leaving, so this one must be blocked for good by then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from gemma4_mlx.device_errors import device_errors
from gemma4_mlx.errors import DeviceError

from ..gpu import PREPARING, told_if_slow
from ..interrupts import Interrupts
from ..line.attachments import Kind

if TYPE_CHECKING:
    from gemma4_mlx.config import Config
    from gemma4_mlx.generation import ConversationCache
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor

T = TypeVar("T")
Item = TypeVar("Item")

_SECONDS_BEFORE_A_WORD = 0.2
"""Nothing has come for so long since Ctrl-C: a person is told that it will."""
_SECONDS_TO_REST = 2.0
# From one call to the next; much longer than it takes, and too short to be noticed.
_SECONDS_TO_BLOCK = 0.02


class ModelThread:
    """Runs functions one after the other in a thread of its own. All methods are for the main thread."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._last: Future[Any] | None = None
        self._closed = False
        self._resting = threading.Event()
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run `function` when its turn comes."""
        future: Future[T] = Future()
        self._last = future
        self._jobs.put((function, future))
        return future

    def run(self, function: Callable[[], T]) -> T:
        """Run `function` and wait for it. Raises what it raises.

        Ctrl-C (KeyboardInterrupt) ends the waiting, and not the function.
        """
        return self.submit(function).result()

    def stream(
        self,
        function: Callable[[Callable[[Item], None]], T],
        show: Callable[[Item], None],
        interrupts: Interrupts,
        on_stopping: Callable[[], None] = lambda: None,
    ) -> T:
        """Run `function` and show what it hands out on the way.

        Args:
            function: is given a function to hand items out with. It asks `interrupts` whether to stop.
            show: called in the main thread with every item, in order.
            interrupts: in whose body this is.
            on_stopping: called when it takes a moment to stop.

        Returns:
            What `function` returns.

        Raises:
            KeyboardInterrupt: Ctrl-C. The function has ended, unless it was pressed before the function asked, or
                again: then it goes on until it asks.
            Exception: whatever `function` or `show` raises; in the latter case `function` is stopped as well.
        """
        items: SimpleQueue[tuple[Item] | None] = SimpleQueue()
        future = self.submit(lambda: function(lambda item: items.put((item,))))
        future.add_done_callback(lambda _: items.put(None))
        told = False
        try:
            while True:
                try:
                    item = items.get(timeout=_SECONDS_BEFORE_A_WORD)
                except Empty:
                    if interrupts.count and not told:
                        told = True
                        on_stopping()
                    continue
                if item is None:
                    break
                show(*item)
        except BaseException:
            interrupts.count += 1
            raise
        result = future.result()
        if interrupts.count:
            raise KeyboardInterrupt
        return result

    @property
    def busy(self) -> bool:
        """Whether something is running or waits."""
        return self._last is not None and not self._last.done()

    def close(self) -> bool:
        """Come to rest for good, before the process ends: what waits is dropped.

        Returns:
            Whether it has; not if it is in the middle of something that takes long, such as loading. Then only
            `exit_codes.leave_at_once` is safe.
        """
        self._closed = True
        self._jobs.put((lambda: None, Future()))
        if not self._resting.wait(_SECONDS_TO_REST):
            return False
        time.sleep(_SECONDS_TO_BLOCK)
        return True

    def _work(self) -> None:
        while True:
            function, future = self._jobs.get()
            if self._closed:
                self._resting.set()
                threading.Event().wait()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except BaseException as error:  # handed on to whoever waits for it
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
            del function, future  # and with them pictures, sounds and what a traceback holds


class ThreadedModel:
    """A model that is loaded in its thread while a person types.

    If memory runs out over it, or the GPU fails, the next who waits for it has it loaded once more.

    Attributes:
        thread: where it is loaded and may be used.
        name: what it was asked for by.
        failure: why it can never be loaded; None as long as nothing is known against it.
        state: what it does until it is loaded.
        concern: what is to be said of it once it is loaded, one line; None: nothing, or it has been said.
    """

    def __init__(self, thread: ModelThread, name: str, folder: Path, instead_of: ThreadedModel | None = None) -> None:
        """
        Args:
            thread: where it will be loaded.
            name: what it was asked for by.
            folder: the checkpoint.
            instead_of: a model that leaves memory before the weights of this one are read: two need not fit.
        """
        self.thread = thread
        self.name = name
        self.failure: Exception | None = None
        self.state = "a moment"
        self.concern: str | None = None
        self._folder = folder
        self._instead_of = instead_of
        self._config: Config | None = None
        self._model: Gemma4 | None = None
        self._processor: Processor | None = None
        self._cache: ConversationCache | None = None
        self._begun = False
        self._failed_now: DeviceError | None = None

    def begin(self) -> None:
        """Begin to load it, if that has not begun. Once a person can type: it takes half of the time until then."""
        if not self._begun:
            self._begun, self._failed_now = True, None
            self.thread.submit(self._load)

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    def wait(self, tell: Callable[[str], None] = lambda state: None) -> None:
        """Until it can be used. In the main thread; raises as a call does. Ctrl-C ends the waiting, and not more.

        Args:
            tell: is told its `state` meanwhile, again and again.
        """
        self.begin()
        future = self.thread.submit(self)
        while wait([future], _SECONDS_BEFORE_A_WORD).not_done:
            tell(self.state)
        future.result()

    def __call__(self) -> tuple[Gemma4, Processor]:
        """Model and processor. Only in the model's thread.

        Raises:
            DeviceError: they could not be loaded this time.
            Exception: why they cannot be loaded; `failure` as well.
        """
        if self._model is None and self.failure is None and self._failed_now is None:
            self._load()  # not begun, or it has left memory for another, which was not taken after all
        if self.failure is not None:
            raise self.failure
        if self._failed_now is not None:
            error, self._failed_now = self._failed_now, None
            raise error
        assert self._model is not None
        if self._processor is None:
            from gemma4_mlx.processing import Processor

            try:
                with device_errors():
                    self._processor = Processor.from_folder(self._folder, self._model.config)
            except DeviceError:
                raise
            except Exception as error:
                self.failure = error
                raise
        return self._model, self._processor

    @property
    def context(self) -> int:
        """Tokens it can read and write at most; 0 before it is loaded."""
        return 0 if self._config is None else self._config.text.max_position_embeddings

    def takes(self, kind: Kind) -> bool:
        """Whether it can be given attachments of a kind. Only once it is loaded."""
        assert self._config is not None, "asked before it was loaded"
        return kind == "text" or (self._config.audio if kind == "audio" else self._config.vision) is not None

    def cache(self) -> ConversationCache:
        """What it remembers of the conversation. Only in the model's thread."""
        if self._cache is None:
            from gemma4_mlx.generation import ConversationCache

            self._cache = ConversationCache(self()[0])
        return self._cache

    def leave_memory(self) -> None:
        """Give up the weights; they are read again when the model is used again. In the model's thread."""
        self._model = self._processor = self._cache = None
        self._begun = False

    def _prepares(self) -> None:
        self.state = PREPARING

    def _load(self) -> None:
        if self._model is not None:
            return
        try:
            import gemma4_mlx as g4
            from gemma4_mlx.checkpoint import load_model, precision_concern, read_config
            from gemma4_mlx.model.weights import read_weights

            with device_errors():
                # The processor waits for the first message: reading a large tokenizer holds Python's lock for a second,
                # in which nobody could type.
                model = load_model(self._folder, read_config(self._folder))
                if self._instead_of is not None:
                    self._instead_of.leave_memory()
                    self._instead_of = None
                read_weights(model.language_model)
            # Two tokens, of nothing: a step of decoding is compiled, and the first answer need not wait for that. If it
            # does not succeed, the answer will tell.
            with suppress(DeviceError), told_if_slow(self._prepares):
                list(g4.generate_tokens(model, [0], max_tokens=2))
            self._config = model.config
            self.concern = precision_concern(model.language_model.norm.weight.dtype)
            self._model = model
        except DeviceError as error:
            self._failed_now, self._begun = error, False
        except Exception as error:  # raised where the model is used
            self.failure = error
