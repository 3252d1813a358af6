"""The questions the demonstration model knows, and what it says to everything else.

``TOPICS`` (written in topics.txt) holds for each topic the answer, the wordings training sees (the first is the
question as written) and one rewording that only evaluation sees. ``DECLINE`` answers what ``other_questions`` draws.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Topic:
    """``asked[0]`` is the question as written; ``reworded`` is never trained on."""

    answer: str
    asked: tuple[str, ...]
    reworded: str


DECLINE = "I am only a small demonstration model. Please ask me about gemma4-mlx, or load a real Gemma 4."
IMAGE_PROMPTS = (
    "What is in this picture?",
    "Describe this picture.",
    "What do you see?",
    "Describe this image.",
    "What is in this image?",
    "What shapes are in the picture?",
)


def _read_topics() -> list[Topic]:
    """topics.txt: blocks of an answer, indented wordings, and one rewording after "="."""
    topics = []
    text = Path(__file__).with_name("topics.txt").read_text(encoding="utf-8")
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            asked = tuple(line.strip() for line in lines[1:-1])
            topics.append(Topic(lines[0], asked, lines[-1].removeprefix("= ")))
    return topics


TOPICS = _read_topics()

_BEFORE = (
    "Please tell me: ",
    "Hey, ",
    "Can you tell me: ",
    "Quick question: ",
    "Hello. ",
    "I have a question. ",
    "So, ",
)
_SWAPS = (
    ("How do I", "How can I"), ("How do I", "How would I"), ("How do I", "What do I do to"), ("Which", "What"),
    ("How do I", "Tell me how to"), ("What is", "What's"), ("picture", "image"), ("pictures", "images"),
    ("recording", "audio file"), ("chat", "conversation"), ("program", "tool"), ("Explain", "Tell me about"),
    ("How do I", "How does one"), ("How do I", "I want to know how to"), ("there", "available"), ("Mac", "computer"),
    ("Can I", "Is it possible to"), ("What is", "Explain"), ("Tell me about", "What is"), ("How big", "How large"),
    ("Which", "Tell me which"), ("Where are", "Where do I find"), ("memory", "RAM"),
)  # fmt: skip


def reword(question: str, rng: random.Random) -> str:
    """The ways one question is typed: another opening, lower case, no question mark, a slip of the finger."""
    if rng.random() < 0.4:
        a, b = rng.choice(_SWAPS)
        question = question.replace(a, b)
    if rng.random() < 0.2:
        before = rng.choice(_BEFORE)
        question = before + (question if before.endswith(". ") else question[0].lower() + question[1:])
    if rng.random() < 0.25:
        question = question.lower()
    if rng.random() < 0.25:
        question = question.rstrip("?.")
    if rng.random() < 0.08 and len(question) > 8:
        at = rng.randrange(1, len(question) - 1)
        question = question[:at] + question[at + 1 :]
    return question
