"""Many prompts at once, beside one by one and beside mlx-lm's `batch_generate`: the same weights, in turn, as ratios.

    python bench/batch.py [--rounds 3] [--prompts 50]

Questions of different lengths to the model that comes with the package, greedily, at most 48 tokens each. That the
answers are those of one by one is checked. mlx-lm runs its own model on the same weights and gets the same ids.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import mlx.core as mx
from mlx_lm import batch_generate as mlx_lm_batch
from mlx_lm.tokenizer_utils import load as load_mlx_lm_tokenizer
from mlx_lm.utils import load_model as load_mlx_lm

import gemma4_mlx as g4
from gemma4_mlx.checkpoint import resolve

MAX_TOKENS = 48
QUESTIONS = ["How do I chat?", "What is MLX?", "Does my data leave this Mac?", "Hello!", "Who are you?"]


def timed(run: Callable[[], int]) -> float:
    """Tokens per second of a run that says how many tokens it wrote."""
    began = time.perf_counter()
    return run() / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=50)
    options = parser.parse_args()
    folder = resolve("demo")
    model, processor = g4.load(folder, dtype="float32")
    peer, _ = load_mlx_lm(folder)
    peer.set_dtype(mx.float32)
    peer_tokenizer = load_mlx_lm_tokenizer(folder)
    prompts = [QUESTIONS[i % len(QUESTIONS)] + " Please." * (i % 7) for i in range(options.prompts)]
    ids = [processor(prompt).input_ids[0].tolist() for prompt in prompts]

    def alone() -> int:
        answers[:] = [g4.generate(model, processor, prompt, max_tokens=MAX_TOKENS, temperature=0) for prompt in prompts]
        return sum(len(answer.tokens) for answer in answers)

    def together() -> int:
        found = g4.batch_generate(model, processor, prompts, max_tokens=MAX_TOKENS, temperature=0)
        assert not answers or [a.tokens for a in found] == [a.tokens for a in answers], "other answers than one by one"
        return sum(len(answer.tokens) for answer in found)

    def mlx_lm() -> int:
        response = mlx_lm_batch(peer, peer_tokenizer, ids, max_tokens=MAX_TOKENS, return_token_ids=True)
        return sum(len(tokens) for tokens in response.token_ids)

    answers: list[g4.Generation] = []
    ways = {"one by one": alone, "together": together, "mlx-lm together": mlx_lm}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, run in list(ways.items())[:: 1 if number % 2 else -1]:
            speed = timed(run)
            if number:  # the first round compiles
                speeds[name].append(speed)
    for name, measured in speeds.items():
        ratios = [a / b for a, b in zip(speeds["together"], measured, strict=True)]
        print(f"{name}: {statistics.median(measured):.0f} tokens/s, together is {statistics.median(ratios):.2f} of it")


if __name__ == "__main__":
    main()
