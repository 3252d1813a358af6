"""The Q4_0 lattice, on which the makers' quantization-aware training left the weights, and its exact form in MLX.

A group of 32 weights is `d * k` with one `d` and whole numbers `k` from -8 to 7. In MLX's affine packing of 4 bits that
is `scale = d`, `bias = -8 * d` and `q = k + 8`. As in llama.cpp (`quantize_row_q4_0_ref` in ggml-quants.c) and mlx-lm
(its pull request 1646), `d` is the weight of largest magnitude, with its sign, divided by -8. That is exact in the
precision of the weights, so scales need no more bits than those: with bfloat16 a weight takes 4 + 2 * 16 / 32 = 5 bits.
A grid from the smallest weight to the largest, which `mx.quantize` lays, takes the same and rounds them a second time.
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..checkpoint.quantization import Packing

Q4_0 = Packing(group_size=32, bits=4, mode="affine")

# What the weight of largest magnitude may be a multiple of, where it is not -8 times the step: in a group that somebody
# else's training left without a -8.
_OTHERS = (7, -7, 6, -6, 5, -5, 4, -4, 3, -3, 2, -2, 1, -1)
_FIRST = 256  # groups


class Packed(NamedTuple):
    """Rows in MLX's packing, as `mx.quantize` returns them, and what they are off by.

    Attributes:
        difference: the largest between a weight and what its packed form stands for, in the weights' precision.
    """

    weight: mx.array
    scales: mx.array
    biases: mx.array
    difference: float


def pack(rows: mx.array, dtype: mx.Dtype) -> Packed:
    """Pack weights `[..., columns]` that lie on the lattice.

    Args:
        rows: bfloat16, float16 or float32; the columns divide by 32.
        dtype: of the scales.
    """
    groups = rows.reshape(-1, Q4_0.group_size).astype(mx.float32)
    precision = _precision(rows)
    step, off = _on(groups, _largest(groups) / -8, dtype, precision)
    others = np.flatnonzero(np.array(off > 0))
    # What is on no lattice at all is told by its first groups.
    for some in (others[:_FIRST], others[_FIRST:]):
        if some.size:
            place = mx.array(some)
            step[place], off[place] = _other_step(groups[place], step[place], off[place], dtype, precision)
            if mx.any(off[place] > 0).item():
                break
    shifts = mx.arange(0, 32, Q4_0.bits, dtype=mx.uint32)
    words = (_multiples(groups, step) + 8).astype(mx.uint32).reshape(*rows.shape[:-1], -1, 32 // Q4_0.bits)
    weight = (words << shifts).sum(axis=-1).astype(mx.uint32)
    scales = step.astype(dtype).reshape(*rows.shape[:-1], -1)
    return Packed(weight, scales, -8 * scales, float(np.array(mx.max(off))))


def _other_step(
    groups: mx.array, step: mx.array, off: mx.array, dtype: mx.Dtype, precision: mx.Dtype
) -> tuple[mx.array, mx.array]:
    """For each group the best of the steps of which its largest weight is another multiple than -8."""
    largest = _largest(groups)
    for multiple in _OTHERS:
        for candidate in _neighbours(largest / multiple, dtype):
            other, other_off = _on(groups, candidate, dtype, precision)
            step, off = mx.where(other_off < off, other, step), mx.minimum(other_off, off)
    return step, off


def _largest(groups: mx.array) -> mx.array:
    """Of each group, the weight of largest magnitude, with its sign."""
    return mx.take_along_axis(groups, mx.argmax(mx.abs(groups), axis=-1, keepdims=True), axis=-1)


def _on(groups: mx.array, step: mx.array, dtype: mx.Dtype, precision: mx.Dtype) -> tuple[mx.array, mx.array]:
    """Groups on the lattice of `step`: the step as it will be stored, and how far off the farthest weight is."""
    stored = step.astype(dtype).astype(mx.float32)
    off = mx.abs((_multiples(groups, stored) * stored).astype(precision).astype(mx.float32) - groups)
    # What is no number is on no lattice.
    return stored, mx.max(mx.where(mx.isfinite(off), off, mx.inf), axis=-1, keepdims=True)


def _multiples(groups: mx.array, step: mx.array) -> mx.array:
    return mx.clip(mx.round(groups / mx.where(step == 0, 1, step)), -8, 7)


def _neighbours(step: mx.array, dtype: mx.Dtype) -> list[mx.array]:
    """A step in the scales' precision, and the next ones to it: a seventh of a rounded number may be beside it."""
    nearest = step.astype(dtype)
    bits = nearest.view(mx.uint32 if dtype == mx.float32 else mx.uint16)
    return [nearest, (bits + 1).view(dtype), mx.where(nearest == 0, nearest, (bits - 1).view(dtype))]


def _precision(rows: mx.array) -> mx.Dtype:
    """The precision in which the weights were rounded: bfloat16 also where a wider type holds nothing but such."""
    if rows.dtype == mx.float32 and mx.all(rows.astype(mx.bfloat16).astype(mx.float32) == rows).item():
        return mx.bfloat16
    return rows.dtype
