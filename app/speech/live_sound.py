"""Sound that arrives by and by and is no microphone: a file played as if it were spoken now, or a pipe."""

from __future__ import annotations

import io
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Protocol

import numpy as np

from gemma4_mlx.log_mel import SAMPLE_RATE, FloatArray

_QUEUED_BLOCKS = 64
_LOOK_SECONDS = 0.05
_QUIET_SECONDS = 0.3
"""After so long without a byte nothing more comes from a recorder that was stopped."""
_READ = 1 << 16
_MOST_AFTER_THE_END = 1 << 18
"""Bytes: four times what a pipe holds. Whoever sends more was not stopped."""
_JOIN_SECONDS = 5.0


class LiveSound(Protocol):
    """What a live transcription listens to; a context manager. A microphone is one, too."""

    def __enter__(self) -> object: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def read(self, timeout: float) -> FloatArray | None:
        """What has come since the last call, float32 `[n]` at 16 kHz, after at most `timeout` seconds; None: the end.

        Raises:
            InputError, OSError: it broke; all that came before has been read.
        """

    def stop(self) -> FloatArray:
        """Listen no more; what had come and not been read."""

    def backlog(self) -> float:
        """Seconds of sound that have come and not been read."""

    def warnings(self) -> list[str]:
        """What somebody who is not being understood should know, worst first."""


class OpenPipe(io.RawIOBase):
    """A pipe as a stream of bytes that hands out what is there and never keeps a thread in a system call.

    A thread that waits inside `sys.stdin` when Python ends aborts the process, and one that waits for a full buffer
    has the last second of a recorder's sound in hand when the recorder is stopped.

    Args:
        file: its descriptor.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._ended_at: float | None = None
        self._left = _MOST_AFTER_THE_END

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes as soon as there are any; none at the end, or when all that had come is read."""
        while True:
            ended_at = self._ended_at
            if ended_at is not None and self._left <= 0:
                return b""
            ready, _, _ = select.select([self._file], [], [], _LOOK_SECONDS)
            if ready:
                content = os.read(self._file, size if size >= 0 else _READ)
                if ended_at is not None:
                    self._left -= len(content)
                return content
            if ended_at is not None and time.monotonic() - ended_at >= _QUIET_SECONDS:
                return b""

    def end(self) -> None:
        """Somebody has heard enough: what is in the pipe is the end of it.

        A recorder stopped by the same Ctrl-C may write its last buffer a moment later: that is waited for.
        """
        if self._ended_at is None:
            self._ended_at = time.monotonic()


class PlayedSound:
    """Blocks of sound at the speed at which they would be spoken, or as fast as they come.

    They are decoded in a thread of their own: a pipe may keep a reader waiting for ever, and Ctrl-C must not wait.

    Args:
        blocks: float32 `[n]` at 16 kHz, short ones; what they raise, `read` raises.
        speed: seconds of sound per second; None: as fast as it comes.
        pipe: where they come from, if that is a pipe: it is told when somebody has heard enough.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        blocks: Iterable[FloatArray],
        speed: float | None,
        pipe: OpenPipe | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipe = pipe
        self._speed = speed
        self._clock = clock
        self._queue: queue.Queue[FloatArray | Exception | None] = queue.Queue(_QUEUED_BLOCKS)
        self._next: FloatArray | Exception | None = np.zeros(0, np.float32)
        self._played = 0
        self._started: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._decode, args=(iter(blocks),), daemon=True)

    def __enter__(self) -> PlayedSound:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._pipe is not None:
            self._pipe.end()
        self._thread.join(_JOIN_SECONDS)

    def read(self, timeout: float) -> FloatArray | None:
        deadline = self._clock() + timeout
        if self._started is None:
            self._started = self._clock()
        blocks: list[FloatArray] = []
        while not blocks or self._is_due():
            if isinstance(self._next, Exception) or self._next is None:
                break
            if not self._is_due():
                if self._clock() >= deadline:
                    break
                time.sleep(0.005)
                continue
            if len(self._next):
                blocks.append(self._next)
                self._played += len(self._next)
            try:
                self._next = self._queue.get(timeout=0 if blocks else max(0.001, deadline - self._clock()))
            except queue.Empty:
                self._next = np.zeros(0, np.float32)
                break
            if self._speed is None and blocks:
                break
        if blocks:
            return np.concatenate(blocks)
        if isinstance(self._next, Exception):
            raise self._next
        return self._next if self._next is None else np.zeros(0, np.float32)

    def stop(self) -> FloatArray:
        blocks = [np.zeros(0, np.float32)]
        if self._pipe is not None:  # what of a file has not been played has not been said, but this has
            self._pipe.end()
            item = self._next
            deadline = self._clock() + _JOIN_SECONDS
            while isinstance(item, np.ndarray) and self._clock() < deadline:
                blocks.append(item)
                with suppress(queue.Empty):
                    item = self._queue.get(timeout=_LOOK_SECONDS)
                    continue
                item = blocks[0]
        self._stopped.set()
        return np.concatenate(blocks)

    def backlog(self) -> float:
        if self._started is None or self._speed is None:
            return 0.0
        return (self._clock() - self._started) * self._speed - self._played / SAMPLE_RATE

    def warnings(self) -> list[str]:
        return []

    def _is_due(self) -> bool:
        """Whether the next block has been said to its end by now."""
        if self._speed is None or not isinstance(self._next, np.ndarray):
            return True
        assert self._started is not None
        end = (self._played + len(self._next)) / SAMPLE_RATE
        return end <= (self._clock() - self._started) * self._speed

    def _decode(self, blocks: Iterable[FloatArray]) -> None:
        last: Exception | None = None
        try:
            for block in blocks:
                if not self._put(block):
                    return
        except Exception as error:  # whoever reads must not wait for ever for what broke here
            last = error
        self._put(last)

    def _put(self, item: FloatArray | Exception | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
