"""Prompt and decode speed beside mlx-lm's: the same checkpoint, one process, in turn, as ratios.

    python bench/prompt_and_decode.py [--rounds 7]

Both engines run their own model on the same random weights with E2B's depth, greedily, each through its own public
token loop. Their first tokens are compared, so that what is timed is the same work.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model as load_mlx_lm
from random_checkpoint import e2b_like, write_random_checkpoint

from gemma4_mlx.checkpoint import load_model, read_config
from gemma4_mlx.generation import generate_tokens

PROMPT_TOKENS, NEW_TOKENS = 512, 64

SHAPES = {
    "width 64 (the host's cost dominates)": e2b_like(64, 128, 4096),
    "width 384 (arithmetic dominates)": e2b_like(384, 1024, 16384),
}

Engine = Callable[[list[int]], Iterator[int]]


def timed(engine: Engine, prompt: list[int]) -> tuple[float, float, list[int]]:
    """Prompt tokens and new tokens per second, and the tokens."""
    tokens = engine(prompt)
    start = time.perf_counter()
    first = next(tokens)
    middle = time.perf_counter()
    rest = list(tokens)
    end = time.perf_counter()
    return len(prompt) / (middle - start), len(rest) / (end - middle), [first, *rest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    for name, raw_config in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            write_random_checkpoint(Path(folder), raw_config)
            ours = load_model(Path(folder), read_config(Path(folder)))
            theirs, _ = load_mlx_lm(Path(folder))
            engines: dict[str, Engine] = {
                "gemma4-mlx": lambda prompt, m=ours: generate_tokens(m, prompt, max_tokens=NEW_TOKENS),
                "mlx-lm": lambda prompt, m=theirs: (
                    t for t, _ in generate_step(mx.array(prompt), m, max_tokens=NEW_TOKENS)
                ),
            }
            rng = np.random.default_rng(0)
            results: dict[str, list[tuple[float, float]]] = {engine: [] for engine in engines}
            for turn in range(rounds + 1):
                prompt = rng.integers(10, raw_config["vocab_size"], PROMPT_TOKENS).tolist()
                produced = {}
                # Who goes first alternates: the machine may slow down or speed up within a turn.
                for engine in sorted(engines, reverse=bool(turn % 2)):
                    prompt_speed, decode_speed, produced[engine] = timed(engines[engine], prompt)
                    if turn:  # the first turn warms up
                        results[engine].append((prompt_speed, decode_speed))
                if produced["gemma4-mlx"][:8] != produced["mlx-lm"][:8]:
                    print(f"  turn {turn}: the engines' tokens differ")
            print(name)
            for column, what in enumerate((f"prompt of {PROMPT_TOKENS}", f"decode of {NEW_TOKENS}")):
                us, them = ([pair[column] for pair in results[engine]] for engine in ("gemma4-mlx", "mlx-lm"))
                ratios = [a / b for a, b in zip(us, them, strict=True)]
                speeds = f"gemma4-mlx {statistics.median(us):.1f} tok/s, mlx-lm {statistics.median(them):.1f} tok/s"
                spread = f"(from {min(ratios):.2f} to {max(ratios):.2f})"
                print(f"  {what}: {speeds}, ratio {statistics.median(ratios):.2f} {spread}")


if __name__ == "__main__":
    main()
