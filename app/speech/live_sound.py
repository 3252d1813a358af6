"""Sound that arrives by and by and is no microphone: a file played as if it were spoken now, or a pipe."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
_QUEUED_BLOCKS = 64


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


class PlayedSound:
    """Blocks of sound at the speed at which they would be spoken, or as fast as they come.

    They are decoded in a thread of their own: a pipe may keep a reader waiting for ever, and Ctrl-C must not wait.

    Args:
        blocks: float32 `[n]` at 16 kHz, short ones; what they raise, `read` raises.
        speed: seconds of sound per second; None: as fast as it comes.
        clock: seconds, monotonic.
    """

    def __init__(
        self, blocks: Iterable[FloatArray], speed: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
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
        self._stopped.set()
        return np.zeros(0, np.float32)  # what has not been played has not been said

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
