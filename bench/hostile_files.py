"""Pictures, sounds and videos that want to hurt who opens them, made from a seed.

Bombs, headers that lie, playlists, other formats under a good name, and honest files cut and mutated.
`hostile_media.py` has each of them read.
"""

from __future__ import annotations

import io
import random
import struct
import wave
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

Bytes = Callable[[random.Random], bytes]


class Hostile(NamedTuple):
    """One file.

    Attributes:
        name: with the suffix that it pretends to have.
        kind: what it is given as: "image", "audio" or "video".
        make: its bytes; it is called in a process of its own, for some take memory to make.
    """

    name: str
    kind: str
    make: Bytes


SIZES = (1, 255, 16_000, 32_767, 65_535, 2**24, 2**31 - 1, 2**32 - 1)


# Pictures.


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
    for side in (13_000, 16_000):
        for depth, colour in ((1, 0), (16, 0), (8, 2), (16, 6), (8, 3)):
            yield f"bomb-{side}-{depth}-{colour}.png", lambda _, a=(side, side, depth, colour): png(*a, whole=True)
        yield f"bomb-{side}.tiff", lambda _, n=side: tiff(n, n, 8, zeros(n * n + (1 << 20)))
        yield f"float-{side}.tiff", lambda _, n=side: tiff(n, n, 8, zeros(n * n * 4 + (1 << 20)), bits=32)
        yield f"clear-{side}.webp", lambda _, n=side: image("WebP", (n, n), "RGBA", lossless=True, method=0)
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
        yield f"frames-{frames}.webp", lambda _, n=frames: _animated("WebP", n)
        yield f"frames-{frames}.png", lambda _, n=frames: _animated("PNG", n)
    yield "frames.avif", lambda _: _animated("AVIF", 100)


def _bmp(size: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 99, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, size & 0x7FFFFFFF, -1, 1, 8, 1, 0, 0, 0, 0, 0)
        + bytes(9)
    )


def _animated(form: str, frames: int) -> bytes:
    stream = io.BytesIO()
    small = [Image.new("L", (16, 16), number % 256).convert("RGB") for number in range(frames)]
    small[0].save(stream, form, save_all=True, append_images=small[1:])
    return stream.getvalue()


# Sounds.


def sound(container: str, codec: str, rate: int = 16_000, seconds: float = 2.0, layout: str = "mono") -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        track = file.add_stream(codec, rate=rate, layout=layout)
        wanted = np.sin(np.arange(round(rate * seconds)) / 9).astype(np.float32) * np.float32(0.3)
        channels = len(av.AudioLayout(layout).channels)
        frame = av.AudioFrame.from_ndarray(np.tile(wanted, (channels, 1)), format="fltp", layout=layout)
        frame.sample_rate = rate
        fit = av.AudioResampler(track.codec_context.format, layout, rate, track.codec_context.frame_size or None)
        for piece in [*fit.resample(frame), *fit.resample(None), None]:
            file.mux(track.encode(piece))
    return stream.getvalue()


def wav(channels: int, rate: int, bits: int, form: int = 1, size: int = 4_000, stated: int | None = None) -> bytes:
    """A header that says what it is told to."""
    align = (channels * bits // 8) & 0xFFFF
    head = struct.pack("<HHIIHH", form, channels, rate, (rate * align) & 0xFFFFFFFF, align, bits)
    stated = size if stated is None else stated
    return (
        b"RIFF"
        + struct.pack("<I", 0xFFFFFFFF)
        + b"WAVEfmt \x10\0\0\0"
        + head
        + b"data"
        + struct.pack("<I", stated)
        + bytes(size)
    )


def plain_wav() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(64_000))
    return stream.getvalue()


def silent_flac(frames: int) -> bytes:
    """Each frame of a few bytes is 65,535 samples of silence."""
    content = sound("flac", "flac", seconds=30)
    first = content.index(b"\xff\xf8")
    return content[:first] + content[first : first + 4_000] * frames


def element(name: bytes, body: bytes) -> bytes:
    """Of Matroska."""
    return name + struct.pack(">Q", len(body) | 1 << 56) + body


EBML = element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"matroska"))


def matroska(
    tracks: int, body: bytes, *, packing: bool = False, codec: bytes = b"A_PCM/INT/LIT", kind: int = 2
) -> bytes:
    packed = element(b"\x6d\x80", element(b"\x62\x40", element(b"\x50\x34", element(b"\x42\x54", b"\0"))))
    audio = element(b"\xe1", element(b"\xb5", struct.pack(">d", 16_000.0)) + element(b"\x62\x64", b"\x10"))
    entries = b"".join(
        element(
            b"\xae",
            element(b"\xd7", struct.pack(">I", number + 1))
            + element(b"\x73\xc5", struct.pack(">I", number + 1))
            + element(b"\x83", bytes([kind]))
            + element(b"\x86", codec)
            + (packed if packing else b"")
            + audio,
        )
        for number in range(tracks)
    )
    blocks = b"".join(element(b"\xa3", b"\x81" + struct.pack(">h", 10 * n) + b"\x80" + body) for n in range(20))
    return EBML + element(
        b"\x18\x53\x80\x67",
        element(b"\x16\x54\xae\x6b", entries) + element(b"\x1f\x43\xb6\x75", element(b"\xe7", b"\0") + blocks),
    )


def box(name: bytes, body: bytes) -> bytes:
    """Of MP4."""
    return struct.pack(">I", len(body) + 8) + name + body


def nested(name: bytes, depth: int) -> bytes:
    """Boxes in boxes, made without making each."""
    return b"".join(struct.pack(">I", 8 * (depth - n)) + name for n in range(depth))


def patched(content: bytes, name: bytes, at: int, value: bytes) -> bytes:
    """The box `name` of a file with other bytes in it."""
    place = content.index(name) + 4 + at
    return content[:place] + value + content[place + len(value) :]


def picture_tag(size: int) -> bytes:
    """An MP3's tag with a picture in it that says it is so large."""
    wide = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + wide + b"APIC" + wide + b"\0\0\0image/png\0\3\0" + png(16_000, 16_000)


PLAYLISTS = {
    "wait.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:99999\n#EXTINF:99999,\na.ts\n#EXTINF:99999,\nb.ts\n",
    "file.m3u8": b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "http.m3u8": b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "master.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nconcat:/etc/passwd|/etc/hosts\n",
    "absolute.txt": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "subfile.txt": b"ffconcat version 1.0\nfile 'subfile,,start,0,end,99,,:/etc/passwd'\n",
    "data.txt": b"ffconcat version 1.0\nfile 'data:audio/wav;base64,UklGRg=='\n",
    "concat.wav": b"concat:/etc/passwd|/etc/hosts",
    "session.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "parts.mpd": (
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>"
        b"<MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='dynamic'><Period><AdaptationSet><Representation>"
        b"<BaseURL>&e;</BaseURL></Representation></AdaptationSet></Period></MPD>"
    ),
    "laughs.mpd": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a '"
    + b"ha" * 99
    + b"'>"
    + b"".join(b"<!ENTITY %c '&%c;&%c;&%c;&%c;'>" % (98 + n, *[97 + n] * 4) for n in range(20))
    + b"]><MPD>&u;</MPD>",
    "list.pls": b"[playlist]\nFile1=/etc/passwd\nNumberOfEntries=1\n",
    "list.asx": b"<asx version='3.0'><entry><ref href='file:///etc/passwd'/></entry></asx>",
    "list.cue": b'FILE "/etc/passwd" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "script.avs": b'Import("/etc/passwd")\n',
    "graph.lavfi": b"amovie=/etc/passwd",
    "subtitles.ass": b"[Script Info]\n[Events]\n" + b"Dialogue: 0,0:00:00.00,9:00:00.00,,,0,0,0,,{\\fn}\n" * 99_999,
    "words.srt": b"1\n00:00:00,000 --> 99:00:00,000\nx\n\n" * 99_999,
}


def sounds() -> Iterator[tuple[str, Bytes]]:
    for channels in (0, 1, 2, 255, 65_535):
        for rate in (0, 1, 999, 16_000, 384_000, 2**31 - 1, 4_000_000_000):
            yield f"{channels}-{rate}.wav", lambda _, a=(channels, rate, 16): wav(*a)
    for bits in (0, 1, 8, 64, 65_535):
        yield f"bits-{bits}.wav", lambda _, a=(1, 16_000, bits): wav(*a)
    for form in (0, 2, 3, 6, 7, 0x11, 0x31, 0x50, 0x55, 0xFF, 0x160, 0x161, 0x2000, 0x674F, 0xF1AC, 0xFFFE):
        yield f"form-{form}.wav", lambda _, form=form: wav(2, 44_100, 16, form)
    yield "endless.wav", lambda _: wav(1, 16_000, 16, stated=0xFFFFFFFF)
    yield "hours.flac", lambda _: silent_flac(2_000)
    for count in (200, 20_000):
        yield f"tracks-{count}.mkv", lambda _, n=count: matroska(n, bytes(99))
        yield f"subtitles-{count}.mkv", lambda _, n=count: matroska(n, b"x" * 99, codec=b"S_TEXT/ASS", kind=0x11)
    yield "million-tracks.mkv", lambda _: matroska(1_000_000, b"")
    for size in (1 << 20, 1 << 28, 1 << 30):
        yield f"packed-{size}.mkv", lambda _, n=size: matroska(1, zeros(n), packing=True)
    yield (
        "deep.mkv",
        lambda _: EBML + b"".join(b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" for _ in range(99_999)),
    )
    for name in (b"moov", b"trak", b"udta", b"meta", b"moof"):
        yield f"deep-{name.decode()}.m4a", lambda _, name=name: box(b"ftyp", b"M4A \0\0\0\0") + nested(name, 200_000)
    yield "many-tracks.m4a", lambda _: box(b"ftyp", b"M4A \0\0\0\0") + box(b"moov", box(b"trak", b"") * 100_000)
    for name in (b"stts", b"stsz", b"stsc", b"stco", b"stsd"):
        yield (
            f"counts-{name.decode()}.m4a",
            lambda _, n=name: patched(sound("mp4", "aac"), n, 8 if n == b"stsz" else 4, b"\x7f\xff\xff\xff"),
        )
    for value in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1"):
        yield f"clock-{value[3]}-{value[0]}.m4a", lambda _, v=value: patched(sound("mp4", "aac"), b"mdhd", 12, v)
        yield f"rate-{value[3]}-{value[0]}.m4a", lambda _, v=value: patched(sound("mp4", "aac"), b"mp4a", 24, v)
        yield f"long-{value[3]}-{value[0]}.m4a", lambda _, v=value: patched(sound("mp4", "aac"), b"mdhd", 16, v)
    yield "picture.mp3", lambda _: picture_tag(250 << 20) + sound("mp3", "libmp3lame")
    yield "tags.mp3", lambda _: (b"ID3\4\0\0\0\0\0\x0aTIT2\0\0\0\0\0\0" * 200_000) + sound("mp3", "libmp3lame")
    yield "joined.mp3", lambda _: sound("mp3", "libmp3lame", seconds=0.1) * 3_000
    yield "headers.ogg", lambda _: sound("ogg", "libopus", 48_000, 0.1) * 3_000
    yield "gap.mka", lambda _: matroska(1, bytes(99)).replace(b"\x81\x00\xbe", b"\x81\x7f\xff")
    yield "many-empty.aac", lambda _: b"\xff\xf1\x50\x80\x01\x1f\xfc\0" * 1_000_000
    yield "zeros.aac", lambda _: bytes(20_000_000)
    yield "ones.mp3", lambda _: b"\xff" * 20_000_000
    yield "sync.ts", lambda _: (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 100_000
    yield (
        "many-pids.ts",
        lambda _: b"".join(
            b"\x47" + struct.pack(">H", 0x4000 | n % 8192) + b"\x10\0\0\1\xc0" + bytes(179) for n in range(60_000)
        ),
    )
    for name, content in PLAYLISTS.items():
        yield name, lambda _, content=content: content
        yield name.partition(".")[0] + "-as.wav", lambda _, content=content: content


# Videos.


def video(
    container: str,
    codec: str,
    size: tuple[int, int] = (64, 48),
    frames: int = 12,
    form: str = "yuv420p",
    **options: str,
) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        track = file.add_stream(codec, rate=10, options=options)
        track.width, track.height, track.pix_fmt = *size, form
        for number in range(frames):
            frame = av.VideoFrame(*size, form)
            for plane in frame.planes:
                plane.update(bytes([number % 256]) * plane.buffer_size)
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return stream.getvalue()


def videos() -> Iterator[tuple[str, Bytes]]:
    large = {
        "ffv1": ("matroska", "gray"),
        "mjpeg": ("mov", "yuvj420p"),
        "png": ("mov", "rgb24"),
        "rawvideo": ("nut", "gray"),
    }
    for codec, (container, form) in large.items():
        for side in (6_000, 8_000):
            yield f"{codec}-{side}.{container}", lambda _, a=(container, codec, (side, side), 2, form): video(*a)
    yield "h264-6000.mp4", lambda _: video("mp4", "libx264", (6_000, 6_000), 3, preset="ultrafast")
    yield "many-references.mp4", lambda _: video("mp4", "libx264", (6_000, 6_000), 30, preset="ultrafast", refs="16")
    yield (
        "deep-colour.mp4",
        lambda _: video("mp4", "libx264", (6_000, 6_000), 20, "yuv444p10le", preset="ultrafast", refs="16"),
    )
    yield "hevc-6000.mp4", lambda _: video("mp4", "libx265", (6_000, 6_000), 6, preset="ultrafast")
    for value in (16_000, 65_535):
        word = struct.pack(">HH", value, value)
        yield f"lies-{value}.mp4", lambda _, w=word: patched(video("mp4", "libx264"), b"avc1", 24, w)
        yield f"lies-{value}.mov", lambda _, w=word: patched(video("mov", "png", form="rgb24"), b"png ", 24, w)
    yield (
        "swapped.mov",
        lambda _: video("mov", "png", form="rgb24").replace(
            struct.pack(">II", 64, 48), struct.pack(">II", 16_000, 16_000)
        ),
    )
    for frames in (10_000, 1_000_000):
        yield f"frames-{frames}.gif", lambda _, n=frames: gif(99, 99, n)
    yield "large-frames.gif", lambda _: gif(6_000, 6_000, 2_000)
    yield "huge.gif", lambda _: gif(65_535, 65_535, 3)
    for frames in (100, 3_000):
        yield f"frames-{frames}.apng", lambda _, n=frames: _animated("PNG", n)
    for name in (b"stts", b"stsz", b"stco", b"ctts", b"stss"):
        yield (
            f"counts-{name.decode()}.mp4",
            lambda _, n=name: patched(video("mp4", "libx264"), n, 4, b"\x7f\xff\xff\xff"),
        )
    yield "minutes.mp4", lambda _: video("mp4", "libx264", (64, 48), 60_000, preset="ultrafast")
    for name, content in PLAYLISTS.items():
        yield name.partition(".")[0] + "-as.mp4", lambda _, content=content: content


# Honest files, cut and mutated.


def _originals() -> dict[str, tuple[str, Callable[[], bytes]]]:
    found: dict[str, tuple[str, Callable[[], bytes]]] = {}
    for form in ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF"):
        found[f"a.{form.lower()}"] = "image", lambda form=form: image(form)
    for form in ("HEIF", "AVIF"):
        found[f"a.{form.lower()}"] = "image", lambda form=form: heif(form)
    for form, codec in (("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("mp4", "aac"), ("adts", "aac")):
        found[f"a.{form}"] = "audio", lambda a=(form, codec): sound(*a)
    for form, codec in (
        ("ogg", "libopus"),
        ("webm", "libopus"),
        ("caf", "pcm_s16le"),
        ("aiff", "pcm_s16be"),
        ("mpegts", "mp2"),
    ):
        found[f"b.{form}"] = "audio", lambda a=(form, codec): sound(*a, rate=48_000)
    for form, codec in (
        ("mp4", "libx264"),
        ("mov", "libx264"),
        ("matroska", "libx264"),
        ("webm", "libvpx"),
        ("mpegts", "mpeg2video"),
        ("avi", "mpeg4"),
        ("flv", "flv"),
        ("asf", "wmv2"),
    ):
        found[f"v.{form}"] = "video", lambda a=(form, codec): video(*a)
    return found


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Cut, with bytes turned over, with large numbers in it, with a part of it twice or with another's head."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 2, 8, 64))):
        at = chance.randrange(len(changed))
        match chance.randrange(5):
            case 0:
                changed[at] = chance.randrange(256)
            case 1:
                value = chance.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 1 << 24))
                changed[at : at + 4] = struct.pack(chance.choice("<>") + "I", value)
            case 2:
                changed[at:at] = changed[at : at + chance.randrange(4_000)]
            case 3:
                del changed[at : at + chance.randrange(1, 99)]
            case 4 if chance.random() < 0.2:
                del changed[at:]
        if not changed:
            return content[:1]
    return bytes(changed)


def hostile_files(count: int) -> list[Hostile]:
    """The first `count` of the set; all made ones come before the mutated ones in equal parts of each kind."""
    made = [Hostile(name, kind, make) for kind, all_of in _KINDS.items() for name, make in all_of()]
    originals = list(_originals().items())

    def mutation(number: int) -> Hostile:
        name, (kind, make) = originals[number % len(originals)]
        return Hostile(f"mutated-{number}-{name}", kind, lambda chance: mutated(make(), chance))

    if count < len(made):
        step = len(made) * 2 // count
        return made[::step] + [mutation(number) for number in range(count - len(made[::step]))]
    return made + [mutation(number) for number in range(count - len(made))]


_KINDS = {"image": pictures, "audio": sounds, "video": videos}
