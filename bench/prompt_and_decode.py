"""Prompt and decode speed beside mlx-lm's and mlx-vlm's: the same checkpoint, one process, in turn, as ratios.

    python bench/prompt_and_decode.py [--rounds 7]

Each engine runs its own model on the same random weights with E2B's depth, greedily, through its own public token loop,
ours with the per-layer table left on disk. Their first tokens are compared, so that what is timed is the same work.
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
from mlx_lm.generate import generate_step as mlx_lm_step
from mlx_lm.utils import load_model as load_mlx_lm
from mlx_vlm.generate import generate_step as mlx_vlm_step
from mlx_vlm.utils import load_model as load_mlx_vlm
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


def engines(folder: Path) -> dict[str, Engine]:
    """The token loops to compare, ours first."""
    ours = load_model(folder, read_config(folder), per_layer="disk")
    lm, _ = load_mlx_lm(folder)
    vlm = load_mlx_vlm(folder)
    return {
        "gemma4-mlx": lambda prompt: generate_tokens(ours, prompt, max_tokens=NEW_TOKENS),
        "mlx-lm": lambda prompt: (t for t, _ in mlx_lm_step(mx.array(prompt), lm, max_tokens=NEW_TOKENS)),
        "mlx-vlm": lambda prompt: (
            t for t, _ in mlx_vlm_step(mx.array([prompt]), vlm, None, None, max_tokens=NEW_TOKENS)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    for name, raw_config in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            write_random_checkpoint(Path(folder), raw_config)
            compared = engines(Path(folder))
            compare(name, compared, raw_config["vocab_size"], rounds)


def compare(name: str, compared: dict[str, Engine], vocab_size: int, rounds: int) -> None:
    """Time all engines in turn and print medians and the ratios of ours to each other one, round by round."""
    rng = np.random.default_rng(0)
    results: dict[str, list[tuple[float, float]]] = {engine: [] for engine in compared}
    for turn in range(rounds + 1):
        prompt = rng.integers(10, vocab_size, PROMPT_TOKENS).tolist()
        produced = {}
        # Who goes first changes: the machine may slow down or speed up within a turn.
        order = list(compared)[turn % len(compared) :] + list(compared)[: turn % len(compared)]
        for engine in order:
            prompt_speed, decode_speed, produced[engine] = timed(compared[engine], prompt)
            if turn:  # the first turn warms up
                results[engine].append((prompt_speed, decode_speed))
        if len({tuple(int(t) for t in tokens[:8]) for tokens in produced.values()}) > 1:
            print(f"  turn {turn}: the engines' tokens differ")
    print(name)
    for column, what in enumerate((f"prompt of {PROMPT_TOKENS}", f"decode of {NEW_TOKENS}")):
        speeds = {engine: [pair[column] for pair in pairs] for engine, pairs in results.items()}
        medians = ", ".join(f"{engine} {statistics.median(values):.1f}" for engine, values in speeds.items())
        print(f"  {what}, tokens/s: {medians}")
        for peer in list(compared)[1:]:
            ratios = [a / b for a, b in zip(speeds["gemma4-mlx"], speeds[peer], strict=True)]
            spread = f"from {min(ratios):.2f} to {max(ratios):.2f}"
            print(f"    ratio to {peer}: {statistics.median(ratios):.2f} ({spread})")


if __name__ == "__main__":
    main()
