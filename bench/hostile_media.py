"""What hostile pictures, sounds and videos do: 500 made from a seed, each read as `ask` and `transcribe` read it.

    python bench/hostile_media.py [--count N] [--results FILE] [NAME…]

Each is made in one process and read in another. Reading must take less than 20 seconds of processor time and 1.5 GB,
must not wait for two minutes, and must end with the medium or with one line that says what is wrong. Sound that goes on
and on is listened to for five seconds: it comes in pieces, and who hears it can stop. Prints a count of each outcome,
and every outcome that should not be; the exit status is 1 if there is one.

With NAMEs only files whose name holds one are read, and each outcome is printed. With FILE each outcome is kept there,
one JSON line a file, and a run that was interrupted goes on behind the last.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hostile import Read, hostile_files, tried


def kept_results(path: Path | None) -> dict[str, Read]:
    if path is None or not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: Read(*result) for name, *result in map(json.loads, lines)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Have hostile pictures, sounds and videos read.")
    parser.add_argument("--count", type=int, default=500, help="how many files (default: 500)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep each outcome here, and go on from it")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only files whose name holds one of these")
    arguments = parser.parse_args()
    results = kept_results(arguments.results)
    found: Counter[tuple[str, str]] = Counter()
    seen: list[Read] = []
    with tempfile.TemporaryDirectory() as place:
        for number, file in enumerate(hostile_files(arguments.count)):
            if arguments.names and not any(name in file.name for name in arguments.names):
                continue
            read = results.get(file.name)
            if read is None:
                read = tried(file, Path(place), number)
                if arguments.results is not None:
                    with arguments.results.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps([file.name, *read]) + "\n")
            seen.append(read)
            found[file.kind, read.said.partition(":")[0]] += 1
            if arguments.names or not read.is_good:
                print(f"{'' if read.is_good else 'BAD '}{file.kind} {file.name}: {read}", flush=True)
    for (kind, result), times in sorted(found.items()):
        print(f"{times:5} {kind}: {result}")
    if seen:
        slowest, longest = max(read.seconds for read in seen), max(read.waited for read in seen)
        largest = max(read.memory for read in seen)
        print(f"slowest {slowest:.1f} s, {longest:.1f} s on the clock, largest {largest / 1e6:.0f} MB")
    return 0 if all(read.is_good for read in seen) else 1


if __name__ == "__main__":
    sys.exit(main())
