"""A random checkpoint loaded twice, by transformers and by this package, and the same prompt given to both."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gemma4_mlx as g4
from checkpoints import build_checkpoint
from gemma4_mlx.model.inputs import split_inputs
from processing_reference import reference_inputs

GREEDY_TOKENS = 24


@dataclass(frozen=True)
class Pair:
    """One checkpoint, two models."""

    reference: Any
    model: g4.Gemma4
    processor: g4.Processor
    folder: Path

    @property
    def is_unified(self) -> bool:
        """Whether it is a 12B."""
        return self.reference.config.model_type == "gemma4_unified"

    def ask(self, messages: list[dict[str, Any]], image_tokens: int = 280) -> Question:
        ours = self.processor(messages, image_tokens=image_tokens)
        variant = "unified" if self.is_unified else "e2b"
        theirs = reference_inputs(messages, image_tokens=image_tokens, variant=variant, return_tensors="pt")
        return Question(self, ours, dict(theirs))


@lru_cache(maxsize=8)
def pair(variant: str, seed: int = 0, spelling: str = "published") -> Pair:
    """The two models of a variant, built at the first call."""
    folder = Path(tempfile.mkdtemp(prefix=f"gemma4-{variant}-"))
    reference = build_checkpoint(folder, variant, seed, spelling)
    model, processor = g4.load(folder)
    return Pair(reference, model, processor, folder)


@dataclass(frozen=True)
class Question:
    """One prompt in both models' form."""

    pair: Pair
    ours: g4.ModelInputs
    theirs: dict[str, Any]

    @cached_property
    def reference_logits(self) -> np.ndarray:
        """float32 `[L, vocab]`."""
        theirs = self.theirs
        if self.pair.is_unified:
            theirs = {**theirs, "attention_mask": self._masks_of_generate()}
        with torch.no_grad():
            return self.pair.reference(**theirs).logits[0].numpy()

    def _masks_of_generate(self) -> dict[str, torch.Tensor]:
        """The masks that transformers generates with. A call of its 12B makes others: there, full layers look ahead in
        a picture as well, and a picture has no window."""
        ids = self.theirs["input_ids"]
        return self.pair.reference.create_masks_for_generate(
            self.pair.reference.config,
            inputs_embeds=torch.zeros(*ids.shape, 1),
            attention_mask=None,
            cache=None,
            position_ids=torch.arange(ids.shape[1])[None],
            mm_token_type_ids=self.theirs.get("mm_token_type_ids"),
        )

    def error(self, logits: np.ndarray) -> float:
        """Largest difference from the reference, in standard deviations of the reference."""
        return float(np.abs(logits - self.reference_logits).max() / self.reference_logits.std())

    def logits(self, max_tokens: int | None = None) -> np.ndarray:
        """Ours: whole, or read in pieces of `max_tokens`. float32 `[L, vocab]`."""
        model = self.pair.model
        if max_tokens is None:
            return np.array(model(self.ours))[0]
        cache = model.make_cache()
        pieces = split_inputs(self.ours, model.config, max_tokens)
        return np.concatenate([np.array(model(piece, cache=cache))[0] for piece in pieces])

    def greedy(self) -> list[int]:
        return list(g4.generate_tokens(self.pair.model, self.ours, max_tokens=GREEDY_TOKENS))

    def reference_greedy(self) -> list[int]:
        # With its usual cache transformers (5.24) calls the 12B without a mask, and it makes those of a call.
        static = {"cache_implementation": "static", "disable_compile": True} if self.pair.is_unified else {}
        with torch.no_grad():
            out = self.pair.reference.generate(
                **self.theirs, max_new_tokens=GREEDY_TOKENS, do_sample=False, eos_token_id=None, **static
            )
        return out[0, self.theirs["input_ids"].shape[1] :].tolist()
