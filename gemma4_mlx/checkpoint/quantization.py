"""How a checkpoint's modules are packed, told from the tensors themselves.

A module is quantized exactly when it has `.scales`. Bits, group size and mode follow from its shapes, so mixed bits and
configs that do not mention them (or mention them under other names) need no bookkeeping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import CheckpointError

# MLX's microscaling modes by (bits, group size); their scales are single bytes and they have no biases.
_MICROSCALING = {(4, 32): "mxfp4", (8, 32): "mxfp8", (4, 16): "nvfp4"}
_AFFINE_BITS = (2, 3, 4, 5, 6, 8)
_AFFINE_GROUPS = (32, 64, 128)


@dataclass(frozen=True)
class Packing:
    """Arguments of `mx.quantize` that would give a module's tensors their shapes."""

    group_size: int
    bits: int
    mode: str

    def as_arguments(self) -> dict[str, Any]:
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    @classmethod
    def of(cls, name: str, columns: int, packed_columns: int, scale_columns: int, has_biases: bool) -> Packing:
        """The packing of a module `name` with `columns` inputs.

        Args:
            name: for the error message.
            columns: of the unpacked weight.
            packed_columns: 32-bit words in a row of the packed weight.
            scale_columns: scales in a row.
            has_biases: whether the module has `.biases`, as only affine packing does.

        Raises:
            CheckpointError: no packing of MLX's gives these shapes.
        """
        bits, bits_rest = divmod(packed_columns * 32, columns)
        group_size, group_rest = divmod(columns, max(scale_columns, 1))
        if not bits_rest and not group_rest:
            if has_biases and bits in _AFFINE_BITS and group_size in _AFFINE_GROUPS:
                return cls(group_size, bits, "affine")
            if not has_biases and (bits, group_size) in _MICROSCALING:
                return cls(group_size, bits, _MICROSCALING[bits, group_size])
        raise CheckpointError(
            f"{name}: {packed_columns} packed columns with {scale_columns} scales do not hold {columns} weights in any "
            "quantization MLX has: convert the checkpoint again"
        )


def quantize_modules(model: nn.Module, packings: dict[str, Packing]) -> None:
    """Replace the named modules by quantized ones of the same shape, ready to be given packed weights."""
    nn.quantize(model, class_predicate=lambda path, _: packings[path].as_arguments() if path in packings else False)


def dequantize_rows(weight: mx.array, scales: mx.array, biases: mx.array | None, packing: Packing) -> mx.array:
    """Packed rows `[n, words]` → `[n, columns]`."""
    return mx.dequantize(weight, scales, biases, **packing.as_arguments())
