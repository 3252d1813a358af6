"""The model: Gemma 4's arithmetic on MLX arrays. It knows no file, no text and no terminal."""

from .gemma4 import Gemma4
from .inputs import ImagePatches, ModelInputs

__all__ = ["Gemma4", "ImagePatches", "ModelInputs"]
