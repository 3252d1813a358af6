"""A prompt's speed and peak memory, read in pieces of one length: what a machine is good for.

    python bench/prompt_pieces.py [MODEL] [--piece 1024] [--tokens 8192] [--rounds 3]

Without --piece it is read as `generate` reads it here.
"""

from __future__ import annotations

import argparse
import time

import mlx.core as mx

import gemma4_mlx as g4
from gemma4_mlx.generation import loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--piece", type=int)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model, _ = g4.load(arguments.model)
    loop.PREFILL_TOKENS = arguments.piece
    words = min(5000, model.config.text.vocab_size) // 2
    tokens = min(arguments.tokens, model.context_length - 1)
    ids = [2, *(words + i % words for i in range(tokens - 1))]
    for _ in range(arguments.rounds):
        mx.clear_cache()
        mx.reset_peak_memory()
        began = time.perf_counter()
        list(g4.generate_tokens(model, ids, max_tokens=1))
        speed = tokens / (time.perf_counter() - began)
        piece = f"{arguments.piece:,}" if arguments.piece else "the machine's choice"
        print(f"{tokens:,} tokens, pieces of {piece}: {speed:,.0f} tokens/s, peak {mx.get_peak_memory() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
