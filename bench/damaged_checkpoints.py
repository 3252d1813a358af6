"""What a damaged or forged checkpoint does: 1,600 mutations of the built-in model's weight file, each loaded and used.

    python bench/damaged_checkpoints.py [COUNT]

Every one runs in a process of its own. It must not crash, must take less than 2 seconds of processor time and 500 MB,
and must be refused in one line wherever the format tells that something is wrong. Bytes of the body that are changed
cannot be told without checksums. Prints a count of each outcome, and every outcome that should not be; the exit status
is 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import gemma4_mlx as g4

SECONDS, PEAK = 2.0, 500e6
_NUMBERS = [-1, -(2**63), 0, 1, 7, 2**31, 2**63, 2**64, 1.5, 1e300, None, True, "4", [], {}]
_TYPES = ["F32", "F16", "BF16", "I32", "U32", "U8", "F64", "BOOL", "F8_E4M3", "Q4", "", None, 3]


def mutated(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    """A file with one thing wrong, and what that is. Of those that end in "!" the format says that they are."""
    length = struct.unpack_from("<Q", content)[0]
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    body = content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    one, other = chance.sample(names, 2)
    begin, end = header[one]["data_offsets"]

    def whole(changed: Any = None, rest: bytes = body) -> bytes:
        text = changed if isinstance(changed, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + rest

    match chance.randrange(12):
        case 0:
            return "truncated!", content[: chance.randrange(len(content))]
        case 1:
            return "length!", struct.pack("<Q", chance.choice([0, 1, length - 1, length + 9, 2**40, 2**63])) + content[
                8:
            ]
        case 2:
            at = chance.randrange(8, 8 + length)
            return "a byte of the header", content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
        case 3:
            at = chance.randrange(8 + length, len(content))
            return "a byte of the body", content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
        case 4:
            shift = chance.choice([-64, -2, 2, 4, 64, 10**6, -(10**6)])
            header[one]["data_offsets"] = [begin + shift, end + shift]
            return "shifted!", whole()
        case 5:
            header[one]["data_offsets"] = [chance.choice(_NUMBERS), end]
            return ("offset" if header[one]["data_offsets"][0] == begin else "offset!"), whole()
        case 6:
            header[one]["data_offsets"] = header[other]["data_offsets"]
            return "overlapping!", whole()
        case 7:
            before = header[one]["shape"]
            header[one]["shape"] = chance.choice([[], [2**40, 2**40], [-1], [0], *[[n] for n in _NUMBERS], before * 2])
            # A list of one number is as good as the number.
            return ("shape" if header[one]["shape"] in (before, [1]) and before in ([], [1]) else "shape!"), whole()
        case 8:
            header[one]["dtype"] = chance.choice(_TYPES)
            return "type", whole()
        case 9:
            twice = json.dumps(header)[:-1] + f", {json.dumps(one)}: {json.dumps(header[other])}}}"
            return "a name twice!", whole(twice.encode())
        case 10:
            header[chance.choice(["x", "../x", "\x1b[2J", ""])] = header.pop(one)
            return "renamed!", whole()
        case _:
            return "bytes behind!", content + bytes(chance.randrange(1, 99))


def outcome(folder: Path) -> str:
    """In a child process: what loading and using the checkpoint comes to."""
    try:
        model, processor = g4.load(folder)
        said = g4.generate(model, processor, "Hello", max_tokens=2, temperature=0).text
    except g4.Gemma4Error as error:
        return "refused" if "\n" not in str(error) and len(str(error)) < 1000 else f"refused in many words: {error}"
    except BaseException as error:
        return f"not ours: {error!r}"[:200]
    return f"used: {said!r}"


def tried(folder: Path) -> tuple[str, float, float]:
    """The outcome, seconds of processor time, and peak memory in bytes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        os.write(writing, outcome(folder).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    _, status, usage = os.wait4(child, 0)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return said or f"crashed (status {status})", usage.ru_utime + usage.ru_stime, peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=1600)
    count = parser.parse_args().count
    found: Counter[tuple[str, str]] = Counter()
    slowest = largest = 0.0
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        shutil.copytree(Path(g4.__file__).parent / "demo", folder)
        weights = folder / "model.safetensors"
        content = weights.read_bytes()
        for number in range(count):
            what, changed = mutated(content, random.Random(number))
            weights.write_bytes(changed)
            said, seconds, peak = tried(folder)
            slowest, largest = max(slowest, seconds), max(largest, peak)
            kind = said.partition(":")[0]
            found[what, kind] += 1
            told = what.endswith("!") and changed != content
            if kind not in ("used", "refused") or (told and kind == "used") or seconds > SECONDS or peak > PEAK:
                bad += 1
                print(f"{number} {what}: {said} ({seconds:.1f} s, {peak / 1e6:.0f} MB)")
    for (what, kind), times in sorted(found.items()):
        print(f"{times:5} {what}: {kind}")
    print(f"slowest {slowest:.2f} s, largest {largest / 1e6:.0f} MB")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
