"""Weights that other programs packed, as MLX packs them, to the bit: no weight is rounded, only its bits are moved.

Two of the forms in which the makers publish their quantization-aware training are read:

- compressed-tensors' `pack-quantized` ("-qat-w4a16-ct"): `weight_packed`, signed whole numbers with an offset of
  2**(bits-1), eight of 4 bits in an int32 from its lowest bits on (`pack_to_int32` of compressed-tensors'
  `compressors/pack_quantized`), which is how MLX lays them; `weight_scale` of a group or a row; `weight_shape`.
- the makers' own of the mobile checkpoints (`quant_method` "gemma"; transformers' `integrations/gemma_quant.py`):
  `weight` or `embedding_quantized`, 2 or 4 bits of the same kind in bytes, or int8; `weight_scale` of a row, or
  `embedding_scale` of a row or blocks of it. What it measured of activations and caches is not read.

A number `k` times its scale is `scale * (k + offset) + bias` with `bias = -offset * scale`. The offset is a power of
two and so the bias exact. MLX's groups have 128 weights at most: a scale of more than that stands there several times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial

import mlx.core as mx

from ..errors import CheckpointError
from ..model import Gemma4
from ..shown import shown_name
from .sources import WHAT_TO_TAKE, Repacking, StoredTensor

_GROUPS = (128, 64, 32)  # MLX's, the largest first: each scale takes room
_BYTES = {"I32": 4, "U8": 1, "I8": 1}
_SCALES = ("F32", "F16", "BF16")
_BITS = {"I32": (4, 8), "U8": (2, 4), "I8": (8,)}


def in_mlx_packing(sources: Mapping[str, StoredTensor], model: Gemma4) -> dict[str, StoredTensor]:
    """Where each parameter comes from, once modules that others packed have the weights, scales and biases of MLX.

    Args:
        sources: from `find_sources`, with `weight_scale` beside the `weight` of such a module.
        model: not packed yet; it says how many weights a row has.

    Raises:
        CheckpointError: a module is packed in a way that is not known.
    """
    packable = {name: module for name, module in model.named_modules() if hasattr(module, "to_quantized")}
    found = dict(sources)
    for name in [name for name in sources if name.endswith(".weight_scale")]:
        module = name.removesuffix(".weight_scale")
        scale, weight = found.pop(name), found.pop(f"{module}.weight", None)
        if weight is None or module not in packable:
            raise CheckpointError(f"{shown_name(scale.stored)} is a scale of nothing that is there: {WHAT_TO_TAKE}")
        found.update(_repacked(module, weight, scale, packable[module].weight.shape[-1]))
    return found


def _repacked(module: str, weight: StoredTensor, scale: StoredTensor, columns: int) -> dict[str, StoredTensor]:
    called, stored = shown_name(weight.stored), weight.header.dtype
    if stored not in _BYTES:
        beside = f"{shown_name(scale.stored)} beside {stored}"
        raise CheckpointError(f"{called} is quantized by FP8 or alike ({beside}), not for MLX: {WHAT_TO_TAKE}")
    shape, scales = weight.header.shape, scale.header.shape
    if len(shape) != 2 or len(scales) != 2 or scales[0] != shape[0] or scale.header.dtype not in _SCALES:
        raise CheckpointError(f"{called} and its scale do not fit each other: {WHAT_TO_TAKE}")
    nbytes = shape[1] * _BYTES[stored]
    bits, bits_rest = divmod(nbytes * 8, columns)
    if bits_rest or bits not in _BITS[stored] or nbytes % 4:
        known = " or ".join(map(str, _BITS[stored]))
        raise CheckpointError(
            f"{called} has {nbytes} bytes for {columns} weights, which are not {known} bits for each: {WHAT_TO_TAKE}"
        )
    block, block_rest = divmod(columns, max(scales[1], 1))
    group = next((group for group in _GROUPS if block % group == 0), None)
    if block_rest or group is None:
        raise CheckpointError(
            f"{called} has {scales[1]} scales for {columns} weights, no groups of MLX: {WHAT_TO_TAKE}"
        )
    of_scales = partial(_scales, times=block // group)
    of_biases = partial(_scales, times=block // group, factor=-(1 << (bits - 1)))
    rows = (shape[0], columns // group)
    made = {
        "weight": (weight, Repacking((shape[0], nbytes // 4), "U32", _signed if stored == "I8" else _unsigned)),
        "scales": (scale, Repacking(rows, scale.header.dtype, of_scales)),
        "biases": (scale, Repacking(rows, scale.header.dtype, of_biases)),
    }
    return {f"{module}.{leaf}": dataclasses.replace(of, repacking=how) for leaf, (of, how) in made.items()}


def _unsigned(weight: mx.array) -> mx.array:
    """Rows of numbers that have their offset, the first in the lowest bits, as 32-bit words."""
    return weight.view(mx.uint32)


def _signed(weight: mx.array) -> mx.array:
    """Rows of int8 as 32-bit words of numbers with an offset of 128."""
    return (weight.view(mx.uint8) ^ 0x80).view(mx.uint32)


def _scales(scale: mx.array, times: int, factor: int = 1) -> mx.array:
    return factor * mx.repeat(scale, times, axis=-1)
