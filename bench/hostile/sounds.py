"""Sounds that want to hurt who opens them: headers that lie, tracks and boxes without end, playlists as recordings."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator

import av
import numpy as np

from .pictures import Bytes, png, zeros
from .playlists import PLAYLISTS


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
        yield name.replace(".", "-") + ".wav", lambda _, content=content: content
