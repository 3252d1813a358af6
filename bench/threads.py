"""Many threads on one fresh model, again and again: every answer must be the one that a single thread gets.

    python bench/threads.py [--rounds 50]

Each round loads the model that comes with the package, and two or eight threads at once each use it in another way:
questions, a drawn answer, a stream, a picture, speech from a file and live, choices, a batch.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import gemma4_mlx as g4

Ask = Callable[[g4.Gemma4, g4.Processor], Any]


def _sound() -> np.ndarray:
    """Two seconds of a made-up voice and one of nothing; float32 at 16 kHz."""
    at = np.arange(32_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * k * at) / k for k in range(1, 20)) * (1 + np.sin(2 * np.pi * 4 * at))
    return np.concatenate([0.1 * np.asarray(voice), np.zeros(16_000)]).astype(np.float32)


def _picture() -> list[dict[str, Any]]:
    from PIL import Image

    content = [{"type": "image", "image": Image.new("RGB", (200, 120), "red")}, {"type": "text", "text": "What is it?"}]
    return [{"role": "user", "content": content}]


def _loud(_: np.ndarray) -> float:
    """A voice detector that hears speech everywhere."""
    return 1.0


def _live(model: g4.Gemma4, processor: g4.Processor) -> list[tuple[str, str]]:
    with g4.LiveTranscriber(model, processor, "English", voice=_loud, max_utterance=1.5) as live:
        pieces = [live.feed(piece) for piece in np.split(_sound(), 12)]
        return [(event.kind, event.text) for events in [*pieces, live.finish()] for event in events]


ASKS: dict[str, Ask] = {
    "question": lambda m, p: g4.generate(m, p, "Who are you?", max_tokens=24, temperature=0).tokens,
    "picture": lambda m, p: g4.generate(m, p, _picture(), max_tokens=12, temperature=0).tokens,
    "drawn": lambda m, p: g4.generate(m, p, "What is MLX?", max_tokens=24, temperature=1, seed=3).tokens,
    "stream": lambda m, p: "".join(c.text for c in g4.stream_generate(m, p, "Hello!", max_tokens=24, temperature=0)),
    "live": _live,
    "transcription": lambda m, p: g4.transcribe(m, p, _sound(), "English").text,
    "choices": lambda m, p: g4.score(m, p, "Do you see?", ["yes", "no"]),
    "batch": lambda m, p: [a.tokens for a in g4.batch_generate(m, p, ["Hello!"] * 3, max_tokens=8, temperature=0)],
}


def at_once(asks: list[Ask], model: g4.Gemma4, processor: g4.Processor) -> list[Any]:
    """What each of `asks` comes to, all begun at the same moment in a thread each. Raises what one of them raises."""
    answers: list[Any] = [None] * len(asks)
    together = threading.Barrier(len(asks))

    def run(place: int) -> None:
        together.wait()
        try:
            answers[place] = asks[place](model, processor)
        except BaseException as error:
            answers[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed := next((answer for answer in answers if isinstance(answer, BaseException)), None):
        raise failed
    return answers


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - began:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    expected = {name: ask(*g4.load("demo", dtype="float32")) for name, ask in ASKS.items()}
    names = list(ASKS)
    for count in (2, 8):
        with timed(f"{rounds} rounds of {count} threads, all answers right"):
            for number in range(rounds):
                chosen = [names[(number + i) % len(names)] for i in range(count)]
                answers = at_once([ASKS[name] for name in chosen], *g4.load("demo", dtype="float32"))
                assert answers == [expected[name] for name in chosen], f"round {number}: {chosen}"


if __name__ == "__main__":
    main()
