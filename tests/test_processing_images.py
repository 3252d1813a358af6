"""Pictures from every source and in every form Pillow knows, against transformers' image processor."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import struct
import threading
import warnings
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from gemma4_mlx.config import IMAGE_TOKEN_BUDGETS
from gemma4_mlx.errors import InputError, MediaWarning
from gemma4_mlx.processing.images import image_patches, load_image, token_grid
from processing_reference import our_processor

REFERENCE = Gemma4ImageProcessorPil()
ORIENTATION = 0x0112


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    """Smooth, so that lossy formats keep it; no two corners alike, so that a turn shows."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(IMAGE_TOKEN_BUDGETS), st.integers(0, 9))
@settings(max_examples=60)
def test_patches_are_the_reference_s_to_the_bit(width: int, height: int, image_tokens: int, seed: int) -> None:
    if max(width, height) >= image_tokens * min(width, height):
        return  # refused here, stretched there
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    ours = image_patches(load_image(image), image_tokens)
    # Channels named, because the reference guesses wrongly for pictures one to three pixels wide.
    theirs = REFERENCE([image], max_soft_tokens=image_tokens, input_data_format="channels_first", return_tensors="np")
    soft_tokens = int(theirs["num_soft_tokens_per_image"][0])
    assert ours.rows * ours.columns == 9 * soft_tokens
    np.testing.assert_array_equal(np.array(ours.patches), theirs["pixel_values"][0][: 9 * soft_tokens])


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from(IMAGE_TOKEN_BUDGETS))
def test_the_grid_fills_the_budget_and_never_passes_it(height: int, width: int, image_tokens: int) -> None:
    try:
        rows, columns = token_grid(height, width, image_tokens)
    except InputError:
        assert max(height, width) > 0.99 * image_tokens * min(height, width)
        return
    assert rows >= 1
    assert columns >= 1
    assert rows * columns <= image_tokens < (rows + 1) * (columns + 1)


SOURCES = {
    "PNG": (encoded(gradient(), "PNG"), 0.0),
    "JPEG": (encoded(gradient(), "JPEG", quality=95), 2.0),
    "WebP": (encoded(gradient(), "WEBP", lossless=True), 0.0),
    "HEIC": (b"", 3.0),
    "GIF": (encoded(gradient(), "GIF"), 30.0),
    "TIFF": (encoded(gradient(), "TIFF"), 0.0),
    "CMYK JPEG": (encoded(gradient().convert("CMYK"), "JPEG", quality=95), 4.0),
}


@pytest.mark.parametrize("form", SOURCES)
def test_every_format_gives_the_picture(form: str, tmp_path: Path) -> None:
    content, tolerance = SOURCES[form]
    if form == "HEIC":
        pillow_heif.register_heif_opener()
        content = encoded(gradient(), "HEIF", quality=95)
    path = tmp_path / "picture"
    path.write_bytes(content)
    for source in (content, path, str(path), path.as_uri()):
        image = load_image(source)
        assert image.mode == "RGB"
        assert difference(image, gradient()) <= tolerance


def test_a_home_path_a_data_url_and_a_web_address_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(gradient(), "PNG")
    (tmp_path / "a b.png").write_bytes(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert difference(load_image("~/a b.png"), gradient()) == 0
    assert difference(load_image("data:image/png;base64," + base64.b64encode(content).decode()), gradient()) == 0

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        assert difference(load_image(f"{address}/a%20b.png"), gradient()) == 0
        with pytest.raises(InputError, match=r"c\.png cannot be fetched"):
            load_image(f"{address}/c.png")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_a_picture_taken_sideways_is_turned_upright(form: str) -> None:
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turn clockwise to see it upright
    sideways = gradient().transpose(Image.Transpose.ROTATE_90)
    image = load_image(encoded(sideways, form, exif=exif.tobytes()))
    assert difference(image, gradient()) < 4


def test_an_unreadable_orientation_turns_nothing() -> None:
    image = load_image(encoded(gradient(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff"))
    assert difference(image, gradient()) == 0


def test_only_the_first_frame_of_an_animation_is_seen() -> None:
    red, blue = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    for form in ("GIF", "WEBP", "PNG"):
        content = encoded(red, form, save_all=True, append_images=[blue])
        assert difference(load_image(content), red) < 3


def transparent(mode: str) -> Image.Image:
    image = gradient().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_transparency_is_laid_on_white_as_the_reference_lays_it(mode: str) -> None:
    image = transparent(mode if mode != "P" else "RGBA")
    if mode == "P":
        image = image.convert("RGB").convert("P")
        image.info["transparency"] = 3
    expected = np.moveaxis(REFERENCE.process_image(image, do_convert_rgb=True), 0, -1)
    np.testing.assert_array_equal(np.asarray(load_image(image)), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_colour_modes_are_converted_as_the_reference_converts_them(mode: str) -> None:
    image = gradient().convert("RGB").convert(mode) if mode != "RGBX" else Image.new("RGBX", (9, 9), (1, 2, 3, 4))
    expected = np.moveaxis(REFERENCE.process_image(image, do_convert_rgb=True), 0, -1)
    np.testing.assert_array_equal(np.asarray(load_image(image)), expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_deep_grey_keeps_its_shades(dtype: Any) -> None:
    eight_bits = np.asarray(gradient().convert("L"))
    deep = (eight_bits / 255).astype(dtype) if dtype is np.float32 else eight_bits.astype(dtype) * 257
    image = Image.fromarray(deep)
    content = encoded(image, "TIFF")
    for source in (image, content):
        np.testing.assert_array_equal(np.asarray(load_image(source))[:, :, 0], eight_bits)


def test_a_sixteen_bit_png_keeps_its_shades() -> None:
    eight_bits = np.asarray(gradient().convert("L"))
    image = load_image(encoded(Image.fromarray(eight_bits.astype(np.uint16) * 257), "PNG"))
    np.testing.assert_array_equal(np.asarray(image)[:, :, 1], eight_bits)


def test_arrays_are_pictures_too() -> None:
    pixels = np.asarray(gradient())
    for array in (
        pixels,
        pixels / 255,
        pixels.astype(np.uint16) * 257,
        np.dstack([pixels, np.full((40, 60), 255, np.uint8)]),
    ):
        np.testing.assert_array_equal(np.asarray(load_image(array)), pixels)
    assert load_image(pixels[:, :, 0]).size == load_image(pixels[:, :, :1]).size == (60, 40)


REFUSED_ARRAYS = {
    "one dimension": np.zeros(12, np.uint8),
    "five channels": np.zeros((4, 4, 5), np.uint8),
    "no pixels": np.zeros((0, 4, 3), np.uint8),
    "floats of 0 to 255": np.full((4, 4, 3), 200.0),
    "NaN": np.full((4, 4, 3), np.nan),
    "int64": np.zeros((4, 4, 3), np.int64),
    "a dict": {"image": 1},
    "None": None,
    "a ragged list": [[1, 2], [3]],
    "an empty Pillow image": Image.new("RGB", (0, 5)),
}


@pytest.mark.parametrize("name", REFUSED_ARRAYS)
def test_what_is_no_picture_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        load_image(REFUSED_ARRAYS[name])


PNG = encoded(gradient(), "PNG")
BROKEN = {
    "broken.png": (PNG[:60] + b"\0" * 20 + PNG[80:], "damaged"),
    "truncated.jpg": (SOURCES["JPEG"][0][:400], "damaged"),
    "truncated.png": (PNG[: len(PNG) // 2], "damaged"),
    "text.jpg": (b"Dear Anna, this is a letter.\n" * 9, "not a picture"),
    "empty.png": (b"", "empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_name_and_told_what_to_do(name: str, tmp_path: Path) -> None:
    content, words = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    message = {"role": "user", "content": [{"type": "image", "image": str(path)}]}
    with pytest.raises(InputError, match=words) as caught:
        our_processor()([message])
    assert str(caught.value).startswith(str(path))
    assert ": " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_a_missing_file_and_a_pipe_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not a picture"):
        load_image(tmp_path)
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        load_image(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        load_image(tmp_path / "pipe")
    for path in ("a\0b.png", "x" * 5000, "~nobody-of-this-name/a.png", "two\nlines.png"):
        with pytest.raises(InputError) as caught:
            load_image(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


def test_a_picture_of_one_pixel_by_5000_is_refused_by_name(tmp_path: Path) -> None:
    for size in ((1, 5000), (5000, 1)):
        path = tmp_path / "line.png"
        Image.new("RGB", size).save(path)
        message = {"role": "user", "content": [{"type": "image", "image": path}]}
        with pytest.raises(InputError, match=r"line\.png is too narrow .* crop it"):
            our_processor()([message], image_tokens=1120)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(InputError, match=r"bomb\.png has more pixels than can be unpacked safely"):
        load_image(tmp_path / "bomb.png")


def test_a_jpeg_that_goes_over_its_picture_without_end_is_refused() -> None:
    content = encoded(gradient(64, 48), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    honest, last = content.count(b"\xff\xda"), content[start:-2]
    many = content[:-2] + last * 10_000 + b"\xff\xd9"
    for hidden in (many, many.replace(last, b"\xff\x01\xff\xff" + last), many.replace(last, b"\xff\xd0\xff" + last)):
        with pytest.raises(
            InputError, match=r"goes over its picture 10\d\d\d times, and 100 is the most: export or save"
        ):
            load_image(hidden)
    assert load_image(content[:-2] + last * (100 - honest) + b"\xff\xd9").size == (64, 48)
    assert load_image(content + last * 10_000).size == (64, 48)  # a film behind the picture, say
    comment = b"\xff\xfe\x40\x00" + b"\xff\xda" * 0x1FFF
    assert load_image(content[:2] + comment + content[2:]).size == (64, 48)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_jpeg_without_its_end_is_shown_with_a_note(options: dict[str, Any], tmp_path: Path) -> None:
    picture = gradient(640, 480)
    content = encoded(picture, "JPEG", quality=90, **options)
    path = tmp_path / "photo.jpg"
    for missing in (1, 2, 100):
        path.write_bytes(content[:-missing])
        with pytest.warns(MediaWarning, match=r"photo\.jpg is cut off: the end of the picture is missing"):
            shown = load_image(path)
        top = (0, 0, 640, 400)
        assert difference(shown.crop(top), picture.crop(top)) < 3


def test_of_half_a_jpeg_the_upper_half_is_shown() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8))
    content = encoded(noise, "JPEG", quality=90)
    with pytest.warns(MediaWarning, match="is cut off"):
        shown = load_image(content[: len(content) // 2])
    top = (0, 0, 640, 200)
    assert difference(shown.crop(top), load_image(content).crop(top)) == 0
    assert np.ptp(np.asarray(shown)[-100:]) < 10  # grey


def test_a_photograph_of_200_megapixels_is_taken_at_half_its_size() -> None:
    content = bytearray(encoded(Image.new("RGB", (64, 64), (200, 40, 40)), "JPEG"))
    size = content.index(b"\xff\xc0") + 5
    content[size : size + 4] = struct.pack(">HH", 12_240, 16_320)  # of which only the first rows are there
    picture = load_image(bytes(content))
    assert picture.size == (8160, 6120)
    np.testing.assert_allclose(np.asarray(picture)[:3, :100], [[[200, 40, 40]] * 100] * 3, atol=3)
    content[size : size + 4] = struct.pack(">HH", 65_500, 65_500)
    said = "more pixels than can be unpacked safely: JPEG is read up to 220 megapixels, and this one has 4291: make it"
    with pytest.raises(InputError, match=said):
        load_image(bytes(content))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_picture_is_made_smaller_in_strips_and_looks_the_same(
    mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemma4_mlx.processing.images._STRIP_PIXELS", 600 * 30)
    grey = gradient(600, 400).convert("L")
    image = {
        "F": lambda: Image.fromarray(np.asarray(grey, np.float32) / 255),
        "I;16": lambda: Image.fromarray(np.asarray(grey, np.uint16) * 257),
    }.get(mode, lambda: gradient(600, 400).convert(mode))()
    image.getexif()[ORIENTATION] = orientation
    whole = load_image(image)
    monkeypatch.setattr("gemma4_mlx.processing.images.LARGE_PICTURE_PIXELS", 70_000)
    smaller = load_image(image)
    size = (300, 200) if orientation == 1 else (200, 300)
    assert smaller.size == size
    assert difference(smaller, whole.reduce(2)) < 0.6
    monkeypatch.undo()
    assert difference(whole, load_image(image)) == 0


def test_only_named_formats_are_opened() -> None:
    """EPS is a program, and Pillow has Ghostscript run it."""
    for form in ("EPS", "PPM", "ICO", "PCX", "TGA", "JPEG2000"):
        with pytest.raises(InputError, match="is not a picture"):
            load_image(encoded(gradient(), form))


def test_a_picture_whose_file_was_closed_is_refused_and_one_that_was_loaded_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    gradient().save(path)
    with Image.open(path) as image:
        pass
    for closed in (image, *(Image.open(path), Image.new("RGB", (9, 9)))):
        closed.close()
        with pytest.raises(InputError, match="the picture is closed or damaged: open it again"):
            load_image(closed)
    with Image.open(path) as image:
        image.load()
    assert difference(load_image(image), gradient()) == 0
    with path.open("rb") as stream:
        lazy = Image.open(stream)
    with pytest.raises(InputError, match="closed or damaged"):
        load_image(lazy)


@given(st.sampled_from(["PNG", "JPEG", "WebP", "GIF"]), st.data())
@settings(max_examples=150)
def test_damage_anywhere_is_an_error_of_ours_or_a_picture_and_never_a_warning(form: str, data: st.DataObject) -> None:
    content = bytearray(SOURCES[form][0])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=10)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", MediaWarning)  # a JPEG that is cut off is shown
        with contextlib.suppress(InputError):
            assert load_image(bytes(content)).mode == "RGB"
