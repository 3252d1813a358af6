"""What C libraries print of themselves: kept off the screen while PortAudio is at work.

When a sound server dies, ALSA and PortAudio write dozens of lines to descriptor 2, from threads of their own, over
whatever is being drawn. What this program says goes to the same place, so it gets a descriptor of its own first.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_STDERR = 2

_lock = Lock()
_users = 0
_real: int | None = None


def separate_stderr() -> None:
    """From here on `sys.stderr` is where it was, but no longer by descriptor 2, which C libraries write to."""
    stream = sys.stderr
    if isinstance(stream, io.TextIOWrapper) and stream.fileno() == _STDERR:
        sys.stderr = open(  # noqa: SIM115 (open to the end)
            os.dup(_STDERR), "w", buffering=1, encoding=stream.encoding, errors=stream.errors
        )


@contextmanager
def c_libraries_silent() -> Iterator[None]:
    """In the body nothing that writes to descriptor 2 is seen; where `sys.stderr` does so itself, all is as ever."""
    silence()
    try:
        yield
    finally:
        end_silence()


def silence() -> None:
    """Begin to drop what is written to descriptor 2, until `end_silence` was called as often."""
    global _users, _real
    with _lock:
        _users += 1
        if _users == 1 and sys.stderr is not None and sys.stderr.fileno() != _STDERR:
            _real = os.dup(_STDERR)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, _STDERR)
            os.close(nowhere)


def end_silence() -> None:
    """One user less."""
    global _users, _real
    with _lock:
        _users -= 1
        if _users == 0 and _real is not None:
            os.dup2(_real, _STDERR)
            os.close(_real)
            _real = None
