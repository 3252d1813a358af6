"""What a checkpoint's safetensors files hold, read from their headers alone.

A header names every tensor with type, shape and place, so a damaged or unfitting checkpoint is told before a single
weight is read. Format: https://github.com/huggingface/safetensors (8 bytes little-endian length, JSON, then the bytes).
"""

from __future__ import annotations

import json
import math
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..shown import shown_name
from .element_types import ELEMENT_TYPES
from .foreign import advice, packed_elsewhere
from .weight_files import safetensors_files

# A header is a few hundred bytes a tensor, 6 MB for a packed 26B with every expert by itself. The format
# allows 100 MB, from which a hostile file makes 2 GB of objects. More than this is not a Gemma 4.
_LONGEST_HEADER = 10_000_000
_MOST_DIMENSIONS = 16


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
                    f"{shown_name(name)} is in both {tensors[name].file.name} and {file.name}: remove one of them"
                )
            tensors[name] = header
    if (packed := packed_elsewhere(tensors)) is not None:
        whose, name = packed
        raise CheckpointError(
            f"{folder} is quantized by {whose} ({shown_name(name)}), not for MLX: {advice({}, folder.name)}"
        )
    return tensors


def read_header(file: Path) -> dict[str, TensorHeader]:
    """Every tensor of one safetensors file.

    Raises:
        CheckpointError: the file cannot be read, is truncated, is not safetensors, or breaks a rule of the format.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise CheckpointError(f"{file} is not a file: download it again")
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise CheckpointError(f"{file} is not a whole safetensors file: download it again")
            header = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}): download it again") from error
    try:
        return _tensors(json.loads(header.decode("utf-8"), object_pairs_hook=_no_name_twice), file, 8 + length, size)
    except RecursionError:
        problem = "it is nested too deep"
    except UnicodeDecodeError:
        problem = "it is no text"
    except json.JSONDecodeError:
        problem = "it is no JSON"
    except ValueError as error:
        problem = str(error)
    raise CheckpointError(f"{file} has a damaged header ({problem}): download it again")


def _tensors(entries: Any, file: Path, start: int, size: int) -> dict[str, TensorHeader]:
    """The entries of a header, held to the format's rules, as the safetensors library's own `validate` does: tensors
    lie one after another, from the header's end to the file's, in any order, each as long as its type and shape say.

    Args:
        start: where the tensors begin in the file.
        size: of the file.

    Raises:
        ValueError: a rule is broken; the tensor is named.
        CheckpointError: the file is shorter than its header says.
    """
    if not isinstance(entries, dict):
        raise ValueError("it is no object")
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts")
    tensors = {name: _tensor(name, entry, file, start) for name, entry in entries.items()}
    end, last = start, "the header"
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if tensor.offset != end:
            raise ValueError(f"{shown_name(name)} does not begin where {shown_name(last)} ends")
        end, last = tensor.offset + tensor.nbytes, name
    if end > size:
        raise CheckpointError(f"{file} is truncated ({shown_name(last)} ends after the file does): download it again")
    if end < size:
        raise ValueError(f"{size - end} bytes follow the last tensor")
    return tensors


def _tensor(name: str, entry: Any, file: Path, start: int) -> TensorHeader:
    called = shown_name(name)
    if not isinstance(entry, dict):
        raise ValueError(f"{called} is not described")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in ELEMENT_TYPES:
        raise ValueError(f"{called} is of the unknown type {shown_name(str(dtype))}")
    if not (isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS and all(map(_is_size, shape))):
        raise ValueError(f"{called} has no shape")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_size, offsets))):
        raise ValueError(f"{called} has no place")
    begin, end = offsets
    if math.prod(shape) * ELEMENT_TYPES[dtype].bits != 8 * (end - begin):
        raise ValueError(f"{called} is not as long as its type and shape say")
    return TensorHeader(file, dtype, tuple(shape), start + begin, end - begin)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{shown_name(name)} stands in it twice")
        found[name] = value
    return found
