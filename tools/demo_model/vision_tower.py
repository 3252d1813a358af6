"""Stage 2: the vision tower alone, with throw-away heads that say of every soft token what it lies on.

Colour, shape, and whether the thing is named first or second: learnt cell by cell this takes minutes, learnt from the
sentence alone it does not happen in hours.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import Gemma4ForConditionalGeneration
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from . import pictures
from .audio_tower import learning_rate
from .prompts import COLOURS, SHAPES

_PROCESSOR = Gemma4ImageProcessorPil()


def patches(images: list[Image.Image], soft_tokens: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Pictures → pixel values [B, 9 · soft_tokens, 768], positions [B, 9 · soft_tokens, 2], soft tokens of each.

    ``soft_tokens`` 0: as they are, sides multiples of 48.
    """
    out = _PROCESSOR(images, max_soft_tokens=soft_tokens or 70, do_resize=soft_tokens > 0, return_tensors="pt")
    # Patches past the longest picture of the batch are padding that every layer would carry along.
    longest = 9 * max(out["num_soft_tokens_per_image"])
    return (
        out["pixel_values"][:, :longest].float(),
        out["image_position_ids"][:, :longest],
        [int(n) for n in out["num_soft_tokens_per_image"]],
    )


def cell_labels(picture: pictures.Picture, positions: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """int64 [soft tokens, 3]: colour, shape, order (0 none, 1 first, 2 second), −100 where hardly touched;
    float32 [things, soft tokens]: how much of each cell a thing covers."""
    valid = positions[(positions >= 0).all(-1)]
    columns, rows = (int(valid[:, axis].max()) + 1 for axis in (0, 1))
    columns, rows = columns // 3, rows // 3
    labels = np.zeros((rows * columns, 3), dtype=np.int64)
    covers = []
    for order, ((colour, shape), mask) in enumerate(zip(picture.things, picture.masks, strict=True), 1):
        cover = np.asarray(mask.resize((columns, rows), Image.Resampling.BOX)).reshape(-1) / 255
        labels[cover > 0.01] = -100
        labels[cover > 0.1] = (COLOURS.index(colour) + 1, SHAPES.index(shape) + 1, order)
        covers.append(cover)
    return labels, np.stack(covers).astype(np.float32)


@torch.autocast("cpu", enabled=False)
def cell_loss(
    tokens: torch.Tensor, heads: nn.ModuleList, batch: list[pictures.Picture], positions: torch.Tensor
) -> tuple[torch.Tensor, list[float]]:
    """Cell by cell for colour, shape and order, and the shape once more from the mean over everything it touches:
    what tells shapes apart is at their edges, and no single cell sees enough of it."""
    labels, covers = zip(*(cell_labels(p, row) for p, row in zip(batch, positions, strict=True)), strict=True)
    target = torch.from_numpy(np.concatenate(labels))
    tokens = tokens.float()
    losses = []
    right = []
    for column, head in enumerate(heads[:3]):
        scores, wanted = head(tokens), target[:, column]
        weight = torch.where(wanted == 0, 0.15, 1.0) * (wanted != -100)
        each = F.cross_entropy(scores, wanted, ignore_index=-100, reduction="none") * weight
        losses.append(each.sum() / weight.sum())
        right.append((scores.argmax(-1) == wanted)[wanted > 0].float().mean().item())
    means, shapes = [], []
    for picture, cover, row in zip(batch, covers, tokens.split([len(part) for part in labels]), strict=True):
        for (_, shape), weights in zip(picture.things, cover, strict=True):
            share = torch.from_numpy(weights > 0.01).float()
            means.append(share @ row / share.sum().clamp(min=1))
            shapes.append(SHAPES.index(shape))
    scores = heads[3](torch.stack(means))
    losses.append(F.cross_entropy(scores, torch.tensor(shapes)))
    right.append((scores.argmax(-1) == torch.tensor(shapes)).float().mean().item())
    return losses[0] + 0.5 * losses[1] + losses[2] + 1.5 * losses[3], [x.item() for x in losses] + right


class VisionStage(nn.Module):
    """Patches → soft tokens of all pictures one after another [N, hidden]; four heads (see ``cell_loss``)."""

    def __init__(self, model: Gemma4ForConditionalGeneration) -> None:
        super().__init__()
        self.tower = model.model.vision_tower
        self.project = model.model.embed_vision
        hidden = self.project.text_hidden_size
        self.heads = nn.ModuleList(nn.Linear(hidden, n) for n in (len(COLOURS) + 1, len(SHAPES) + 1, 3, len(SHAPES)))

    def forward(self, pixels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self.project(self.tower(pixels, positions).last_hidden_state)


def train(stage: VisionStage, seed: int, checkpoint: Path, minutes: float, peak: float = 2e-3) -> None:
    """Small pictures first (four times as many shapes for the same work), then real budgets; close-ups of one thing
    first, then two things: what a thing is comes before which of the two is named first.

    Goes on from ``checkpoint`` if it exists.
    """
    import random

    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.02)
    step, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        stage.load_state_dict(saved["stage"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["spent"]
    started, saved_at = time.monotonic() - spent, time.monotonic()
    logged: list[list[float]] = []
    while (elapsed := time.monotonic() - started) < minutes * 60:
        progress = elapsed / (minutes * 60)
        rate = min(peak * (step + 1) / 200, learning_rate(int(progress * 10_000), 10_000, peak, 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        if rng.random() < (0.9 if progress < 0.7 else 0.3):
            budget = 0
            batch = [pictures.small_picture(rng, close_ups=0.6 if progress < 0.4 else 0.1) for _ in range(36)]
        else:
            budget = rng.choices([70, 140, 280], [2, 1, 1] if progress > 0.7 else [1, 0, 0])[0]
            batch = [pictures.random_picture(rng) for _ in range({70: 16, 140: 8, 280: 4}[budget])]
        pixels, positions, _ = patches([picture.image for picture in batch], budget)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = stage(pixels, positions)
        loss, numbers = cell_loss(tokens, stage.heads, batch, positions)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimizer.step()
        step += 1
        logged.append(numbers)
        if step % 50 == 0:
            print(f"vision {step} {elapsed / 60:.1f} min", np.mean(logged, axis=0).round(3).tolist(), flush=True)
            logged = []
        if time.monotonic() - saved_at > 120 or time.monotonic() - started >= minutes * 60:
            partial = checkpoint.with_suffix(".partial")
            torch.save(
                {"stage": stage.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": elapsed},
                partial,
            )
            partial.rename(checkpoint)
            saved_at = time.monotonic()
