"""Videos that want to hurt who opens them: huge frames, frames without end, headers that lie."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import av

from .pictures import Bytes, animated, gif
from .playlists import PLAYLISTS
from .sounds import patched


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
        yield f"frames-{frames}.apng", lambda _, n=frames: animated("PNG", n)
    for name in (b"stts", b"stsz", b"stco", b"ctts", b"stss"):
        yield (
            f"counts-{name.decode()}.mp4",
            lambda _, n=name: patched(video("mp4", "libx264"), n, 4, b"\x7f\xff\xff\xff"),
        )
    yield "minutes.mp4", lambda _: video("mp4", "libx264", (64, 48), 60_000, preset="ultrafast")
    for name, content in PLAYLISTS.items():
        yield name.replace(".", "-") + ".mp4", lambda _, content=content: content
