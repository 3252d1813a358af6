"""A checkpoint on its way here: shown as progress, or in a process of its own while a person does something else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

from gemma4_mlx.byte_sizes import byte_size
from gemma4_mlx.errors import Gemma4Error

from ..awake import kept_awake
from ..exit_codes import one_line
from ..progress import Progress
from ..terminal import note

_PATIENCE = 3.0  # seconds a process has to tidy up before it is ended
_EVERY = 0.2  # seconds between two reports of progress


def fetch(name: str, on_progress: Callable[[str], None] | None = None, newest: bool = False) -> Path:
    """The folder of a model, fetched first if need be.

    Args:
        name: of a model.
        on_progress: is given how far it is, for people; None shows that on stderr.
        newest: ask the Hub whether it has a newer version than the one that is here.

    Raises:
        Gemma4Error: it cannot be found or fetched; with `newest`, also if the Hub cannot be asked.
    """
    from gemma4_mlx.checkpoint.hub import resolve, update

    bring = update if newest else resolve
    if on_progress is not None:
        return bring(name, on_progress=lambda done, total: on_progress(far(done, total)))
    with ExitStack() as awake, Progress(f"fetching {name}") as progress:
        started = time.monotonic()

        def show(done: int, total: int) -> None:
            if not progress.shown:
                note(f"fetching {name}: {byte_size(total)}, this once")
                awake.enter_context(kept_awake())
            progress.show(far(done, total) + left(done, total, time.monotonic() - started))

        return bring(name, on_progress=show)


def far(done: int, total: int) -> str:
    """How much of it is here: "1.2 of 5.5 GB"."""
    return f"{done / 1e9:.1f} of {total / 1e9:.1f} GB"


def left(done: int, total: int, seconds: float) -> str:
    """How fast it comes and how long it will take, once that can be said: ", 24 MB/s, 3 min left"."""
    if seconds < 2 or not done:
        return ""
    minutes = (total - done) / done * seconds / 60
    remaining = f"{minutes:.0f} min" if minutes >= 1.5 else f"{minutes * 60:.0f} s"
    return f", {done / seconds / 1e6:.0f} MB/s, {remaining} left"


class Fetch:
    """A model fetched by a process of its own, so that neither its work nor its end is in anybody's way."""

    def __init__(self, name: str) -> None:
        """Begin."""
        self.name = name
        self._state = f"fetching {name}"
        self._finished = threading.Event()
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(name, sender), daemon=True)
        self._process.start()
        sender.close()
        threading.Thread(target=self._listen, args=(receiver,), daemon=True).start()

    def state(self) -> str:
        """How far it is, in a few words."""
        return self._state

    @property
    def finished(self) -> bool:
        """It is here, or never will be; `state` says which."""
        return self._finished.is_set()

    def stop(self) -> None:
        """End it, if it has not ended. Files that are whole are kept: the next fetch needs only the others."""
        self._process.terminate()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _listen(self, receiver: Connection) -> None:
        try:
            while True:
                match receiver.recv():
                    case str() as progress:
                        self._state = f"fetching {self.name}: {progress}"
                    case Gemma4Error() as error:
                        self._state = f"{self.name} was not fetched: {one_line(error)}"
                        break
                    case None:
                        self._state = f"{self.name} is here: /model {self.name}"
                        break
        except (EOFError, OSError):
            self._state = f"fetching {self.name} was stopped; gemma4-mlx models pull {self.name} goes on with it"
        finally:
            receiver.close()
            self._finished.set()


def _work(name: str, sender: Connection) -> None:
    """The process's whole life: sends words of progress, then None or the error."""
    # Ctrl-C reaches every process of a terminal and means the answer there, not this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    last = 0.0

    def report(progress: str) -> None:
        nonlocal last
        if time.monotonic() - last > _EVERY:
            last = time.monotonic()
            sender.send(progress)

    try:
        fetch(name, report)
    except Gemma4Error as error:
        sender.send(error)
    else:
        sender.send(None)
