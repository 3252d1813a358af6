"""Writing a safetensors file of planned size piece by piece, so that no tensor need ever be in memory whole.

Parameters pass through in blocks of rows: read from the source by position, cast, packed, written to their places.
Packing works within a row, so blocks give the same bits as the whole tensor would.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import mlx.core as mx
import numpy as np

from ..checkpoint.element_types import ELEMENT_TYPES
from ..checkpoint.sources import StoredTensor, in_our_order
from ..checkpoint.stored_numbers import read_numbers
from ..errors import CheckpointError
from ..shown import shown_name
from .conversion_plan import OutputParameter, OutputTensor, Shard
from .q4_0 import pack

# Bytes of a source read at once. With its cast and packed copies a few times this is all the memory a conversion takes.
_BLOCK_BYTES = 32 << 20


class ShardFile:
    """A safetensors file being written: each tensor grows from its first byte to its last."""

    def __init__(self, path: Path, tensors: list[OutputTensor]):
        # The widest elements first, so that every tensor starts at a multiple of its element's size.
        tensors = sorted(tensors, key=lambda tensor: -ELEMENT_TYPES[tensor.dtype].bits)
        entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
        end = 0
        for tensor in tensors:
            begin, end = end, end + tensor.nbytes
            entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        start = 8 + len(header)
        self._position = {}
        for tensor in tensors:
            self._position[tensor.name] = start
            start += tensor.nbytes
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._write(struct.pack("<Q", len(header)) + header, 0)

    def append(self, tensor: str, piece: mx.array) -> None:
        """Write the next piece of a tensor; what there is of it must arrive in order."""
        content = np.asarray(mx.contiguous(piece).flatten().view(mx.uint8)).data
        self._write(content, self._position[tensor])
        self._position[tensor] += len(content)

    def _write(self, content: bytes | memoryview, position: int) -> None:
        content = memoryview(content)
        while content:
            written = os.pwrite(self._descriptor, content, position)
            content, position = content[written:], position + written

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)


def write_shard(
    path: Path,
    shard: Shard,
    sources: dict[str, StoredTensor],
    dtype: mx.Dtype,
    on_written: Callable[[int], None],
) -> None:
    """Compute and write one file of a conversion.

    Args:
        path: the file; replaced if it exists.
        shard: what it will hold.
        sources: where each parameter, by our name, comes from.
        dtype: of everything that is not packed, and of scales.
        on_written: called with the bytes of each parameter's piece once it is written.

    Raises:
        CheckpointError: a source file became shorter, or weights that must be on a lattice are not.
        OSError: the disk is full, or the file cannot be written.
    """
    with ShardFile(path, list(shard.tensors)) as file:
        for parameter in shard.parameters:
            if sources[parameter.name].repacking is not None:
                module = parameter.name.removesuffix(".weight")
                pieces = [repacked(sources[f"{module}.{leaf}"], dtype) for leaf in ("weight", "scales", "biases")]
                for tensor, piece in zip(parameter.tensors, pieces, strict=True):
                    file.append(tensor.name, piece)
                on_written(sum(piece.nbytes for piece in pieces))
                mx.clear_cache()
                continue
            for block in blocks(sources[parameter.name], parameter):
                if parameter.exact:
                    pieces = pack_exactly(block, sources[parameter.name], dtype)
                elif parameter.packing is not None:
                    pieces = list(mx.quantize(block.astype(dtype), **parameter.packing.as_arguments()))
                else:
                    pieces = [block.astype(dtype)]
                for tensor, piece in zip(parameter.tensors, pieces, strict=True):
                    file.append(tensor.name, piece)
                on_written(sum(piece.nbytes for piece in pieces))
            mx.clear_cache()


def repacked(source: StoredTensor, dtype: mx.Dtype) -> mx.array:
    """The weight, scales or biases of a module that another program packed.

    Raises:
        CheckpointError: `dtype` has not every scale; the tensor is named.
    """
    header = source.header
    made = in_our_order(read_numbers(header, 0, header.nbytes).reshape(header.shape), source, source.shape)
    if made.dtype == mx.uint32:
        return made
    rounded = made.astype(dtype)
    if not mx.array_equal(rounded.astype(mx.float32), made.astype(mx.float32)).item():
        raise CheckpointError(
            f"{shown_name(source.stored)} in {header.file} has scales of more digits than the output would have: "
            "say --dtype float32, or load the checkpoint as it is"
        )
    return rounded


def pack_exactly(block: mx.array, source: StoredTensor, dtype: mx.Dtype) -> list[mx.array]:
    """Rows of a tensor on the lattice of `q4_0`: packed weight, scales, biases.

    Raises:
        CheckpointError: a weight is not on it; the tensor is named.
    """
    packed = pack(block, dtype)
    if packed.difference:
        raise CheckpointError(
            f"{shown_name(source.stored)} in {source.header.file} is not on the lattice of Q4_0 (its nearest point is "
            f"off by {packed.difference:.3g}): the recipe qat is for the makers' checkpoints that end in "
            "-qat-q4_0-unquantized; take the recipe 4bit for others"
        )
    return [packed.weight, packed.scales, packed.biases]


def is_on_lattice(source: StoredTensor, parameter: OutputParameter, dtype: mx.Dtype) -> bool:
    """Whether every weight of a tensor is on the lattice; the first that is not ends the search."""
    return all(pack(block, dtype).difference == 0 for block in blocks(source, parameter))


def blocks(source: StoredTensor, parameter: OutputParameter) -> Iterator[mx.array]:
    """A parameter in our order, in blocks `[rows, columns]`; one that must be turned round comes whole."""
    header = source.header
    if source.half is None and source.shape != parameter.shape:
        yield in_our_order(read_numbers(header, 0, header.nbytes).reshape(header.shape), source, parameter.shape)
        return
    columns = parameter.shape[-1] if parameter.shape else 1
    for begin, end in _spans(source):
        row_bytes = columns * ELEMENT_TYPES[header.dtype].bits // 8
        step = max(1, _BLOCK_BYTES // row_bytes) * row_bytes
        for position in range(begin, end, step):
            yield read_numbers(header, position, min(step, end - position)).reshape(-1, columns)


def _spans(source: StoredTensor) -> Iterator[tuple[int, int]]:
    """Byte ranges of a stored tensor that belong to the parameter: all of it, or one half of each expert's rows."""
    if source.half is None:
        yield 0, source.header.nbytes
        return
    half = source.header.nbytes // source.header.shape[0] // 2
    for expert in range(source.header.shape[0]):
        begin = (2 * expert + source.half) * half
        yield begin, begin + half
