"""A model is used by one thread at a time, in the order in which they ask.

MLX (0.32) gives every thread streams of its own, and what one thread has left to be computed no other thread can
compute ("There is no Stream in current thread"); the one kind of stream that any thread may use must not be used by two
at once (`mx.new_thread_unsafe_stream`). So a model has a stream of that kind, and whoever computes with the model holds
it: caches and half-written answers can then go from thread to thread. While a graph is traced the weights are replaced
by stand-ins, so that building a graph takes a turn as well.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import mlx.core as mx

# Of models that have gone: MLX never gives a stream back, and on a processor each one is a thread.
_streams_to_reuse: defaultdict[mx.DeviceType, list[mx.Stream]] = defaultdict(list)

# That other threads than the main one have had a turn at: the exit waits for them.
_shared: weakref.WeakSet[Turns] = weakref.WeakSet()
_SECONDS_FOR_A_TURN = 5.0
_SECONDS_TO_END = 0.1

P = ParamSpec("P")
R = TypeVar("R")


class Turns:
    """The turns at one model; `with model.turns:` is one.

    Threads get theirs in the order in which they ask. Who has the turn may ask for it again and has it at once. What is
    begun within a turn is to be evaluated within one: afterwards another thread may be using the model's stream.

    A copy of a model has turns of its own.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[_Place] = deque()
        self._holder: int | None = None  # the thread
        self._depth = 0
        self._streams: dict[mx.DeviceType, mx.Stream] = {}
        self._on_stream: AbstractContextManager[Any] = nullcontext()

    def __deepcopy__(self, memo: object) -> Turns:
        return Turns()

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()

    def __enter__(self) -> None:
        self._enter(to_evaluate=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            try:
                self._on_stream.__exit__(kind, error, trace)
            finally:
                self._pass_on()

    def _enter(self, to_evaluate: bool) -> None:
        me = threading.get_ident()
        if self._holder != me:
            self._wait_for_it(me)
            try:
                if self not in _shared and threading.current_thread() is not threading.main_thread():
                    _shared.add(self)
                self._on_stream = mx.stream(self._stream()) if to_evaluate else nullcontext()
                self._on_stream.__enter__()
            except BaseException:
                self._pass_on()
                raise
        self._depth += 1

    def _wait_for_it(self, me: int, seconds: float = -1) -> None:
        place = _Place(me)
        with self._guard:
            if self._holder is None:
                self._holder = me
                return
            self._waiting.append(place)
        try:
            place.called.acquire(timeout=seconds)
        except BaseException:  # Ctrl-C: those behind must not wait for this one
            with self._guard:
                is_called = place not in self._waiting
                if not is_called:
                    self._waiting.remove(place)
            if is_called:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        self._depth = 0
        with self._guard:
            following = self._waiting.popleft() if self._waiting else None
            self._holder = None if following is None else following.thread
            if following is not None:
                following.called.release()

    def _stream(self) -> mx.Stream:
        """The model's stream on the device that the thread computes on."""
        kind = mx.default_device().type
        if kind not in self._streams:
            try:
                stream = _streams_to_reuse[kind].pop()
            except IndexError:
                stream = mx.new_thread_unsafe_stream(mx.default_device())
            weakref.finalize(self, _streams_to_reuse[kind].append, stream).atexit = False
            self._streams[kind] = stream
        return self._streams[kind]


class _Place:
    """A thread's in the queue. `called` can be acquired once it is its turn."""

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.called = threading.Lock()
        self.called.acquire()


@atexit.register
def _leave() -> None:
    """Let no thread compute, or tidy up after it has, while Python goes: MLX (0.32) would abort the process.

    A thread that ends takes Python's lock once more to free what it has compiled, and one that computes takes it when
    it is done. When Python is going it ends whoever asks for the lock, in the middle of C++ (MLX pull request 4110).
    """
    for turns in list(_shared):
        if turns._holder != threading.get_ident():
            turns._wait_for_it(threading.get_ident(), _SECONDS_FOR_A_TURN)  # the last turn: it is not passed on
    if _shared:
        time.sleep(_SECONDS_TO_END)


class _HasTurns(Protocol):
    turns: Turns


M = TypeVar("M", bound=_HasTurns)


def builds_in_a_turn(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """A method of a model that hands out what is still to be computed.

    It takes a turn to build the graph. Outside of a turn the graph is the calling thread's own, on its own stream, and
    may be evaluated there at any time.
    """

    @wraps(method)
    def in_a_turn(self: M, *arguments: P.args, **options: P.kwargs) -> R:
        self.turns._enter(to_evaluate=False)
        try:
            return method(self, *arguments, **options)
        finally:
            self.turns.__exit__(None, None, None)

    return in_a_turn
