"""One picture from anywhere → upright RGB pixels → the patches a Gemma 4 vision tower reads.

The same steps in the same arithmetic as the reference's Pillow processor, so that patches are equal to the bit.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO

import mlx.core as mx
import numpy as np

from ..config import DEFAULT_IMAGE_TOKENS, IMAGE_TOKEN_BUDGETS
from ..errors import InputError, MediaWarning
from ..model.inputs import ImagePatches
from .jpeg_scans import jpeg_scans
from .limits import JPEG_SCANS, LARGE_PICTURE_PIXELS, MEGAPIXEL, PICTURE_FORMATS, PICTURE_PIXELS
from .sources import FORMS, FileSource, Source, reason, resolve_source

if TYPE_CHECKING:
    from PIL.Image import Image

PATCH_SIZE = 16
POOLING = 3
# One soft token covers this many pixels each way.
TOKEN_SIZE = PATCH_SIZE * POOLING

_AS_UNIT_FLOAT = (np.arange(256) * (1 / 255)).astype(np.float32)


def load_image(source: Any) -> Image:
    """A picture as a viewer would show it: first frame, upright, RGB.

    Args:
        source: a path, URL, bytes or open file: PNG, JPEG, WebP, HEIC, GIF and what else `limits.py` names; a Pillow
            image; or an array `[h, w]`, `[h, w, 1]`, `[h, w, 3]` or `[h, w, 4]`, uint8, uint16, or float in [0, 1].

    Raises:
        InputError: no such file, not a picture, damaged, or too large to be unpacked safely.
    """
    from PIL import Image

    if isinstance(source, FileSource):
        return _decoded(resolve_source(source, "picture"))
    if not isinstance(source, Image.Image):
        return _upright_rgb(_from_array(source), "the picture")
    try:
        source.load()
    # Where the file is closed, Pillow raises one of the first two.
    except (AssertionError, AttributeError, *_DECODER_ERRORS) as error:
        raise InputError(
            "the picture is closed or damaged: open it again, and load() it before its file is closed"
        ) from error
    return _upright_rgb(source, "the picture")


def image_patches(image: Image, image_tokens: int = DEFAULT_IMAGE_TOKENS, name: str = "the picture") -> ImagePatches:
    """`patches` of `resized`: an RGB picture as the vision tower reads it. Raises as `resized`."""
    return patches(resized(image, image_tokens, name))


def resized(image: Image, image_tokens: int = DEFAULT_IMAGE_TOKENS, name: str = "the picture") -> Image:
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
    rows, columns = image.height // PATCH_SIZE, image.width // PATCH_SIZE
    pixels = _AS_UNIT_FLOAT[np.asarray(image)]  # [height, width, 3]
    cut = pixels.reshape(rows, PATCH_SIZE, columns, PATCH_SIZE, 3).transpose(0, 2, 1, 3, 4)
    return ImagePatches(mx.array(cut.reshape(rows * columns, -1)), rows, columns)


def token_grid(height: int, width: int, image_tokens: int, name: str = "the picture") -> tuple[int, int]:
    """Rows and columns of soft tokens for a picture: as many as the budget allows at its proportions.

    Both sides are scaled by the factor that would use the budget up, then rounded down to whole soft tokens of 48
    pixels. The reference stretches a picture whose shorter side rounds to 0. The model would then see something else
    than the picture, so such a picture is refused here.

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
    if image_tokens not in IMAGE_TOKEN_BUDGETS:
        raise ValueError(
            f"image_tokens must be one of {', '.join(map(str, IMAGE_TOKEN_BUDGETS))}, not {image_tokens!r}"
        )


def _decoded(file: Source) -> Image:
    is_cut_off = False
    # Pillow warns of odd tags and of large photographs; a picture is either usable or an error.
    with file.open() as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _opened(stream, file.name)
        try:
            image.load()
        except _DECODER_ERRORS as error:
            # Every viewer shows a JPEG that ends too early, with grey for the missing part.
            if image.format not in _JPEGS or "truncated" not in str(error):
                raise _damaged(file.name, error) from error
            is_cut_off = True
            stream.seek(0)
            image = _opened(io.BytesIO(stream.read() + _END_OF_JPEG), file.name)
            try:
                image.load()
            except _DECODER_ERRORS:
                raise _damaged(file.name, error) from error
        upright = _upright_rgb(image, file.name)
    if is_cut_off:
        warnings.warn(f"{file.name} is cut off: the end of the picture is missing", MediaWarning, 2)
    return upright


def is_picture(head: bytes) -> bool:
    """Whether a file that begins like this is to be read by `load_image`, which says what is wrong with it if not."""
    import pillow_heif
    from PIL import Image

    pillow_heif.register_heif_opener()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Image.open(io.BytesIO(head), formats=PICTURE_FORMATS).close()
        except Image.DecompressionBombError:
            return True
        except _DECODER_ERRORS:
            return False
    return True


def _opened(stream: BinaryIO, name: str) -> Image:
    """A picture of which only the header has been read; nothing is unpacked yet.

    Raises:
        InputError: it is none, or it claims more pixels than can be unpacked safely.
    """
    import pillow_heif
    from PIL import Image, JpegImagePlugin, UnidentifiedImageError

    pillow_heif.register_heif_opener()
    try:
        try:
            image: Image.Image = Image.open(stream, formats=PICTURE_FORMATS)
        except Image.DecompressionBombError:
            stream.seek(0)
            if not stream.read(3) == b"\xff\xd8\xff":
                raise
            stream.seek(0)
            image = JpegImagePlugin.JpegImageFile(stream)  # no limit here: `draft` makes it small
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a picture: give a PNG, JPEG, WebP, HEIC or GIF file") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name} has more pixels than can be unpacked safely: make it smaller than "
            f"{PICTURE_PIXELS['PNG'] // MEGAPIXEL} megapixels"
        ) from error
    except _DECODER_ERRORS as error:
        raise _damaged(name, error) from error
    pixels, most = image.width * image.height, PICTURE_PIXELS[image.format or "PNG"]
    if pixels > most:
        raise InputError(
            f"{name} has more pixels than can be unpacked safely: {image.format} is read up to {most // MEGAPIXEL} "
            f"megapixels, and this one has {math.ceil(pixels / MEGAPIXEL)}: make it smaller"
        )
    if image.format in _JPEGS:
        stream.seek(0)
        scans = jpeg_scans(stream.read())
        if scans > JPEG_SCANS:
            raise InputError(
                f"{name} goes over its picture {scans} times, and {JPEG_SCANS} is the most: export or save it again"
            )
    if image.format in _JPEGS and pixels > LARGE_PICTURE_PIXELS:
        image.draft(None, (image.width // 2, image.height // 2))  # decoded at half its size, in a quarter of the memory
    return image


_JPEGS = ("JPEG", "MPO")
_END_OF_JPEG = b"\xff\xd9"


def _damaged(name: str, error: Exception) -> InputError:
    return InputError(f"{name} is damaged ({reason(error)}): export or save it again")


# On broken files: Pillow's decoders raise the first two, libheif ValueError and RuntimeError, tag parsers the rest.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, TypeError, LookupError, struct.error)


def _upright_rgb(image: Image, name: str) -> Image:
    import PIL.ImageOps

    if 0 in image.size:
        raise InputError(f"{name} has no pixels ({image.width}×{image.height}): give one that has")
    try:
        rgb = _rgb_in_strips(image)
        # If the orientation tag cannot be read the picture stays as it is: its pixels are whole.
        with contextlib.suppress(SyntaxError, ValueError, TypeError, LookupError, struct.error):
            rgb.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
            PIL.ImageOps.exif_transpose(rgb, in_place=True)
        return rgb
    except _DECODER_ERRORS as error:
        raise InputError(f"{name} cannot be turned into RGB ({reason(error)}): export or save it again") from error


_ORIENTATION = 0x0112
# Converting takes up to 30 bytes for a pixel. So a picture is converted in strips, never as a whole.
_STRIP_PIXELS = 8 * MEGAPIXEL


def _rgb_in_strips(image: Image) -> Image:
    """A picture as RGB, converted strip by strip; a very large one is divided by a whole number in both directions."""
    import PIL.Image

    width, height = image.size
    smaller = math.ceil(math.sqrt(width * height / LARGE_PICTURE_PIXELS))
    white = _white(image)
    rows = max(1, _STRIP_PIXELS // (width * smaller)) * smaller
    if rows >= height and smaller == 1:
        return _rgb(image, white)
    rgb = PIL.Image.new("RGB", (math.ceil(width / smaller), math.ceil(height / smaller)))
    for top in range(0, height, rows):
        strip = _rgb(image.crop((0, top, width, min(top + rows, height))), white)
        rgb.paste(strip.reduce(smaller) if smaller > 1 else strip, (0, top // smaller))
    return rgb


def _rgb(image: Image, white: float) -> Image:
    import PIL.Image

    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image, white)
    if image.has_transparency_data:
        # White is what the reference's processor and most viewers put behind transparency; plain convert("RGB")
        # would bring out the colours hidden under it, mostly black, and black text on it would vanish.
        image = image.convert("RGBA")
        paper = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = PIL.Image.alpha_composite(paper, image)
    return image.convert("RGB")


def _white(image: Image) -> float:
    """The value of white in 16-bit, 32-bit and float greys."""
    if image.mode != "F":
        return 65_535.0
    greys = (image.crop((0, top, image.width, top + 1)) for top in range(image.height))
    return 1.0 if all(np.nan_to_num(np.asarray(row)).max() <= 1.0 for row in greys) else 255.0


def _eight_bits(image: Image, white: float) -> Image:
    """16-bit, 32-bit and float greys in 8 bits. Pillow's own conversion would clip them at 255, to white."""
    import PIL.Image

    grey = np.nan_to_num(np.asarray(image, dtype=np.float64)) * 255.0 / white
    return PIL.Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))


def _from_array(source: Any) -> Image:
    from PIL import Image

    try:
        array = np.asarray(source)
    except ValueError as error:
        raise InputError(f"the picture is not an array ({reason(error)}): give [h, w, 3]") from error
    if array.dtype.kind not in "uif" or array.size == 0:
        raise InputError(
            f"a picture cannot be a {type(source).__name__}: give {FORMS}, a Pillow image or an array [h, w, 3]"
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
