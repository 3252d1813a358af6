"""The per-layer-embedding table, left on disk: rows are read as tokens ask for them.

The table is close to half of E2B's parameters, and a token needs one row of it (18 kB in bf16). Rows are read from the
safetensors file as it stands, by position: unlike with a memory map, a file that shrinks is an error and not a crash. A
file that is removed can still be read until the model goes.
"""

from __future__ import annotations

import os

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError
from .headers import TensorHeader
from .quantization import Packing, dequantize_rows

# How numpy reads what MLX then takes for its own type; numpy has no bfloat16.
_NUMPY_AND_MLX = {
    "F32": (np.float32, mx.float32),
    "F16": (np.uint16, mx.float16),
    "BF16": (np.uint16, mx.bfloat16),
    "U32": (np.uint32, mx.uint32),
    "U8": (np.uint8, mx.uint8),
}


class _RowFile:
    """Rows of one two-dimensional tensor in a file."""

    def __init__(self, header: TensorHeader):
        self._header = header
        self._numpy, self._mlx = _NUMPY_AND_MLX[header.dtype]
        self._columns = header.shape[1]
        self._row_bytes = header.nbytes // header.shape[0]
        self._descriptor = os.open(header.file, os.O_RDONLY)
        self._version = self._current_version()

    def __del__(self) -> None:
        os.close(self._descriptor)

    def _current_version(self) -> tuple[int, int]:
        stat = os.fstat(self._descriptor)
        return stat.st_size, stat.st_mtime_ns

    def _offset(self, row: int) -> int:
        return self._header.offset + row * self._row_bytes

    def __call__(self, rows: np.ndarray) -> mx.array:
        if self._current_version() != self._version:
            raise CheckpointError(f"{self._header.file} was changed while in use: load the model again")
        pieces = [os.pread(self._descriptor, self._row_bytes, self._offset(row)) for row in rows.tolist()]
        if any(len(piece) != self._row_bytes for piece in pieces):
            raise CheckpointError(f"{self._header.file} became shorter while in use: download it again")
        buffer = np.frombuffer(b"".join(pieces), dtype=self._numpy).reshape(len(rows), self._columns)
        array = mx.array(buffer)
        return array if array.dtype == self._mlx else array.view(self._mlx)


class PerLayerTable:
    """Stands in for `nn.Embedding` (or its quantized form): ids → rows.

    Args:
        weight: the table `[vocab, layers * per_layer_dim]`, packed if quantized.
        scales, biases: of a quantized table.
        packing: of a quantized table.
        dtype: of the rows returned.
    """

    def __init__(
        self,
        weight: TensorHeader,
        scales: TensorHeader | None,
        biases: TensorHeader | None,
        packing: Packing | None,
        dtype: mx.Dtype,
    ):
        self._weight = _RowFile(weight)
        self._scales = _RowFile(scales) if scales else None
        self._biases = _RowFile(biases) if biases else None
        self._packing = packing
        self._dtype = dtype

    def __call__(self, ids: mx.array) -> mx.array:
        """Int `[B, L]` → `[B, L, layers * per_layer_dim]`, to the bit what the table in memory gives."""
        # Repeated ids (a prompt's commas, a batch) are read once.
        rows, place = np.unique(np.array(ids), return_inverse=True)
        found = self._weight(rows)
        if self._scales is not None:
            assert self._packing is not None
            scales, biases = self._scales(rows), self._biases(rows) if self._biases else None
            if biases is not None:
                scales, biases = scales.astype(self._dtype), biases.astype(self._dtype)
            found = dequantize_rows(found, scales, biases, self._packing)
        return found.astype(self._dtype)[mx.array(place.reshape(ids.shape))]
