"""Largest logit error against transformers, per kind of model and of input, on small random checkpoints in fp32.

    python bench/parity.py

The suite asserts that every one is below 1e-3 of the reference logits' standard deviation (`tests/test_parity.py`);
this prints what they are.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from pathlib import Path

os.environ.setdefault("MLX_ENABLE_TF32", "0")  # newer GPUs compute float32 products in a shorter format otherwise

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from checkpoints import VARIANTS
from parity import pair
from test_parity import picture, sound, text, user

PROMPTS = {
    "text": user(text("The model reads a long story about a river and a town. " * 8)),
    "two pictures": user(picture(300, 100, 1), text("and"), picture(64, 220, 2), text("say what is in them")),
    "sound": user(text("Write down"), sound(64_000)),
    "all three": user(picture(120, 160), text("Is this what is said?"), sound(20_000), text("Answer.")),
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(f"{'':8}" + "".join(f"{name:>15}" for name in PROMPTS))
    for variant in VARIANTS:
        cells = []
        for name, messages in PROMPTS.items():
            if name in ("sound", "all three") and variant in ("moe", "dense"):
                cells.append("-")
                continue
            errors = []
            for seed in range(3):
                with contextlib.redirect_stderr(io.StringIO()):  # transformers' progress bars
                    question = pair(variant, seed).ask(messages, image_tokens=70)
                errors += [question.error(question.logits()), question.error(question.logits(max_tokens=16))]
            cells.append(f"{max(errors):.1e}")
        print(f"{variant:8}" + "".join(f"{cell:>15}" for cell in cells))


if __name__ == "__main__":
    main()
