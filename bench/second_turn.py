"""The second turn of a conversation: time to its first token as the first turn grows, with its cache and without.

    python bench/second_turn.py [--rounds 2] [--lengths 256 512 1024]

A checkpoint with random weights and E2B's 35 layers reads a first turn of each length and writes 16, then the second
turn comes: the first one, the answer and 24 new tokens. The two ways take turns, and who goes first changes. Shown are
medians of wall time and of the process's own CPU time; on a busy machine the latter is the one to trust. That both ways
write the same first token is checked.

The model is E2B at a quarter of its width. Looking back at more keys takes longer even when none of them is read again;
weights grow with the square of the width and keys with the width, so in E2B that is a quarter of what it is here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from random_checkpoint import e2b_like, write_random_checkpoint

from gemma4_mlx.checkpoint import load_model, read_config
from gemma4_mlx.generation import ConversationCache, generate_tokens
from gemma4_mlx.model import Gemma4

VOCABULARY = 4096
SHAPE = e2b_like(384, 1536, VOCABULARY)
ANSWER_TOKENS, NEW_TOKENS = 16, 24


@dataclass(frozen=True)
class Timing:
    """Of the second turn up to its first token.

    Attributes:
        wall, cpu: seconds.
        token: the first token.
        read: how many tokens of the prompt were read for it.
    """

    wall: float
    cpu: float
    token: int
    read: int


def second_turn(model: Gemma4, first: list[int], second: list[int], cached: bool) -> Timing:
    """Read `first`, answer it, and time the turn in which the user adds `second`."""
    cache = ConversationCache(model)
    answer = list(generate_tokens(model, first, max_tokens=ANSWER_TOKENS, cache=cache))
    prompt = [*first, *answer, *second]
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = generate_tokens(model, prompt, max_tokens=2, cache=cache if cached else None)
    token = next(tokens)
    timing = time.perf_counter() - wall, time.process_time() - cpu
    tokens.close()
    return Timing(*timing, token, len(prompt) - (cache.reused if cached else 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), SHAPE)
        model = load_model(Path(folder), read_config(Path(folder)))
        show(model, options.lengths, options.rounds)


def show(model: Gemma4, lengths: list[int], rounds: int) -> None:
    """Print one line a length."""
    rng = np.random.default_rng(0)
    print("first turn | tokens read: fresh, cached | wall ms: fresh, cached, ratio | CPU ms: fresh, cached, ratio")
    for length in lengths:
        fresh: list[Timing] = []
        cached: list[Timing] = []
        for turn in range(rounds + 1):
            first, second = (rng.integers(10, VOCABULARY, n).tolist() for n in (length, NEW_TOKENS))
            order = (fresh, cached) if turn % 2 else (cached, fresh)
            for timings in order:
                timings.append(second_turn(model, first, second, cached=timings is cached))
            if fresh[-1].token != cached[-1].token:
                print(f"  length {length}, turn {turn}: the first tokens differ")
        # The first turn warms up.
        numbers = [
            _columns([getattr(t, name) for t in fresh[1:]], [getattr(t, name) for t in cached[1:]])
            for name in ("wall", "cpu")
        ]
        print(f"{length:10} | {fresh[-1].read:12}, {cached[-1].read:6} | {numbers[0]} | {numbers[1]}")


def _columns(fresh: list[float], cached: list[float]) -> str:
    ratio = statistics.median(a / b for a, b in zip(fresh, cached, strict=True))
    return f"{1000 * statistics.median(fresh):8.1f}, {1000 * statistics.median(cached):6.1f}, {ratio:6.1f}"


if __name__ == "__main__":
    main()
