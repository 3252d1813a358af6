"""Keeps a Mac from falling asleep while a long job runs: nobody types during hours of transcription."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def kept_awake() -> Iterator[None]:
    """In the body the machine does not sleep for being idle; the display may. Nothing happens where it is no Mac.

    `caffeinate -w` (macOS) ends with this process as well, however that ends.
    """
    command = shutil.which("caffeinate")
    if command is None:
        yield
        return
    caffeinate = None
    with suppress(OSError):  # a machine that may sleep is no reason to do nothing
        caffeinate = subprocess.Popen(
            [command, "-i", "-w", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        yield
    finally:
        if caffeinate is not None:
            caffeinate.terminate()
            caffeinate.wait()
