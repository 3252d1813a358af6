"""From a training checkpoint to a folder any Gemma 4 loader takes: bfloat16 weights, measured clamps, settings."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers.models.gemma4.modeling_gemma4 import Gemma4ClippableLinear

from . import card, checksums, four_bits, tokenizer, train
from .decoder import Together, batches
from .speech_data import SpeechData

MARGIN = 1.5  # of the largest value seen: real checkpoints clamp well outside what occurs


@torch.no_grad()
def set_bounds(together: Together, data: SpeechData, rounds: int = 6) -> None:
    """Gives every clamped linear of both towers finite bounds around what training data makes of it."""
    seen: dict[Gemma4ClippableLinear, list[float]] = {}
    hooks = []
    for module in together.model.modules():
        if isinstance(module, Gemma4ClippableLinear):
            seen[module] = [0.0, 0.0]

            def watch(layer: Gemma4ClippableLinear, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
                seen[layer][0] = max(seen[layer][0], inputs[0].abs().max().item())
                seen[layer][1] = max(seen[layer][1], output.abs().max().item())

            hooks.append(module.register_forward_hook(watch))
    rng = random.Random(11)
    together.eval()
    for _ in range(rounds):
        for kind, budget in (("speech", 0), ("picture", 70), ("picture", 280)):
            for batch in batches(data, rng, kind, 7, budget):
                together.soft_tokens(batch, budget, None, False)
    for hook in hooks:
        hook.remove()
    for module, (inside, outside) in seen.items():
        for name, bound in (("input", inside * MARGIN), ("output", outside * MARGIN)):
            getattr(module, f"{name}_min").fill_(-bound)
            getattr(module, f"{name}_max").fill_(bound)


def write(together: Together, folder: Path) -> None:
    """Writes config.json, model.safetensors (bfloat16) and the tokenizer's and processor's files."""
    tokenizer.write(folder)
    generation = (folder / "generation_config.json").read_text()
    model = together.model.to(torch.bfloat16)
    model.save_pretrained(folder)
    # save_pretrained writes its own idea of the generation settings.
    (folder / "generation_config.json").write_text(generation)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(as_published(config), indent=2, sort_keys=True) + "\n")


def as_published(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json of transformers 5.23 in the spelling of Google's checkpoints, which mlx-lm and mlx-vlm read."""
    text = dict(config["text_config"])
    (text["global_head_dim"],) = {layer["head_dim"] for layer in text.pop("per_layer_config").values()}
    # mlx-lm takes the vocabulary's size from the top, where Google's need none because it is mlx-lm's default.
    return config | {"text_config": text, "vocab_size": text["vocab_size"]}


def run(work: Path) -> Path:
    """Exports the last checkpoint to ``work``/export, evaluates what was exported, writes the card with the numbers and
    the checksums by which the package takes the folder; returns that folder."""
    from . import evaluate

    folder = work / "export"
    together = train.together()
    together.load_state_dict(torch.load(work / "polish.pt", weights_only=True)["together"])
    four_bits.settle(together.model)
    set_bounds(together, SpeechData(work / "speech", 21))
    parameters = sum(p.numel() for p in together.model.parameters())
    write(together, folder)
    results = evaluate.table(evaluate.Judge(folder))
    (folder / "README.md").write_text(card.write(parameters, results, work), encoding="utf-8")
    checksums.write(folder)
    return folder


def put(made: Path, folder: Path) -> None:
    """Copies a finished export to where it is to be, file by file in the place of what was there before."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(made.iterdir()):
        unfinished = folder / f".{file.name}.unfinished"
        shutil.copyfile(file, unfinished)
        unfinished.replace(folder / file.name)
