"""Checkpoints in the forms in which the makers publish their quantization-aware training, made to the published layout.

Each begins as a random checkpoint whose weights were put on the lattice, so that what they stand for is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from checkpoints import build_checkpoint

Tensors = dict[str, torch.Tensor]
# What the makers' compressed-tensors form packs: linear layers of the decoder.
LINEAR = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def is_linear(name: str) -> bool:
    """A tensor of the decoder's attention, MLP or experts."""
    module = name.removesuffix(".weight")
    return "language_model." in name and (module.endswith(LINEAR) or ".experts." in name)


def on_lattice(weight: torch.Tensor) -> torch.Tensor:
    """Weights rounded to steps of their group of 32. Steps have 5 digits: bfloat16 has each of their multiples."""
    groups = weight.float().unflatten(-1, (-1, 32))
    fraction, exponent = (groups.gather(-1, groups.abs().argmax(-1, keepdim=True)) / -8).frexp()
    step = ((fraction * 32).round() / 32).ldexp(exponent)
    steps = (groups / torch.where(step == 0, 1, step)).round().clamp(-8, 7)
    return (steps * step).bfloat16().flatten(-2)


def unquantized(folder: Path, variant: str, lies: Callable[[str], bool] = is_linear) -> Tensors:
    """The bfloat16 form, of which the tensors that `lies` says are on the lattice; what is written is returned."""
    build_checkpoint(folder, variant, seed=5, dtype=torch.bfloat16)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if lies(name):
            tensors[name] = on_lattice(tensor)
    save(folder, tensors, {"algorithm": "qat", "format": "q4_0"})
    return tensors


def save(folder: Path, tensors: Tensors, quantization: dict[str, object]) -> None:
    """Write the tensors of a checkpoint, and into its config.json how they are packed."""
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
