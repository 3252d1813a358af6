"""A model is used by one thread at a time, in the order in which they ask.

MLX (0.32) gives every thread streams of its own, and what one thread has left to be computed no other thread can
compute ("There is no Stream in current thread"); the one kind of stream that any thread may use must not be used by two
at once (`mx.new_thread_unsafe_stream`). So a model has a stream of that kind, and whoever computes with the model holds
it: caches and half-written answers can then go from thread to thread. While a graph is traced the weights are replaced
by stand-ins, so that building a graph takes a turn as well.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from types import FrameType, TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import mlx.core as mx

# Of models that have gone: MLX never gives a stream back, and on a processor each one is a thread.
_streams_to_reuse: defaultdict[mx.DeviceType, list[mx.Stream]] = defaultdict(list)

# That other threads than the main one have had a turn at: the exit waits for them.
_shared: weakref.WeakSet[Turns] = weakref.WeakSet()
_SECONDS_FOR_A_TURN = 5.0
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_END = 0.1

P = ParamSpec("P")
R = TypeVar("R")


class Turns:
    """The turns at one model; `with model.turns:` is one.

    Threads get theirs in the order in which they ask. Who has the turn may ask for it again and has it at once. What is
    begun within a turn is to be evaluated within one: afterwards another thread may be using the model's stream.

    Ctrl-C may strike between the end of a `with` and its giving back of the turn. So a turn is known by the function
    that took it: once that has returned, the turn is over, whoever asks next.

    A copy of a model has turns of its own.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[_Place] = deque()
        self._holder: _Holder | None = None
        self._depth = 0
        self._streams: dict[mx.DeviceType, mx.Stream] = {}
        self._on_stream: AbstractContextManager[Any] = nullcontext()

    def __deepcopy__(self, memo: object) -> Turns:
        return Turns()

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()

    def __enter__(self) -> None:
        self._enter(sys._getframe(1), to_evaluate=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            try:
                self._on_stream.__exit__(kind, error, trace)
            finally:
                self._pass_on()

    def _enter(self, frame: FrameType | None, to_evaluate: bool) -> None:
        me, holder = _Holder(threading.get_ident(), frame), self._holder
        is_mine = holder is not None and holder.thread == me.thread
        if holder is None or not is_mine or holder.is_gone():
            if is_mine:
                self._take_over(me)
            else:
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

    def _take_over(self, me: _Holder) -> None:
        """After a turn of which nobody knows any more."""
        self._holder, self._depth = me, 0

    def _wait_for_it(self, me: _Holder, seconds: float = float("inf")) -> None:
        place = _Place(me)
        with self._guard:
            if self._holder is None:
                self._take_over(me)
                return
            self._waiting.append(place)
        end = time.monotonic() + seconds
        try:
            while not place.called.acquire(timeout=_SECONDS_BETWEEN_LOOKS):
                with self._guard:
                    if self._waiting[0] is place and self._holder is not None and self._holder.is_gone():
                        self._waiting.popleft()
                        self._take_over(me)
                        return
                    if time.monotonic() > end:
                        self._waiting.remove(place)
                        return
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
            self._holder = None if following is None else following.holder
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


class _Holder:
    """Who has the turn, or waits for it.

    Args:
        thread: its identifier.
        frame: of the function that takes the turn. What a library for `with` does is not that function.
    """

    def __init__(self, thread: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_globals.get("__name__") == "contextlib":
            frame = frame.f_back
        self.thread = thread
        self._frame = frame

    def is_gone(self) -> bool:
        """Whether the function has returned, or its thread has ended."""
        frame = sys._current_frames().get(self.thread)
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is None


class _Place:
    """A thread's in the queue. `called` can be acquired once it is its turn."""

    def __init__(self, holder: _Holder) -> None:
        self.holder = holder
        self.called = threading.Lock()
        self.called.acquire()


@atexit.register
def _leave() -> None:
    """Let no thread compute, or tidy up after it has, while Python goes: MLX (0.32) would abort the process.

    A thread that ends takes Python's lock once more to free what it has compiled, and one that computes takes it when
    it is done. When Python is going it ends whoever asks for the lock, in the middle of C++ (MLX pull request 4110).
    """
    me = _Holder(threading.get_ident(), sys._getframe())
    for turns in list(_shared):
        holder = turns._holder
        if holder is None or holder.thread != me.thread:
            turns._wait_for_it(me, _SECONDS_FOR_A_TURN)  # the last turn: it is not passed on
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
        self.turns._enter(sys._getframe(), to_evaluate=False)
        try:
            return method(self, *arguments, **options)
        finally:
            self.turns.__exit__(None, None, None)

    return in_a_turn
