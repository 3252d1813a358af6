"""Small random checkpoints that write varied text, for tests of generation.

The weights of `checkpoints.py` make a model that repeats its last token for ever: its embeddings, tied to the output,
drown out the layers. With smaller ones every layer has a say in every token, and a wrong cache shows at once.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gemma4_mlx
from checkpoints import build_checkpoint
from tiny_tokenizer import SPECIAL_IDS


@dataclass(frozen=True)
class Lively:
    """One checkpoint, three ways: transformers' model, ours with its processor, and the folder."""

    reference: Any
    model: gemma4_mlx.Gemma4
    processor: gemma4_mlx.Processor
    folder: Path
    keep: tempfile.TemporaryDirectory


@cache
def lively(variant: str) -> Lively:
    """The checkpoint of a variant, built at the first call."""
    keep = tempfile.TemporaryDirectory()
    folder = Path(keep.name)
    reference = build_checkpoint(folder, variant)
    with torch.no_grad():
        embeddings = reference.get_input_embeddings().weight
        embeddings.mul_(0.05)
        embeddings[: len(SPECIAL_IDS)] = 0  # tied to the output: no control token is ever the most likely one
    reference.save_pretrained(folder)
    model, processor = gemma4_mlx.load(folder)
    return Lively(reference, model, processor, folder, keep)


def prompt_of(length: int, seed: int = 0) -> list[int]:
    """Random ids of ordinary tokens."""
    return np.random.default_rng(seed).integers(len(SPECIAL_IDS), 512, length).tolist()
