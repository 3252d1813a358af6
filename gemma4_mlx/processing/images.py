"""One picture from anywhere → upright RGB pixels → the patches a Gemma 4 vision tower reads.

The same steps in the same arithmetic as the reference's Pillow processor, so that patches are equal to the bit.
"""

from __future__ import annotations

import contextlib
import math
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .sources import Source, reason, resolve_source, source_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..model.inputs import ImagePatches

# The budgets Gemma 4 was trained with.
IMAGE_TOKENS = (70, 140, 280, 560, 1120)
PATCH_SIZE = 16
POOLING = 3
# One soft token covers this many pixels each way.
TOKEN_SIZE = PATCH_SIZE * POOLING

_AS_UNIT_FLOAT = (np.arange(256) * (1 / 255)).astype(np.float32)


def load_image(source: Any) -> Image:
    """A picture as a viewer would show it: first frame, upright, RGB.

    Args:
        source: a path, URL or bytes of PNG, JPEG, WebP, HEIC, GIF or anything else Pillow reads; a Pillow image; or an
            array `[h, w]`, `[h, w, 1]`, `[h, w, 3]` or `[h, w, 4]`, uint8, uint16, or float in [0, 1].

    Raises:
        InputError: no such file, not a picture, damaged, or too large to be unpacked safely.
    """
    from PIL import Image

    if isinstance(source, str | Path | bytes | bytearray | memoryview):
        return _decoded(resolve_source(source, "picture"))
    if not isinstance(source, Image.Image):
        source = _from_array(source)
    return _upright_rgb(source, source_name(source, "picture"))


def image_patches(image: Image, image_tokens: int = 280, name: str = "the picture") -> ImagePatches:
    """`patches` of `resized`: an RGB picture as the vision tower reads it. Raises as `resized`."""
    return patches(resized(image, image_tokens, name))


def resized(image: Image, image_tokens: int = 280, name: str = "the picture") -> Image:
    """An RGB picture of at most `image_tokens` soft tokens: both sides are multiples of 48 pixels.

    Args:
        name: what an error calls the picture.

    Raises:
        InputError: the picture is so narrow that one side would vanish.
        ValueError: `image_tokens` is not a budget of Gemma 4.
    """
    from PIL.Image import Resampling

    rows, columns = token_grid(image.height, image.width, image_tokens, name)
    size = (columns * TOKEN_SIZE, rows * TOKEN_SIZE)
    return image if image.size == size else image.resize(size, Resampling.BICUBIC)


def patches(image: Image) -> ImagePatches:
    """Cut an RGB picture into patches; both its sides are multiples of 48 pixels."""
    import mlx.core as mx

    from ..model.inputs import ImagePatches

    rows, columns = image.height // PATCH_SIZE, image.width // PATCH_SIZE
    pixels = _AS_UNIT_FLOAT[np.asarray(image)]  # [height, width, 3]
    cut = pixels.reshape(rows, PATCH_SIZE, columns, PATCH_SIZE, 3).transpose(0, 2, 1, 3, 4)
    return ImagePatches(mx.array(cut.reshape(rows * columns, -1)), rows, columns)


def token_grid(height: int, width: int, image_tokens: int, name: str = "the picture") -> tuple[int, int]:
    """Rows and columns of soft tokens for a picture of so many pixels: the largest that keeps its proportions.

    Both sides are scaled by the factor that would use the budget up, then rounded down to whole soft tokens of 48
    pixels. The reference stretches a picture whose shorter side rounds to nothing; what the model would see then has
    little to do with the picture, so here it is refused.

    Raises:
        InputError: the longer side is more than about `image_tokens` times the shorter.
        ValueError: `image_tokens` is not a budget of Gemma 4.
    """
    check_image_tokens(image_tokens)
    scale = math.sqrt(image_tokens * TOKEN_SIZE**2 / (height * width))
    rows = math.floor(scale * height / TOKEN_SIZE)
    columns = math.floor(scale * width / TOKEN_SIZE)
    if rows == 0 or columns == 0:
        raise InputError(
            f"{name} is too narrow ({width}×{height}; at {image_tokens} image tokens one side may be at most "
            f"{image_tokens} times the other): crop it or cut it into several"
        )
    return rows, columns


def check_image_tokens(image_tokens: int) -> None:
    """Raise `ValueError` for a budget Gemma 4 was not trained with."""
    if image_tokens not in IMAGE_TOKENS:
        raise ValueError(f"image_tokens must be one of {', '.join(map(str, IMAGE_TOKENS))}, not {image_tokens!r}")


def _decoded(file: Source) -> Image:
    import pillow_heif
    from PIL import Image, UnidentifiedImageError

    pillow_heif.register_heif_opener()
    # Pillow warns of odd tags and of large photographs; a picture is either usable or an error.
    with file.open() as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(stream)
            image.load()
        except UnidentifiedImageError as error:
            raise InputError(f"{file.name} is not a picture: give a PNG, JPEG, WebP, HEIC or GIF file") from error
        except Image.DecompressionBombError as error:
            raise InputError(f"{file.name} has more pixels than can be unpacked safely: make it smaller") from error
        except _DECODER_ERRORS as error:
            raise InputError(f"{file.name} is damaged ({reason(error)}): export or save it again") from error
        return _upright_rgb(image, file.name)


# On broken files: Pillow's decoders raise the first two, libheif ValueError and RuntimeError, tag parsers the rest.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, TypeError, LookupError, struct.error)


def _upright_rgb(image: Image, name: str) -> Image:
    import PIL.Image
    import PIL.ImageOps

    if 0 in image.size:
        raise InputError(f"{name} has no pixels ({image.width}×{image.height}): give one that has")
    try:
        # An orientation tag that cannot be read turns nothing: the picture itself is whole.
        with contextlib.suppress(SyntaxError, ValueError, TypeError, LookupError, struct.error):
            image = PIL.ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":
            image = _eight_bits(image)
        if image.has_transparency_data:
            # White is what the reference's processor and most viewers put behind transparency; plain convert("RGB")
            # would bring out the colours hidden under it, mostly black, and black text on it would vanish.
            image = image.convert("RGBA")
            white = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = PIL.Image.alpha_composite(white, image)
        return image.convert("RGB")
    except _DECODER_ERRORS as error:
        raise InputError(f"{name} cannot be turned into RGB ({reason(error)}): export or save it again") from error


def _eight_bits(image: Image) -> Image:
    """16-bit, 32-bit and float greys: Pillow's own conversion clips at 255, which turns them white."""
    import PIL.Image

    grey = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode != "F":
        grey /= 257.0
    elif grey.max() <= 1.0:
        grey *= 255.0
    return PIL.Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))


def _from_array(source: Any) -> Image:
    from PIL import Image

    try:
        array = np.asarray(source)
    except ValueError as error:
        raise InputError(f"the picture is not an array ({reason(error)}): give [h, w, 3]") from error
    if array.dtype.kind not in "uif" or array.size == 0:
        raise InputError(
            f"a picture cannot be a {type(source).__name__}: "
            "give a path, a URL, bytes, a Pillow image or an array [h, w, 3]"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(f"the picture is an array of shape {array.shape}: give [h, w], [h, w, 3] or [h, w, 4]")
    if array.dtype == np.uint16:
        array = (array / 257.0).round().astype(np.uint8)
    elif array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise InputError("the picture is a float array with values outside [0, 1]: scale it, or give uint8")
        array = (array * 255.0).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"the picture is an array of {array.dtype}: give uint8, uint16, or float in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array))
