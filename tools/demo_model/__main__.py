"""``python -m tools.demo_model``: from Debian packages to the exported demonstration model, in one command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import train, voices


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.demo_model", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/demo_model"), help="caches, checkpoints, logs")
    parser.add_argument("--output", type=Path, help="where to put a copy of what is in WORK/export at the end")
    parser.add_argument("--stage", choices=sorted(train.MINUTES), help="run one training stage only")
    parser.add_argument("--rank", type=int, default=0, help="which process of that stage this is")
    arguments = parser.parse_args()
    if arguments.stage:
        train.stage(arguments.stage, arguments.work, arguments.rank)
        return 0
    try:
        train.run(arguments.work)
    except voices.MissingPackagesError as error:
        print(error, file=sys.stderr)
        return 1
    from . import export

    made = export.run(arguments.work)
    if arguments.output:
        export.put(made, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
