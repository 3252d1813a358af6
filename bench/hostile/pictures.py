"""Pictures that want to hurt who opens them: bombs, headers that lie, other formats under a good name."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

Bytes = Callable[[random.Random], bytes]

SIZES = (1, 255, 16_000, 32_767, 65_535, 2**24, 2**31 - 1, 2**32 - 1)


def chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) if crc is None else crc)
    )


def png(width: int, height: int, depth: int = 8, colour: int = 0, before: bytes = b"", whole: bool = False) -> bytes:
    """Black; `whole` holds all its rows, otherwise the first few bytes of them."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * bits + 7) // 8) if whole else bytes(99)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(height if whole else 1)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    """So many zeros, packed."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def image(form: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def clear(form: str, side: int, **options: Any) -> bytes:
    """Nothing but transparency: hundreds of megapixels in a few bytes."""
    stream = io.BytesIO()
    Image.new("RGBA", (side, side)).save(stream, form, **options)
    return stream.getvalue()


def heif(form: str) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return image(form)


def resized_heif(form: str, size: int) -> bytes:
    """The box that says how large the picture is says something else."""
    content = bytearray(heif(form))
    at = content.index(b"ispe") + 8
    content[at : at + 8] = struct.pack(">II", size, size)
    return bytes(content)


def jpeg(width: int, height: int, scans: int = 0, **options: Any) -> bytes:
    """A small one that says it is larger; a progressive one may have its last scan many times."""
    content = bytearray(image("JPEG", progressive=bool(scans), **options))
    at = content.index(b"\xff\xc2" if scans else b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    last = content[content.rindex(b"\xff\xda") : -2]
    return bytes(content[:-2] + last * scans + b"\xff\xd9")


def gif(width: int, height: int, frames: int = 1) -> bytes:
    frame = b"\x21\xf9\x04\0\x05\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame * frames + b"\x3b"


def webp(width: int, height: int) -> bytes:
    content = bytearray(image("WebP", lossless=True))
    at = content.index(b"VP8L") + 9
    content[at : at + 4] = struct.pack("<I", (width - 1) | (height - 1) << 14 | 1 << 28)
    return bytes(content)


def tiff(
    width: int, height: int, compression: int, body: bytes, *, bits: int = 8, strips: int = 1, following: int = 0
) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, 1), (277, 3, 1)]
    tags += [(278, 4, max(1, height // strips)), (339, 3, 3 if bits == 32 else 1)]
    place = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags += [(273, 4, place), (279, 4, len(body))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + body


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/hostile) (w) file pop\nshowpage\n"


def pictures() -> Iterator[tuple[str, Bytes]]:
    for size in SIZES:
        yield f"huge-{size}.png", lambda _, n=size: png(n, n)
        yield f"wide-{size}.png", lambda _, n=size: png(n, 1)
        yield f"huge-{size}.bmp", lambda _, n=size: _bmp(n)
        yield f"huge-{size}.tiff", lambda _, n=size: tiff(n, n, 1, bytes(99))
        for form in ("HEIF", "AVIF"):
            yield f"huge-{size}.{form.lower()}", lambda _, n=size, form=form: resized_heif(form, n)
        if size <= 65_535:
            yield f"huge-{size}.jpg", lambda _, n=size: jpeg(n, n)
            yield f"huge-{size}.gif", lambda _, n=size: gif(n, n)
        if size <= 16_383:
            yield f"huge-{size}.webp", lambda _, n=size: webp(n, n)
    for side in (10_000, 13_000, 16_000):
        for depth, colour in ((1, 0), (16, 0), (8, 2), (16, 6), (8, 3)):
            yield f"bomb-{side}-{depth}-{colour}.png", lambda _, a=(side, side, depth, colour): png(*a, whole=True)
        yield f"runs-{side}.bmp", lambda _, n=side: _runs_bmp(n)
        yield f"bomb-{side}.tiff", lambda _, n=side: tiff(n, n, 8, zeros(n * n + (1 << 20)))
        yield f"float-{side}.tiff", lambda _, n=side: tiff(n, n, 8, zeros(n * n * 4 + (1 << 20)), bits=32)
    for side in (7_900, 10_000, 16_000):
        yield f"clear-{side}.webp", lambda _, n=side: clear("WebP", n, lossless=True, method=0)
    for side in (7_900, 10_000):
        yield f"clear-{side}.avif", lambda _, n=side: clear("AVIF", n, speed=10, subsampling="4:4:4")
    for scans in (10, 1000, 100_000):
        for side in (2_000, 9_000, 14_000):
            yield f"scans-{scans}-{side}.jpg", lambda _, a=(side, side, scans): jpeg(*a, subsampling=0)
    yield "four-colours.jpg", lambda _: jpeg(14_000, 14_000, 1, subsampling=0).replace(b"JFIF", b"JFIG")
    for name, head in ((b"iCCP", b"x\0\0"), (b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0"), (b"eXIf", b"")):
        body = lambda name=name, head=head: chunk(name, head + zeros(1 << 30))  # noqa: E731
        yield f"bomb-{name.decode()}.png", lambda _, body=body: png(9, 9, before=body())
        yield (
            f"many-{name.decode()}.png",
            lambda _, a=(name, head): png(9, 9, before=chunk(a[0], a[1] + zeros(1 << 20)) * 3000),
        )
    yield "many-chunks.png", lambda _: png(9, 9, before=chunk(b"tEXt", b"a\0b") * 300_000)
    yield "frames.gif", lambda _: gif(99, 99, 1_000_000)
    yield "loop.tiff", lambda _: tiff(9, 9, 1, bytes(81), following=8)
    yield "strips.tiff", lambda _: tiff(9_000, 9_000, 1, bytes(99), strips=9_000)
    for compression in (2, 3, 4, 5, 6, 7, 32773, 34925, 50000, 50001):
        yield f"packed-{compression}.tiff", lambda _, n=compression: tiff(12_000, 12_000, n, bytes(9_999))
    others = {"eps": EPS, "svg": b"<svg xmlns='http://www.w3.org/2000/svg'>" + b"<g>" * 99_999, "pdf": b"%PDF-1.7\n"}
    others |= {form.lower(): image(form) for form in ("JPEG2000", "PPM", "PCX", "TGA", "ICO", "SGI", "DDS", "ICNS")}
    others["psd"] = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + bytes(99)
    others["xpm"] = b'/* XPM */\nstatic char *x[] = {\n"9 9 1 1",\n'
    for form, content in others.items():
        yield f"{form}.png", lambda _, content=content: content
    for frames in (100, 3_000):
        yield f"frames-{frames}.webp", lambda _, n=frames: animated("WebP", n)
        yield f"frames-{frames}.png", lambda _, n=frames: animated("PNG", n)
    yield "frames.avif", lambda _: animated("AVIF", 100)


def _bmp(size: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 99, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, size & 0x7FFFFFFF, -1, 1, 8, 1, 0, 0, 0, 0, 0)
        + bytes(9)
    )


def _runs_bmp(side: int) -> bytes:
    """Runs of 255 equal pixels, which Pillow unpacks in Python."""
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 99, 0, 0, 54 + 1024) + head + bytes(1024) + b"\xff\x07" * (side * side // 255)


def animated(form: str, frames: int) -> bytes:
    stream = io.BytesIO()
    small = [Image.new("L", (16, 16), number % 256).convert("RGB") for number in range(frames)]
    small[0].save(stream, form, save_all=True, append_images=small[1:])
    return stream.getvalue()
