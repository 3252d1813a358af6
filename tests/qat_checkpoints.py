"""Checkpoints in the forms in which the makers publish their quantization-aware training, made to the published layout.

Each begins as a random checkpoint whose weights were put on the lattice, so that what they stand for is known.
"""

from __future__ import annotations

import json
import re
import shutil
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


def compressed(packed: Path, plain: Path, variant: str) -> None:
    """The compressed-tensors form ("-qat-w4a16-ct") in `packed`, and in `plain` what it stands for."""
    tensors = unquantized(plain, variant)
    shutil.copytree(plain, packed)
    written: Tensors = {}
    for name, tensor in tensors.items():
        if not is_linear(name):
            written[name] = tensor
            continue
        steps, scale = steps_of(tensor)
        module = name.removesuffix(".weight")
        written[f"{module}.weight_packed"] = pack_to_int32(steps)
        written[f"{module}.weight_scale"] = scale
        written[f"{module}.weight_shape"] = torch.tensor(tensor.shape)
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    method = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}}
    save(packed, written, {**method, "ignore": ["lm_head"], "quantization_status": "compressed"})


def steps_of(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights on the lattice → the whole number of steps each is, and the steps of their groups."""
    groups = weight.float().unflatten(-1, (-1, 32))
    step = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)) / -8
    steps = (groups / torch.where(step == 0, 1, step)).round()
    return steps.flatten(-2).to(torch.int8), step.squeeze(-1).to(weight.dtype)


def pack_to_int32(steps: torch.Tensor) -> torch.Tensor:
    """Whole numbers of 4 bits, eight in an int32, as compressed-tensors packs them."""
    nibbles = (steps.to(torch.int64) + 8).unflatten(-1, (-1, 8))
    words = (nibbles << torch.arange(0, 32, 4)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


# Bits of the modules of a mobile checkpoint; the first pattern that is found in a name decides.
MOBILE_BITS = {r"per_layer_(input_gate|projection)": 8, r"embed_tokens": 4, r"mlp\.": 2, r"self_attn\.": 4}


def mobile(packed: Path, plain: Path, variant: str) -> None:
    """The makers' mobile form ("-qat-mobile-transformers") in `packed`, and in `plain` what it stands for."""
    tensors = {name: tensor.float() for name, tensor in unquantized(plain, variant).items()}
    shutil.copytree(plain, packed)
    written: Tensors = {}
    for name, tensor in tensors.items():
        pattern = next((pattern for pattern in MOBILE_BITS if re.search(pattern, name)), None)
        if "language_model" not in name or pattern is None or tensor.ndim != 2 or "norm" in name:
            written[name] = tensor
            continue
        bits, module = MOBILE_BITS[pattern], name.removesuffix(".weight")
        is_table = "embed_tokens" in name
        blocks = tensor.unflatten(-1, (-1, 32)) if "per_layer" in name and is_table else tensor[:, None]
        scale = (blocks.abs().amax(-1, keepdim=True) / 2 ** (bits - 1)).float()
        steps = (blocks / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        tensors[name] = (steps * scale).flatten(1)
        steps = steps.flatten(1).to(torch.int64)
        written[f"{module}.{'embedding_quantized' if is_table else 'weight'}"] = (
            steps.to(torch.int8) if bits == 8 else pack_to_bytes(steps, bits)
        )
        written[f"{module}.{'embedding_scale' if is_table else 'weight_scale'}"] = scale.squeeze(-1)
        if not is_table:
            written[f"{module}.input_activation_scale"] = torch.tensor(0.01)
            written[f"{module}.output_activation_scale"] = torch.tensor(0.02)
    written["model.language_model.layers.0.self_attn.k_cache_scale"] = torch.tensor(0.5)
    save(plain, tensors, {"algorithm": "qat"})
    modules = {pattern: {"num_bits": bits} for pattern, bits in MOBILE_BITS.items()}
    method = {"quant_method": "gemma", "num_bits": 4, "quantize_embeddings": True, "module_quant_configs": modules}
    save(packed, written, {**method, "modules_to_not_convert": ["vision_tower", "audio_tower"]})


def pack_to_bytes(steps: torch.Tensor, bits: int) -> torch.Tensor:
    """Whole numbers of 2 or 4 bits in bytes, the first in the lowest bits, as `_unpack_int4` of transformers reads."""
    few = (steps + 2 ** (bits - 1)).unflatten(-1, (-1, 8 // bits))
    return (few << torch.arange(0, 8, bits)).sum(-1).to(torch.uint8)
