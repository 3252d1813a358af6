"""Questions about the rest of the world, which the demonstration model declines: what training draws, what judges it.

Many frames with many words in them, invented names and a few topics' own words in other company, so that what the model
learns is "this is none of the questions I know" and not a list. The words are in other_questions.txt.
"""

from __future__ import annotations

import random
from pathlib import Path


def _read() -> dict[str, tuple[str, ...]]:
    """Section of other_questions.txt: its entries."""
    sections: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        elif line and not line.startswith("#"):
            sections[name] = (*sections.get(name, ()), *line.split(";"))
    return sections


_PARTS = _read()
HELD_OUT = _PARTS["held out"]  # never trained on: what "anything else" is judged by


def _invented(rng: random.Random) -> str:
    """A name nobody has heard."""
    name = "".join(rng.choice("bcdfghklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randrange(1, 4)))
    name += rng.choice(["", "n", "r", "s", "k", "th"])
    return name.capitalize() if rng.random() < 0.6 else name


def draw(rng: random.Random) -> str:
    """A question about something else, never one of ``HELD_OUT``."""
    while True:
        question = rng.choice(_PARTS["fixed"])
        if rng.random() < 0.7:
            things, people = rng.sample(_PARTS["things"], 2), rng.sample(_PARTS["people"], 2)
            question = rng.choice(_PARTS["frames"]).format(
                place=rng.choice(_PARTS["places"]), person=people[0], person2=people[1], thing=things[0],
                thing2=things[1], a=rng.randrange(2, 100), b=rng.randrange(2, 100), name=_invented(rng),
            )  # fmt: skip
        if question not in HELD_OUT:
            return question
