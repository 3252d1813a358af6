"""Speech the training never hears: flite's slt and awb, unheard espeak-ng variants, the human speaker in new orders."""

from __future__ import annotations

import random

import numpy as np

from . import voices
from .words import DIGITS

Pairs = list[tuple[list[str], np.ndarray]]


def digit_strings(rng: random.Random, count: int) -> list[list[str]]:
    """Strings of 3 … 7 digits."""
    return [[rng.choice(DIGITS) for _ in range(rng.randrange(3, 8))] for _ in range(count)]


def flite(voice: str, count: int, seed: int) -> Pairs:
    """Digit strings by a held-out flite speaker as the program speaks them, half of them with commas."""
    rng = random.Random(f"{seed}/{voice}")
    pairs = []
    for index, words in enumerate(digit_strings(rng, count)):
        pcm = voices.speak_flite((" ", ", ")[index % 2].join(words), voice)
        pairs.append((words, pcm.astype(np.float32) / 32768))
    return pairs


def espeak(count: int, seed: int) -> Pairs:
    """Digit strings by espeak-ng variants that training leaves out."""
    rng = random.Random(f"{seed}/espeak")
    pairs = []
    for index, words in enumerate(digit_strings(rng, count)):
        voice = "en-us+" + voices.HELD_OUT_VARIANTS[index % len(voices.HELD_OUT_VARIANTS)]
        pcm = voices.speak_espeak((" ", ", ")[index % 2].join(words), voice, rng.randrange(130, 180), 50)
        pairs.append((words, pcm.astype(np.float32) / 32768))
    return pairs


def human(count: int, seed: int) -> Pairs:
    """The recordings of the digits in orders drawn for the test, 60 … 250 ms apart."""
    rng = random.Random(f"{seed}/human")
    takes: dict[str, list[np.ndarray]] = {}
    for words, pcm in voices.recordings():
        takes.setdefault(words[0], []).append(pcm.astype(np.float32) / 32768)
    pairs = []
    for words in digit_strings(rng, count):
        parts: list[np.ndarray] = [np.zeros(3200, np.float32)]
        for word in words:
            parts += [rng.choice(takes[word]), np.zeros(rng.randrange(960, 4000), np.float32)]
        pairs.append((words, np.concatenate(parts)))
    return pairs


def groups(count: int, seed: int) -> dict[str, Pairs]:
    """All four, by name."""
    return {
        "slt": flite("slt", count, seed),
        "awb": flite("awb", count, seed),
        "espeak": espeak(count, seed),
        "human": human(count, seed),
    }
