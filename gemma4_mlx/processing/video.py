"""A video → 32 frames spread evenly over it, each a picture of at most 70 soft tokens, with their times.

Only frames: the sound of a video is a part of its own (`{"type": "audio", "audio": "clip.mov"}`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .containers import Damage, can_be_decoded, decoded, open_container, packets
from .images import resized
from .limits import FRAME_PIXELS, MEGAPIXEL
from .sources import FileSource, Source, resolve_source

if TYPE_CHECKING:
    from av import VideoFrame
    from PIL.Image import Image

FRAMES = 32
TOKENS_PER_FRAME = 70
# What the reference assumes where a file does not give its rate.
_DEFAULT_RATE = 24.0


@dataclass(frozen=True)
class SampledVideo:
    """Frames of one video in order, as `images.resized` leaves them, and the second each was shown at."""

    frames: tuple[Image, ...]
    seconds: tuple[float, ...]


def load_video(source: FileSource, frames: int = FRAMES, image_tokens: int = TOKENS_PER_FRAME) -> SampledVideo:
    """Sample a video as the reference does: frame `i * total // frames` for each i, all of them if there are fewer.

    A frame's time is its number over the average rate. Frames are turned upright by the file's rotation.

    Args:
        source: a path, URL or bytes of anything PyAV opens.
        frames: the most frames to take.
        image_tokens: the most soft tokens per frame.

    Raises:
        InputError: no such file, no video in it, or damaged.
        ValueError: `image_tokens` is not a budget of Gemma 4.
    """
    file = resolve_source(source, "video")
    with open_container(file, "video") as container:
        stream = _video_stream(container, file.name)
        rate = float(stream.average_rate or _DEFAULT_RATE)
        shown = _packets(container, stream)
    wanted = sample_indices(len(shown), frames)
    pictures: tuple[Image, ...] = ()
    # Several threads hand a broken packet's error out with another packet, which is lost with it.
    for threads in ("AUTO", "NONE"):
        damage = Damage(file.name, "video")
        pictures = tuple(
            resized(_upright(frame), image_tokens, file.name)
            for frame in _frames_at(file, shown, wanted, damage, threads)
        )
        if not damage.places:
            break
    if not pictures:
        raise _no_frame(file)
    damage.warn()
    return SampledVideo(pictures, tuple(index / rate for index in wanted[: len(pictures)]))


@dataclass(frozen=True)
class VideoSize:
    """What a video is like: its upright width and height in pixels, its frames, and the seconds they take."""

    width: int
    height: int
    frames: int
    seconds: float


def video_size(source: FileSource) -> VideoSize:
    """Look at a video and decode its first frame. Raises as `load_video`."""
    file = resolve_source(source, "video")
    with open_container(file, "video") as container:
        stream = _video_stream(container, file.name)
        rate = float(stream.average_rate or _DEFAULT_RATE)
        frames = len(_packets(container, stream))
    first = next(_frames_in_order(file, Damage(file.name, "video"), "AUTO"), None)
    if first is None:
        raise _no_frame(file)
    size = (first.width, first.height) if first.rotation % 180 == 0 else (first.height, first.width)
    return VideoSize(*size, frames, frames / rate)


def _no_frame(file: Source) -> InputError:
    # Of frames that are too large, FFmpeg does not always tell the size.
    return InputError(
        f"{file.name} has no frame that can be decoded, or frames of more than {FRAME_PIXELS // MEGAPIXEL} megapixels: "
        "export or record it again, smaller"
    )


def sample_indices(total: int, frames: int) -> list[int]:
    """Numbers of the frames to take from `total`: evenly spread, the first always among them."""
    frames = min(frames, total)
    return [index * total // frames for index in range(frames)]


def clock(seconds: float) -> str:
    """A frame's time as the prompt writes it: `mm:ss`, rounded down."""
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"


def _video_stream(container: Any, name: str) -> Any:
    from av.stream import Disposition

    # The cover of a song is a video of one frame for FFmpeg.
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    for stream in streams:
        if can_be_decoded(stream):
            return stream
    if streams:
        raise InputError(f"{name} has video that cannot be decoded here: save it as mp4, mov, webm or mkv")
    raise InputError(f"{name} has no video in it: give a file with a video track")


@dataclass(frozen=True)
class _Packet:
    """One stored frame: when it is shown (in the stream's time base; None if unknown), and whether it stands alone."""

    time: int | None
    is_key: bool


def _packets(container: Any, stream: Any) -> list[_Packet]:
    """Every stored frame in the order shown, without decoding one; not every container says how many it holds."""
    shown = [
        _Packet(packet.pts, packet.is_keyframe)
        for packet in packets(container, [stream], Damage("", "video"))
        if packet.size and not packet.is_discard
    ]
    if all(packet.time is not None for packet in shown):
        shown.sort(key=lambda packet: packet.time or 0)
    return shown


def _frames_at(
    file: Source, shown: Sequence[_Packet], wanted: Sequence[int], damage: Damage, threads: str
) -> Iterator[VideoFrame]:
    """Decode the wanted frames: by their times, or where those do not lead to a frame, by counting from the start."""
    found = 0
    times = [packet.time for packet in shown if packet.time is not None]
    if len(set(times)) == len(shown):
        keys = [packet.time for packet in shown if packet.is_key]
        for frame in _frames_by_time(file, times, keys, wanted, damage, threads):
            found += 1
            yield frame
    if found < len(wanted):
        numbers = set(wanted[found:])
        for number, frame in enumerate(_frames_in_order(file, damage, threads)):
            if number in numbers:
                yield frame


def _frames_in_order(file: Source, damage: Damage, threads: str) -> Iterator[VideoFrame]:
    with open_container(file, "video") as container:
        for _, frame in decoded(container, [_decodable(container, file.name, threads)], damage):
            yield frame


def _frames_by_time(
    file: Source, times: list[int], keys: list[Any], wanted: Sequence[int], damage: Damage, threads: str
) -> Iterator[VideoFrame]:
    """Decode the wanted frames, jumping from key frame to key frame; ends early where a jump goes too far.

    For one that is broken, the next frame that can be decoded stands.

    Args:
        times: when each frame is shown, rising.
        keys: the times of frames that stand alone, rising.
    """
    with open_container(file, "video") as container:
        stream = _decodable(container, file.name, threads)
        frames = (frame for _, frame in decoded(container, [stream], damage) if frame.pts is not None)
        reached, latest = 0, None
        for number in wanted:
            if latest is None or latest.pts < times[number]:
                key = bisect_right(keys, times[number]) - 1
                if key >= 0 and keys[key] > times[reached]:
                    container.seek(keys[key], stream=stream)
                    frames = (frame for _, frame in decoded(container, [stream], damage) if frame.pts is not None)
                latest = next((frame for frame in frames if frame.pts >= times[number]), None)
            if latest is None or (latest.pts != times[number] and not damage.places):
                return
            reached = number
            yield latest


def _decodable(container: Any, name: str, threads: str) -> Any:
    """The video track, ready to be decoded.

    Raises:
        InputError: its frames are larger than any screen.
    """
    stream = _video_stream(container, name)
    if stream.width * stream.height > FRAME_PIXELS:
        raise InputError(
            f"{name} has frames of {stream.width}×{stream.height}, and {FRAME_PIXELS // MEGAPIXEL} megapixels is the "
            "most: make it smaller"
        )
    # The stream's own header may say more than the container's.
    stream.codec_context.options = {"max_pixels": str(FRAME_PIXELS)}
    stream.thread_type = threads
    return stream


def _upright(frame: VideoFrame) -> Image:
    image = frame.to_image()
    # PyAV gives the angle to turn the stored picture by, counter-clockwise, as Pillow does.
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
