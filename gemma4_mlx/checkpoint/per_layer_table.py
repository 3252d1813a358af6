"""The per-layer-embedding table, left on disk: rows are read as tokens ask for them.

The table is close to half of E2B's parameters, and a token needs one row of it (18 kB in bf16). Rows are read from the
safetensors file as it stands, by position: unlike with a memory map, a file that shrinks is an error and not a crash. A
file that is removed can still be read until the model goes.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError
from .element_types import in_numpy
from .quantization import Packing, dequantize_rows
from .sources import StoredTensor
from .stored_numbers import blank, decoded


class _RowFile:
    """Rows of one two-dimensional tensor in a file."""

    def __init__(self, source: StoredTensor):
        header = source.header
        self._header, self._repacking = header, source.repacking
        self._columns = header.shape[1]
        self._row_bytes = header.nbytes // header.shape[0]
        self._descriptor = os.open(header.file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._version = self._current_version()

    def _current_version(self) -> tuple[int, int]:
        stat = os.fstat(self._descriptor)
        return stat.st_size, stat.st_mtime_ns

    def blank(self, count: int) -> tuple[mx.array, np.ndarray]:
        """`count` rows as numbers that can be computed with, and the memory that `read` has to fill before they are."""
        room, memory = blank((count, self._columns), self._header.dtype)
        rows = decoded(room, self._header.dtype)
        return (rows if self._repacking is None else self._repacking.of(rows)), memory

    def read(self, rows: np.ndarray, memory: np.ndarray) -> None:
        """Read `rows` int `[n]` into `memory` `[n, columns]`.

        Raises:
            CheckpointError: the file is not what it was.
        """
        if self._current_version() != self._version:
            raise CheckpointError(f"{self._header.file} was changed while in use: load the model again")
        stored = in_numpy(self._header.dtype)
        for row, place in zip(rows.tolist(), memory, strict=True):
            read: np.ndarray = place if place.dtype == stored else np.empty(place.shape, stored)
            if os.preadv(self._descriptor, [read.data], self._header.offset + row * self._row_bytes) != self._row_bytes:
                raise CheckpointError(f"{self._header.file} became shorter while in use: download it again")
            if read is not place:
                place[:] = read  # 64-bit floats are rounded to 32 bits


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
        weight: StoredTensor,
        scales: StoredTensor | None,
        biases: StoredTensor | None,
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
        found, read = self.rows_to_come(len(rows))
        read(rows)
        return found[mx.array(place.reshape(ids.shape))]

    def rows_to_come(self, count: int) -> tuple[mx.array, Callable[[np.ndarray], None]]:
        """Rows that a graph can be built with before anybody knows which ones they are.

        Returns:
            `[count, layers * per_layer_dim]`, and what must be called with their ids, int `[count]`, before the rows
            or anything made of them is evaluated.
        """
        rooms = [(file, *file.blank(count)) for file in (self._weight, self._scales, self._biases) if file is not None]
        found, *scales_and_biases = [room for _, room, _ in rooms]
        if scales_and_biases:
            assert self._packing is not None
            scales, biases = scales_and_biases[0], None
            if self._biases is not None:
                scales, biases = scales.astype(self._dtype), scales_and_biases[1].astype(self._dtype)
            found = dequantize_rows(found, scales, biases, self._packing)

        def read(rows: np.ndarray) -> None:
            for file, _, memory in rooms:
                file.read(rows, memory)

        return found.astype(self._dtype), read
