"""What the built-in model is judged by in tests, none of it in its training: unheard voices, pairs of shapes, wordings.

Not a test itself.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gemma4_mlx.app.demo.demo_picture import draw_two_shapes

from gemma4_mlx.speech.prompts import speech_prompt
from tools.demo_model import pictures, words
from tools.demo_model.pictures import Thing

SIZES = ((320, 240), (600, 600), (260, 560))


@dataclass(frozen=True)
class Recording:
    """A digit string by flite's slt or awb; the digits are in the file's name."""

    path: Path

    @property
    def digits(self) -> list[int]:
        return [int(digit) for digit in self.path.stem.split("-")[1:]]

    @property
    def transcript(self) -> str:
        return " ".join(map(str, self.digits))

    def translation(self, language: str) -> str:
        return words.translate([words.DIGITS[digit] for digit in self.digits], language)


RECORDINGS = [Recording(path) for path in sorted((Path(__file__).parent / "demo_recordings").glob("*.flac"))]


def word_errors(heard: str, said: str) -> int:
    """Words to change, add or leave out to get from one to the other."""
    heard_words = heard.split()
    distances = list(range(len(heard_words) + 1))
    for i, word in enumerate(said.split(), 1):
        row = [i]
        for j, other in enumerate(heard_words, 1):
            row.append(min(row[-1] + 1, distances[j] + 1, distances[j - 1] + (word != other)))
        distances = row
    return distances[-1]


def unseen_pairs(count: int, seed: int) -> list[tuple[Thing, Thing]]:
    """Things that training never puts together."""
    rng = random.Random(seed)
    return [(first, second) for first, second in (pictures.random_things(rng, 2, True) for _ in range(count))]


def recipe_pictures(count: int, seed: int) -> list[tuple[Any, str]]:
    """Pictures of unseen pairs drawn as in training, each of the three sizes in turn, and what is in them."""
    rng = random.Random(seed)
    pairs = unseen_pairs(count, seed)
    drawn = [pictures.draw(list(pair), SIZES[i % len(SIZES)], rng) for i, pair in enumerate(pairs)]
    return [(picture.image, picture.sentence) for picture in drawn]


def demo_pictures(count: int, seed: int) -> list[tuple[Any, str]]:
    """Pictures of unseen pairs drawn as `gemma4-mlx demo` draws them, and what is in them."""
    rng = random.Random(seed)
    drawn = [draw_two_shapes(pair, rng) for pair in unseen_pairs(count, seed)]
    return [(picture.image, picture.sentence) for picture in drawn]


def picture_message(image: Any) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": image}, {"type": "text", "text": "What is in this picture?"}]
    return [{"role": "user", "content": content}]


def speech_message(sound: Any, translate_to: str | None = None) -> list[dict[str, Any]]:
    prompt = speech_prompt("English", translate_to)
    return [{"role": "user", "content": [{"type": "text", "text": prompt}, {"type": "audio", "audio": sound}]}]


def wordless_sounds() -> dict[str, np.ndarray]:
    """Two seconds each of nothing, hiss and hum; float32 at 16 kHz."""
    time = np.arange(32_000, dtype=np.float32) / 16_000
    return {
        "silence": np.zeros(32_000, np.float32),
        "hiss": np.random.default_rng(0).normal(0, 0.02, 32_000).astype(np.float32),
        "hum": (0.1 * np.sin(2 * np.pi * 50 * time)).astype(np.float32),
    }
