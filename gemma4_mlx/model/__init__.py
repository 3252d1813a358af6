"""The model: Gemma 4's arithmetic on MLX arrays. It knows no file, no text and no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..doors import door

if TYPE_CHECKING:
    from .gemma4 import Gemma4
    from .inputs import ImagePatches, ModelInputs

__all__ = [
    "Gemma4",
    "ImagePatches",
    "ModelInputs",
]

__getattr__ = door(
    __name__,
    {
        "Gemma4": "gemma4",
        "ImagePatches": "inputs",
        "ModelInputs": "inputs",
    },
)
