"""The one table of element types: what a safetensors file calls them, and what NumPy and MLX make of their bytes.

Format: https://github.com/huggingface/safetensors. The 8-bit floats: https://arxiv.org/abs/2209.05433.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np


@dataclass(frozen=True)
class ElementType:
    """A type of number in a safetensors file.

    Attributes:
        name: the format's.
        bits: of one element.
        mlx_reads: `mx.load` knows it. A file that holds any other type it refuses whole.
        weights: of a format of weights, the precision that holds its values and that models compute in; None: a type
            that no weights are in. Only of F64 something is lost: nothing on a Mac's GPU computes in 64 bits.
        in_numpy: what NumPy reads its bytes as; NumPy has no bfloat16.
        in_mlx: the array that is made of the same bytes.
    """

    name: str
    bits: int
    mlx_reads: bool = False
    weights: mx.Dtype | None = None
    in_numpy: type[np.generic] | None = None
    in_mlx: mx.Dtype | None = None


_ALL = (
    ElementType("F64", 64, False, mx.float32, np.float64, mx.float32),
    ElementType("F32", 32, True, mx.float32, np.float32, mx.float32),
    ElementType("F16", 16, True, mx.float16, np.uint16, mx.float16),
    ElementType("BF16", 16, True, mx.bfloat16, np.uint16, mx.bfloat16),
    # bfloat16 and float16 have every value of the first of these, float16 every one of the second.
    ElementType("F8_E4M3", 8, True, mx.bfloat16, np.uint8, mx.uint8),
    ElementType("F8_E5M2", 8, False, mx.bfloat16, np.uint8, mx.uint8),
    # What packed weights and their scales are stored in.
    ElementType("U32", 32, True, None, np.uint32, mx.uint32),
    ElementType("U8", 8, True, None, np.uint8, mx.uint8),
    # What other programs pack weights in; their bytes are moved, not their numbers.
    ElementType("I32", 32, True, None, np.uint32, mx.uint32),
    ElementType("I8", 8, True, None, np.uint8, mx.uint8),
    # No Gemma 4 has these; a header that names them is read, and the tensor refused or left out by name.
    *(ElementType(name, bits, True) for name, bits in (("I64", 64), ("I16", 16))),
    *(ElementType(name, bits, True) for name, bits in (("U64", 64), ("U16", 16), ("BOOL", 8), ("C64", 64))),
    ElementType("F8_E8M0", 8, True),
    *(ElementType(name, bits) for name, bits in (("F8_E4M3FNUZ", 8), ("F8_E5M2FNUZ", 8))),
    *(ElementType(name, bits) for name, bits in (("F6_E2M3", 6), ("F6_E3M2", 6), ("F4", 4))),
)

#: By the format's name.
ELEMENT_TYPES = {element.name: element for element in _ALL}

#: Formats of weights, and the precision each is computed in.
FLOATS = {element.name: element.weights for element in _ALL if element.weights is not None}

#: The precisions a person can ask for, and the type in which a file has them.
PRECISIONS = {
    name: ELEMENT_TYPES[stored] for name, stored in (("bfloat16", "BF16"), ("float16", "F16"), ("float32", "F32"))
}


def precision(name: str) -> mx.Dtype:
    """MLX's type for a key of `PRECISIONS`."""
    return FLOATS[PRECISIONS[name].name]


def precision_concern(dtype: mx.Dtype) -> str | None:
    """What there is to say against a precision to compute in, one line; None: nothing.

    MLX stores attention's scores in it, unscaled, where it has no fused kernel (fast.cpp), and nothing bounds what
    pictures are in it (vLLM issue 40290).
    """
    if dtype != mx.float16:
        return None
    return (
        "it computes in float16, where numbers beyond 65,504 overflow: if a long prompt or a picture is answered with "
        "nonsense, take a checkpoint in bfloat16, or load it with dtype='bfloat16' in Python"
    )


def in_numpy(name: str) -> type[np.generic]:
    """What NumPy reads the bytes of an element type as."""
    found = ELEMENT_TYPES[name].in_numpy
    assert found is not None, f"{name} is no type of weights"
    return found


def in_mlx(name: str) -> mx.Dtype:
    """The MLX type that is made of the bytes of an element type."""
    found = ELEMENT_TYPES[name].in_mlx
    assert found is not None, f"{name} is no type of weights"
    return found
