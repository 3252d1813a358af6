"""What hostile pictures, sounds and videos do: 500 made from a seed, each read as `ask` and `transcribe` read it.

    python bench/hostile_media.py [COUNT] [NAME…]

Each is made in one process and read in another. Reading must take less than 20 seconds of processor time and 1.5 GB,
and must end with the medium or with one line that says what is wrong. Sound that goes on and on is listened to for
five seconds: it comes in pieces, and who hears it can stop. Prints a count of each outcome, and every outcome that
should not be; the exit status is 1 if there is one.
"""

from __future__ import annotations

import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from gemma4_mlx.app.line.attachments import open_attachment
from hostile_files import Hostile, hostile_files

import gemma4_mlx as g4
from gemma4_mlx.processing.audio import audio_duration, stream_audio
from gemma4_mlx.processing.images import resized
from gemma4_mlx.processing.video import load_video

SECONDS, PEAK = 20.0, 1.5e9
_LISTENED_SECONDS = 5.0
_MOST_MEMORY = 6 << 30  # a file that does its worst must not take the machine


def read(path: Path, kind: str) -> None:
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


def outcome(path: Path, kind: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(path, kind)
        except g4.Gemma4Error as error:
            said = str(error)
            return f"refused: {said}" if said.isprintable() and len(said) < 600 else f"refused badly: {said!r}"
        except BaseException as error:
            return f"not ours: {error!r}"[:300]
    return "read"


def in_a_child(work: Callable[[], str]) -> tuple[str, float, float]:
    """What `work` says in a process of its own, the processor time it took, and its peak memory in bytes."""
    reading, writing = os.pipe()
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
    with os.fdopen(reading) as stream:
        said = stream.read()
    _, status, usage = os.wait4(child, 0)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return said or f"crashed (status {status})", usage.ru_utime + usage.ru_stime, peak


def tried(file: Hostile, place: Path, seed: int) -> tuple[str, float, float]:
    path = place / file.name

    def make() -> str:
        path.write_bytes(file.make(random.Random(seed)))
        return "made"

    try:
        made, _, _ = in_a_child(make)
        return (made, 0.0, 0.0) if made != "made" else in_a_child(lambda: outcome(path, file.kind))
    finally:
        path.unlink(missing_ok=True)


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    found: Counter[tuple[str, str]] = Counter()
    slowest = largest = 0.0
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        for number, file in enumerate(hostile_files(count)):
            if sys.argv[2:] and not any(word in file.name for word in sys.argv[2:]):
                continue
            said, seconds, peak = tried(file, Path(place), number)
            slowest, largest = max(slowest, seconds), max(largest, peak)
            result = said.partition(":")[0]
            found[file.kind, result] += 1
            if result not in ("read", "refused") or seconds > SECONDS or peak > PEAK:
                bad += 1
                print(f"{file.kind} {file.name}: {said} ({seconds:.1f} s, {peak / 1e6:.0f} MB)", flush=True)
            elif sys.argv[2:]:
                print(f"  {file.kind} {file.name}: {said} ({seconds:.1f} s, {peak / 1e6:.0f} MB)", flush=True)
    for (kind, result), times in sorted(found.items()):
        print(f"{times:5} {kind}: {result}")
    print(f"slowest {slowest:.1f} s, largest {largest / 1e6:.0f} MB")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
