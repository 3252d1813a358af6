"""Sound files as people have them: late, with holes, joined, broken, upside down. Made with PyAV when a test asks."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np


@dataclass(frozen=True)
class Track:
    """One sound track: samples `[n]` or `[channels, n]`, moved and thinned out as asked.

    Attributes:
        late: seconds that all its times are moved by.
        kept: whether the packet at this second (before it is moved) is stored; all are, if it is None.
        moved: a packet's second → the second it is stamped with, before `late` is added.
    """

    samples: np.ndarray
    rate: int = 48_000
    codec: str = "aac"
    late: float = 0.0
    kept: Callable[[float], bool] | None = None
    moved: Callable[[float], float] | None = None


def bursts(seconds: float, times: Sequence[float], rate: int = 48_000, level: float = 0.3) -> np.ndarray:
    """Silence of so many seconds with half a second of a tone at each of the times."""
    sound = np.zeros(round(seconds * rate), np.float32)
    tone = (level * np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate)).astype(np.float32)
    for time in times:
        at = round(time * rate)
        sound[at : at + len(tone)] += tone[: len(sound) - at]
    return sound


def onsets(samples: np.ndarray, rate: int = 16_000, threshold: float = 0.05) -> list[float]:
    """The seconds at which something is heard after at least 0.2 s of silence."""
    window = rate // 100
    count = len(samples) // window
    loud = np.abs(samples[: count * window]).reshape(count, window).max(axis=1) > threshold
    return [i / 100 for i in np.flatnonzero(loud) if not loud[max(0, i - 20) : i].any()]


def file_of(container: str, *tracks: Track, video_seconds: float = 0.0, **options: str) -> bytes:
    """The tracks in one container; with so many seconds of a small grey video before them."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container, options=options) as file:
        packets: list[tuple[float, Any]] = []
        picture: Any = None
        if video_seconds:
            picture = file.add_stream("libx264", rate=Fraction(10))
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        streams: list[Any] = []
        for track in tracks:
            channels = 1 if track.samples.ndim == 1 else len(track.samples)
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
            streams.append(file.add_stream(track.codec, rate=track.rate, layout=layout))
        if picture is not None:
            for _ in range(round(video_seconds * 10)):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
                packets += [(float(p.dts * p.time_base), p) for p in picture.encode(frame)]
            packets += [(float(p.dts * p.time_base), p) for p in picture.encode(None)]
        for stream_, track in zip(streams, tracks, strict=True):
            packets += [*_encoded(stream_, track)]
        # A track's own packets keep their order, whatever times they are stamped with.
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            file.mux(packet)
    return stream.getvalue()


def _encoded(stream: Any, track: Track) -> list[tuple[float, Any]]:
    samples = np.atleast_2d(track.samples).astype(np.float32)
    layout = stream.codec_context.layout.name
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate = track.rate
    frame.pts, frame.time_base = 0, Fraction(1, track.rate)
    fit = av.AudioResampler(stream.codec_context.format, layout, track.rate, stream.codec_context.frame_size or 1024)
    packets: list[tuple[float, Any]] = []
    for piece in [*fit.resample(frame), *fit.resample(None), None]:
        for packet in stream.encode(piece):
            base = float(packet.time_base)
            second = packet.pts * base
            if track.kept is not None and not track.kept(second):
                continue
            target = (second if track.moved is None else track.moved(second)) + track.late
            packet.pts = packet.dts = packet.pts + round((target - second) / base)
            packets.append((second + track.late, packet))
    return packets


def broken(content: bytes, begin: float, end: float, fill: bytes = b"\xff\x00\x5a\xa5") -> bytes:
    """The same file with the content of every packet between these seconds overwritten."""
    damaged = bytearray(content)
    with av.open(io.BytesIO(content)) as file:
        for packet in file.demux(file.streams[0]):
            if packet.size and packet.pts is not None and begin <= packet.pts * packet.time_base < end:
                at = content.index(bytes(packet), packet.pos)  # behind what the container puts before it
                damaged[at : at + packet.size] = (fill * packet.size)[: packet.size]
    return bytes(damaged)
