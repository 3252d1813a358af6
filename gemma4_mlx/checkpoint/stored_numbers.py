"""How numbers lie in a safetensors file, and the MLX arrays they become.

Weights are floating-point numbers in one of the formats of `element_types`. Those that MLX cannot read are read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError
from .element_types import FLOATS, in_mlx, in_numpy
from .headers import TensorHeader

# Bytes read at once.
_BLOCK_BYTES = 32 << 20


def decoded(array: mx.array, dtype: str) -> mx.array:
    """An array as `mx.load` or `blank` give it → the numbers it stands for; `dtype` is safetensors' name."""
    if dtype == "F8_E4M3":
        return mx.from_fp8(array, mx.bfloat16)
    if dtype == "F8_E5M2":
        return (array.astype(mx.uint16) << 8).view(mx.float16)  # the upper byte of a float16
    return array


def blank(shape: tuple[int, ...], dtype: str) -> tuple[mx.array, np.ndarray]:
    """Room for stored numbers, and the same memory as a NumPy array, to write into (see `fill`).

    MLX documents that what is written through a NumPy view is seen by the array ("Conversion to NumPy").
    """
    as_numpy, as_mlx = in_numpy(dtype), in_mlx(dtype)
    room = mx.array(np.zeros(shape, np.float32 if dtype == "F64" else as_numpy))
    memory = np.array(room, copy=False)
    return (room if room.dtype == as_mlx else room.view(as_mlx)), memory


def read_numbers(header: TensorHeader, position: int, nbytes: int) -> mx.array:
    """`nbytes` of a stored tensor from byte `position` on, as a flat array of numbers.

    Raises:
        CheckpointError: the file became shorter.
    """
    as_numpy, as_mlx = in_numpy(header.dtype), in_mlx(header.dtype)
    buffer = np.empty(nbytes // np.dtype(as_numpy).itemsize, dtype=as_numpy)
    _read_into(buffer.data.cast("B"), header.file, header.offset + position)
    array = mx.array(buffer.astype(np.float32) if header.dtype == "F64" else buffer)
    return decoded(array if array.dtype == as_mlx else array.view(as_mlx), header.dtype)


def read_tensor(header: TensorHeader, dtype: mx.Dtype) -> mx.array:
    """A whole stored tensor, its floating-point numbers rounded to `dtype`, with little more memory than that takes."""
    pieces = []
    for position in range(0, header.nbytes, _BLOCK_BYTES):
        piece = read_numbers(header, position, min(_BLOCK_BYTES, header.nbytes - position))
        pieces.append(piece.astype(dtype) if header.dtype in FLOATS else piece)
        mx.eval(pieces[-1])
    return mx.concatenate(pieces).reshape(header.shape)


def same_content(first: TensorHeader, second: TensorHeader) -> bool:
    """Whether two stored tensors are the same to the bit; tensors that differ mostly do so in the first block."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return all(a == b for a, b in zip(_blocks(first), _blocks(second), strict=True))


def _blocks(header: TensorHeader) -> Iterator[bytearray]:
    for position in range(0, header.nbytes, _BLOCK_BYTES):
        block = bytearray(min(_BLOCK_BYTES, header.nbytes - position))
        _read_into(memoryview(block), header.file, header.offset + position)
        yield block


def _read_into(room: memoryview, file: Path, position: int) -> None:
    with file.open("rb", buffering=0) as stream:
        stream.seek(position)
        while room:
            count = stream.readinto(room)
            if not count:
                raise CheckpointError(f"{file} became shorter while being read: download it again")
            room = room[count:]
