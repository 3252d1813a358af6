"""``python -m tools.demo_model.quantized FOLDER``: what 8-bit and 4-bit cost, on the model card's tests.

The folder is converted as ``gemma4-mlx convert`` does it, and each result runs in gemma4-mlx.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

import gemma4_mlx as g4

from . import evaluate
from .ours import Ours

RECIPES = ("bf16", "8bit", "speech", "4bit", "mxfp4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100, help="strings per speaker (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables = {}
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in RECIPES:
            folder = g4.convert(arguments.folder, Path(scratch, recipe), recipe=recipe)
            tables[recipe] = evaluate.table(Ours(folder), arguments.count)
    print("".join(f"{recipe:>8}" for recipe in RECIPES), " %")
    for test in tables[RECIPES[0]]:
        print("".join(f"{tables[recipe][test]:8.2f}" for recipe in RECIPES), "", test)


if __name__ == "__main__":
    main()
