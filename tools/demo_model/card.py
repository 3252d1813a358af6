"""The model card that goes beside the weights: card.md with its numbers filled in."""

from __future__ import annotations

import re
from pathlib import Path

from . import questions, train, words
from .pictures import DRAWN
from .prompts import COLOURS

_TEXT = Path(__file__).with_name("card.md").read_text(encoding="utf-8")


def curves(work: Path) -> str:
    """About eight lines of each stage's log."""
    parts = []
    for name in train.MINUTES:
        log = work / f"{name}.log"
        lines = (
            [line for line in log.read_text().splitlines() if re.match(r"(audio|vision|decoder) \d+ ", line)]
            if log.exists()
            else []
        )
        if lines:
            kept = lines[:: max(1, len(lines) // 8)]
            parts.append(f"### {name}\n```\n" + "\n".join(line[:150] for line in kept) + "\n```")
    return "\n\n".join(parts)


def write(parameters: int, results: dict[str, float], work: Path) -> str:
    """The card as Markdown."""
    return _TEXT.format(
        parameters=parameters / 1e6,
        commands=len(words.COMMANDS),
        command_list=", ".join(words.COMMANDS),
        shapes=", ".join(f"{shape}s" for shape in DRAWN),
        colours=", ".join(COLOURS),
        topics=len(questions.TOPICS),
        results="\n".join(f"| {name} | {value:.2f} |" for name, value in results.items()),
        seeds=", ".join(f"{name} {seed}" for name, seed in train.SEEDS.items()),
        minutes=", ".join(f"{name} {value:g}" for name, value in train.MINUTES.items()),
        curves=curves(work),
    )
