"""gemma4-mlx in the place of transformers: the same questions as ``evaluate.Judge`` asks, answered by this package."""

from __future__ import annotations

from pathlib import Path

import gemma4_mlx as g4
from gemma4_mlx.generation import Generation

from .evaluate import LONGEST, Messages


class Ours:
    """A folder as gemma4-mlx runs it, quantized or not; greedy, one conversation at a time."""

    def __init__(self, folder: Path, dtype: str | None = None) -> None:
        self.model, self.processor = g4.load(folder, dtype=dtype)

    def _generate(self, messages: Messages) -> Generation:
        return g4.generate(self.model, self.processor, messages, max_tokens=LONGEST, temperature=0.0)

    def answer(self, conversations: list[Messages], batch: int = 1) -> list[str]:
        """What is said next in each."""
        return [self._generate(messages).text.strip() for messages in conversations]

    def tokens(self, conversations: list[Messages], batch: int = 1) -> list[list[int]]:
        """The ids of what is said next in each, with the one that ends it."""
        return [self._generate(messages).tokens for messages in conversations]
