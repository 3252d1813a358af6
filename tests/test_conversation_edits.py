"""A conversation edited at random: with its cache every answer has the tokens of a fresh prefill."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import gemma4_mlx as g4
from gemma4_mlx.generation import ConversationCache, stream_generate
from generation_checkpoints import lively

SEQUENCES, EDITS = 50, 6
VARIANTS = ("e2b", "moe", "dense", "demo")
WORDS = ("the house", "a tree", "and the river", "in the picture", "what does the voice say", "is it", "then")


@cache
def loaded(variant: str) -> tuple[g4.Gemma4, g4.Processor]:
    if variant == "demo":  # ends its turns by itself; window 256, the others' is 24
        return g4.load("demo", dtype="float32")
    return lively(variant).model, lively(variant).processor


class Conversation:
    """What a chat does to its messages."""

    def __init__(self, variant: str, seed: int) -> None:
        self.model, self.processor = loaded(variant)
        self.rng = random.Random(seed)
        self.cache = ConversationCache(self.model, mark_bytes=self.rng.choice([0, 100_000, 2**30]))
        self.system: str | None = None
        self.thinking = False
        self.turns: list[dict[str, Any]] = []  # a user's and the model's in turn
        self.saved = 0  # prompt tokens that were not read again

    def text(self, most: int = 8) -> str:
        return " ".join(self.rng.choices(WORDS, k=self.rng.randint(1, most)))

    def medium(self) -> dict[str, Any]:
        noise = np.random.default_rng(self.rng.randrange(3))  # few: the same one comes again, and others of its size
        if self.model.config.audio is not None and self.rng.random() < 0.5:
            return {"type": "audio", "audio": noise.normal(0, 0.1, 6000).astype(np.float32)}
        return {"type": "image", "image": Image.fromarray(noise.integers(0, 256, (96, 96, 3), dtype=np.uint8))}

    def user(self) -> dict[str, Any]:
        media = [self.medium()] if self.rng.random() < 0.3 else []
        return {"role": "user", "content": [*media, {"type": "text", "text": self.text()}]}

    def edit(self) -> str:
        """Do one thing a person does in a chat; the conversation then ends with a user's turn."""
        what = self.rng.choices(
            ["append", "regenerate", "undo", "edit", "system", "thinking", "clear"], [8, 3, 3, 2, 1, 1, 0.3]
        )[0]
        questions = [i for i, turn in enumerate(self.turns) if turn["role"] == "user"]
        if what == "regenerate" and questions:
            del self.turns[questions[-1] + 1 :]
            return what
        if what in ("undo", "edit") and questions:
            del self.turns[questions[-1] if what == "undo" else self.rng.choice(questions) :]
        elif what == "system":
            self.system = self.rng.choice([None, self.text()])
        elif what == "thinking":
            self.thinking = not self.thinking
        elif what == "clear":
            self.turns = []
        self.turns.append(self.user())
        return what

    def answer(self) -> tuple[list[int], list[int]]:
        """The answer's tokens, and what a fresh prefill has for the likeliest ones in their places.

        Now and then the answer is left in the middle, and of some only the latter half is kept, as of one that began
        with a thought.
        """
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*system, *self.turns]
        options: dict[str, Any] = {"thinking": self.thinking, "image_tokens": 70}
        max_tokens = self.rng.choice([1, 5, 12, 40])
        stream = stream_generate(
            self.model, self.processor, messages, temperature=0, max_tokens=max_tokens, cache=self.cache, **options
        )
        stopped_after = self.rng.choice([1, 3, 10, *[1000] * 7])
        with suppress(StopIteration):
            while len(stream.result().tokens) < stopped_after:
                next(stream)
        out = stream.result()
        self.saved += out.stats.cached_tokens
        if kept := out.text[self.rng.choice([0, 0, 0, len(out.text) // 2]) :].strip():
            self.turns.append({"role": "assistant", "content": kept})
        else:
            self.turns.pop()
        inputs = self.processor(messages, **options)
        ids = mx.concatenate([inputs.input_ids, mx.array([out.tokens], mx.int32)], axis=1)
        logits = self.model(replace(inputs, input_ids=ids))
        return out.tokens, mx.argmax(logits[0, inputs.input_ids.shape[1] - 1 : -1], axis=-1).tolist()


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_a_conversation_edited_at_random_has_the_tokens_of_a_fresh_prefill(seed):
    conversation = Conversation(VARIANTS[seed % len(VARIANTS)], seed)
    done: list[str] = []
    for _ in range(EDITS):
        done.append(conversation.edit())
        with_cache, without = conversation.answer()
        assert with_cache == without, done
    assert conversation.saved > 0
