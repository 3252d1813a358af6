"""MLX's own errors at every evaluation of a chat, an `ask`, a transcription and more: nothing ends or is wrong.

    python bench/injected_errors.py [--count 300] [--only chat]

Each work of `tests/failing_work.py` is done once to count its evaluations, and then over and over with the built-in
model; every time another evaluation fails, in place of its result or after it, with the next of MLX's messages, and
every cache in the process is filled with noise (`tests/device_faults.py`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import numpy as np
from gemma4_mlx.app.exit_codes import leave_at_once

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from device_faults import MESSAGES, Device
from failing_work import works


def main() -> None:
    """Inject, and say what did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="errors in all (default: 300)")
    parser.add_argument("--only", default="", help="works with this in their names")
    arguments = parser.parse_args()
    begun, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [work for work in works(Path(scratch)) if arguments.only in work.name]
        places, survived = [], dict.fromkeys(chosen, 0)
        for work in chosen:
            work.play(Device())  # what is read once, such as a tower's weights, is read now
            device = Device()
            work.play(device)
            print(f"{work.name:<32}{device.count:>6} evaluations", flush=True)
            places += [(work, place) for place in range(1, device.count + 1)]
        count = min(arguments.count, len(places))
        messages = cycle(MESSAGES)
        for number in np.linspace(0, len(places) - 1, count).round().astype(int):
            (work, place), message = places[number], next(messages)
            try:
                device = Device(place, message, late=number % 2 == 1)
                work.play(device)
                assert device.failed, "there are fewer evaluations than a moment ago"
                survived[work] += 1
            except Exception as error:  # every one is a finding, and the others are looked for as well
                wrong += 1
                print(f"✗ {work.name}, evaluation {place}, {message[:60]}: {type(error).__name__}: {error}", flush=True)
    for work, number in survived.items():
        print(f"{work.name:<32}{number:>6} errors survived")
    print(f"{sum(survived.values())} errors survived, {wrong} not, in {time.monotonic() - begun:.0f} s")
    leave_at_once(1 if wrong else 0)


if __name__ == "__main__":
    main()
