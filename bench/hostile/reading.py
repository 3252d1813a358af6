"""One hostile file, read as `ask` and `transcribe` read it, in a process of its own: what came of it, what it took."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gemma4_mlx.app.line.attachments import open_attachment

import gemma4_mlx as g4
from gemma4_mlx.processing.audio import audio_duration, stream_audio
from gemma4_mlx.processing.images import resized
from gemma4_mlx.processing.video import load_video

from .files import Hostile

SECONDS = 20.0
"""Of processor time that reading may take."""
WAIT = 120.0
"""Seconds on the clock, for what waits and takes no processor time; other work on the machine must not reach it."""
MEMORY = 1.5e9
"""Bytes that the process may have at its peak."""

_LISTENED_SECONDS = 5.0
_MAKING_SECONDS = 300.0
_MOST_MEMORY = 6 << 30  # a file that does its worst must not take the machine


class Read(NamedTuple):
    """What came of a file.

    Attributes:
        said: "read", "refused: " and the line, or what should not be.
        seconds: of processor time.
        waited: seconds on the clock.
        memory: bytes at the peak.
    """

    said: str
    seconds: float
    waited: float
    memory: float

    @property
    def is_good(self) -> bool:
        """It ended in the medium or in one line, within the bounds."""
        ended = self.said.partition(":")[0] in ("read", "refused")
        return ended and self.seconds <= SECONDS and self.memory <= MEMORY

    def __str__(self) -> str:
        return f"{self.said} ({self.seconds:.1f} s, {self.waited:.1f} s on the clock, {self.memory / 1e6:.0f} MB)"


def tried(file: Hostile, place: Path, seed: int) -> Read:
    """Make a file in `place`, read it, and remove it."""
    path = place / file.name

    def make() -> str:
        path.write_bytes(file.make(random.Random(seed)))
        return "made"

    try:
        made = _in_a_child(make, _MAKING_SECONDS)
        if made.said != "made":
            return made._replace(said=f"not made: {made.said.removeprefix('not made: ')}")
        return _in_a_child(lambda: _outcome(path, file.kind), WAIT)
    finally:
        path.unlink(missing_ok=True)


def _read(path: Path, kind: str) -> None:
    """As the command line does: `ask -i`, `ask -a` and then `transcribe`, and a video that was dropped in a chat."""
    match kind:
        case "image":
            resized(open_attachment(path, "image").content)
        case "video":
            open_attachment(path, "video")
            load_video(path)
        case "audio":
            said = None
            try:
                open_attachment(path, "audio")
            except g4.Gemma4Error as error:
                said = error
            audio_duration(path)
            end = time.monotonic() + _LISTENED_SECONDS
            for _ in stream_audio(path):
                if time.monotonic() > end:
                    break
            if said is not None:
                raise said


def _outcome(path: Path, kind: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _read(path, kind)
        except g4.Gemma4Error as error:
            said = str(error)
            return f"refused: {said}" if said.isprintable() and len(said) < 600 else f"refused badly: {said!r}"
        except BaseException as error:
            return f"not ours: {error!r}"[:300]
    return "read"


def _in_a_child(work: Callable[[], str], limit: float) -> Read:
    """What `work` says in a process of its own, which is ended after `limit` seconds on the clock."""
    reading, writing = os.pipe()
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries speak there
        try:
            os.write(writing, work().encode(errors="replace"))
        except BaseException as error:
            os.write(writing, f"not made: {error!r}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        ends, _, _ = select.select([stream], [], [], limit)
        if not ends:
            os.kill(child, signal.SIGKILL)  # a wait in C listens to nothing else
        said = stream.read().decode()
    _, status, usage = os.wait4(child, 0)
    waited = time.monotonic() - begin
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    ended = f"crashed: status {status}" if ends else f"waited: ended after {limit:.0f} s"
    return Read(said or ended, usage.ru_utime + usage.ru_stime, waited, memory)
