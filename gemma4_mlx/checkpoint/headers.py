"""What a checkpoint's safetensors files hold, read from their headers alone.

A header names every tensor with type, shape and place, so a damaged or unfitting checkpoint is told before a single
weight is read. Format: https://github.com/huggingface/safetensors (8 bytes little-endian length, JSON, then the bytes).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from .foreign import advice, packed_elsewhere
from .weight_files import safetensors_files

# A header is a few hundred bytes a tensor; the format caps it at 100 MB. More means: not a safetensors file.
_LONGEST_HEADER = 100_000_000

_BITS_OF = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorHeader:
    """Where a tensor lies and how it is shaped.

    Attributes:
        file: the safetensors file.
        dtype: safetensors' name of the element type, such as `"BF16"` or `"U32"`.
        shape: as stored.
        offset: first byte, from the start of the file.
        nbytes: length in bytes.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def read_headers(folder: Path) -> dict[str, TensorHeader]:
    """Every tensor of a checkpoint folder by its stored name.

    Raises:
        CheckpointError: a file is missing, truncated, or not safetensors; two files hold the same tensor; or
            the tensors are packed for other machines.
    """
    tensors: dict[str, TensorHeader] = {}
    for file in safetensors_files(folder):
        for name, header in read_header(file).items():
            if name in tensors:
                raise CheckpointError(
                    f"{name} is in both {tensors[name].file.name} and {file.name}: remove one of them"
                )
            tensors[name] = header
    if (whose := packed_elsewhere(tensors)) is not None:
        raise CheckpointError(f"{folder} is quantized by {whose}, not for MLX: {advice({}, folder.name)}")
    return tensors


def read_header(file: Path) -> dict[str, TensorHeader]:
    """Every tensor of one safetensors file.

    Raises:
        CheckpointError: the file is truncated or not safetensors.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            raise CheckpointError(f"{file} is not a whole safetensors file: download it again")
        try:
            entries = dict(json.loads(stream.read(length)).items())
        except (ValueError, AttributeError):
            raise CheckpointError(f"{file} has a damaged header: download it again") from None
    tensors = {}
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        try:
            begin, end = entry["data_offsets"]
            shape, dtype = tuple(entry["shape"]), entry["dtype"]
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{file} has a damaged header: download it again") from None
        elements = 1
        for side in shape:
            elements *= side
        if dtype in _BITS_OF and elements * _BITS_OF[dtype] // 8 != end - begin:
            raise CheckpointError(f"{file} has a damaged header: download it again")
        offset = 8 + length + begin
        if 8 + length + end > size:
            raise CheckpointError(f"{file} is truncated ({name} ends after the file does): download it again")
        tensors[name] = TensorHeader(file, dtype, shape, offset, end - begin)
    return tensors
