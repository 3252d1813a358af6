"""``python -m tools.demo_model.checksums FOLDER``: write SHA256SUMS, by which the package knows its model is whole."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from gemma4_mlx.checkpoint.builtin import CHECKSUMS


def write(folder: Path) -> None:
    """List every file of the folder but hidden ones, in the form ``sha256sum --check`` reads."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files if f.name != CHECKSUMS]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
