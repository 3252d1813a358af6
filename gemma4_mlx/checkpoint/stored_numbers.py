"""How numbers lie in a safetensors file, and the MLX arrays they become.

Weights are floating-point numbers in one of six formats. Two have 8 bits; bfloat16 and float16 have every value of the
first, float16 every one of the second. MLX reads four of the six itself; the other two are read here.
Format: https://github.com/huggingface/safetensors. The 8-bit formats: https://arxiv.org/abs/2209.05433.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError
from .headers import TensorHeader

#: Formats of weights: safetensors' name → the precision that holds their values and that models compute in. Only of
#: F64 something is lost: nothing on a Mac's GPU computes in 64 bits.
FLOATS = {
    "F64": mx.float32,
    "F32": mx.float32,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "F8_E4M3": mx.bfloat16,
    "F8_E5M2": mx.bfloat16,
}

#: What `mx.load` reads; a file that holds anything else it refuses whole.
READ_BY_MLX = frozenset(
    "F32 F16 BF16 F8_E4M3 F8_E8M0 I64 I32 I16 I8 U64 U32 U16 U8 BOOL C64".split()  # noqa: SIM905
)

# safetensors' name → how numpy reads it, the MLX array that is then made of the same bytes. numpy has no bfloat16.
_NUMPY_AND_MLX: dict[str, tuple[type[np.generic], mx.Dtype]] = {
    "F64": (np.float64, mx.float32),
    "F32": (np.float32, mx.float32),
    "F16": (np.uint16, mx.float16),
    "BF16": (np.uint16, mx.bfloat16),
    "F8_E4M3": (np.uint8, mx.uint8),
    "F8_E5M2": (np.uint8, mx.uint8),
    "U32": (np.uint32, mx.uint32),
    "U8": (np.uint8, mx.uint8),
}

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
    as_numpy, as_mlx = _NUMPY_AND_MLX[dtype]
    room = mx.array(np.zeros(shape, np.float32 if dtype == "F64" else as_numpy))
    memory = np.array(room, copy=False)
    return (room if room.dtype == as_mlx else room.view(as_mlx)), memory


def stored_as(dtype: str) -> type[np.generic]:
    """How numpy reads safetensors' `dtype`."""
    return _NUMPY_AND_MLX[dtype][0]


def read_numbers(header: TensorHeader, position: int, nbytes: int) -> mx.array:
    """`nbytes` of a stored tensor from byte `position` on, as a flat array of numbers.

    Raises:
        CheckpointError: the file became shorter.
    """
    as_numpy, as_mlx = _NUMPY_AND_MLX[header.dtype]
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
