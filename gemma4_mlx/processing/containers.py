"""Sound and video files opened and decoded with PyAV: the one place that reads them, packet by packet.

A packet that is broken is left out and put down in `Damage`; the next ones are decoded. What the frames mean is up to
`soundtrack.py` and `video.py`.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MediaWarning
from ..shown import clock
from .limits import BROKEN_PACKETS, CODECS, CONTAINERS, FRAME_PIXELS
from .sources import Pipe, Source, reason

if TYPE_CHECKING:
    from av.container import InputContainer

# Damage may stop the demuxer, which goes on when it is asked again. So many times in a row is the end of the file.
_MOST_STOPS = 50
# An MP3's first frame has its name at 13 to 36 bytes, the checksum included.
_MP3_HEAD = 48


def _lenient_tags(pyav: str) -> dict[str, Any]:
    """What tells `av.open` of this version to accept titles and names that are not UTF-8; nobody reads them here.

    PyAV accepts them by itself from 19 on, and refuses this argument. 18 is the last that runs on Python 3.11.
    """
    return {"metadata_errors": "ignore"} if int(pyav.split(".")[0]) < 19 else {}


@contextmanager
def open_container(file: Source | Pipe, kind: str) -> Iterator[InputContainer]:
    """An open PyAV container; damage found while it is being read inside the `with` block is reported here too.

    Raises:
        InputError: the file is not sound or video, or breaks while it is read.
    """
    import av

    # Read through a Python stream, with no protocols and no playlists: a file that poses as a recording opens nothing
    # else, and FFmpeg does not wait for the next part of a broadcast.
    options = {"protocol_whitelist": "", "format_whitelist": CONTAINERS, "codec_whitelist": CODECS}
    # FFmpeg decodes a few frames to see what they are like, before we have seen their size.
    options["max_pixels"] = str(FRAME_PIXELS)
    with file.open() as stream:
        try:
            container = av.open(stream, "r", options=options, **_lenient_tags(av.__version__))
        # FFmpeg's own, and what reading raises where a file sends it to a place that is none.
        except (av.FFmpegError, OSError, ValueError) as error:
            if (
                isinstance(error, av.FFmpegError) and error.errno == errno.EINVAL
            ):  # what FFmpeg says of a container that is not on the list
                formats = {"sound": "m4a, mp3, flac or wav", "video": "mp4, mov, webm or mkv"}[kind]
                raise InputError(f"{file.name} is not a {kind} file: give one, such as {formats}") from error
            raise InputError(f"{file.name} is not a {kind} file that can be opened ({reason(error)})") from error
        with container:
            try:
                yield container
            except (av.FFmpegError, OSError) as error:
                raise InputError(f"{file.name} is damaged ({reason(error)}): export or record it again") from error


@dataclass
class Damage:
    """What of a file could not be decoded.

    Attributes:
        name: what errors and notes call the file.
        kind: "sound" or "video".
        places: how many stretches were lost.
        seconds: how long they are together, as far as the file says.
        first: where the first one is, in seconds of the file's own clock; None if nothing tells.
        reason: what FFmpeg said of the latest one.
        at_end: nothing has been decoded since.
        tail: seconds lost since the latest frame.
    """

    name: str
    kind: str
    places: int = 0
    seconds: float = 0.0
    first: float | None = None
    reason: str = ""
    at_end: bool = False
    tail: float = 0.0

    def lost(self, seconds: float, place: float | None, why: Exception) -> None:
        """A packet of `seconds` was broken at `place`."""
        if not self.at_end:
            self.places += 1
        if self.first is None:
            self.first = place
        self.seconds += seconds
        self.tail += seconds
        self.reason = reason(why)
        self.at_end = True

    def decoded(self) -> None:
        """A frame came out whole."""
        self.at_end = False
        self.tail = 0.0

    def error(self) -> InputError:
        """For a file that is of no use, or of none from here on."""
        return InputError(f"{self.name} is damaged ({self.reason}): export or record it again")

    def warn(self) -> None:
        """Say what was left out, if anything was."""
        if not self.places:
            return
        where = "" if self.first is None else f" at {clock(round(self.first))}"
        if self.places > 1:
            where = f" in {self.places} places" + ("" if self.first is None else f", the first{where},")
        what = f"{self.seconds:.2f} s of {self.kind}" if self.seconds else f"a piece of {self.kind}"
        warnings.warn(f"{self.name} is damaged: {what}{where} could not be decoded and is left out", MediaWarning, 2)


def decoded(
    container: InputContainer,
    streams: Sequence[Any],
    damage: Damage,
    origin: float = 0.0,
    on_beginning: Callable[[], None] | None = None,
) -> Iterator[tuple[int, Any]]:
    """The frames of `streams` as they come, each with the number of its stream; broken packets are left out.

    Args:
        container: from `open_container`.
        streams: of that container.
        damage: what is left out is put down here.
        origin: the time, on the container's clock, that the file begins at.
        on_beginning: called where another recording begins: before its first frame.

    Yields:
        `(stream.index, frame)`.
    """
    import av

    in_a_row = 0
    unopened: dict[int, Exception] = {}  # decoders that cannot be opened: PyAV 19 crashes when they are asked again
    for packet in packets(container, streams, damage):
        index = packet.stream.index
        try:
            if index in unopened:
                raise unopened[index]
            if on_beginning is not None and _begins_a_file(packet):
                on_beginning()
            frames = packet.decode()
        except av.error.EOFError:  # flushed once more, after the demuxer had stopped
            continue
        except (av.FFmpegError, ValueError) as error:
            if index in unopened or not packet.stream.codec_context.is_open:
                unopened[index] = error
            base = float(packet.time_base or 0)
            stamp = packet.pts if packet.pts is not None else packet.dts
            damage.lost((packet.duration or 0) * base, None if stamp is None else stamp * base - origin, error)
            in_a_row += 1
            if in_a_row == BROKEN_PACKETS:
                damage.tail = float("inf")  # nobody knows how much is left
                return
            continue
        for frame in frames:
            in_a_row = 0
            damage.decoded()
            yield index, frame


def _begins_a_file(packet: Any) -> bool:
    """An MP3's packet holds what stands at the beginning of a file: its tags, or the frame that says how long it is."""
    if packet.stream.codec_context.name not in ("mp3", "mp3float"):
        return False
    head = bytes(packet)[:_MP3_HEAD]
    return head.startswith(b"ID3") or any(name in head for name in (b"Xing", b"Info", b"VBRI"))


def packets(container: InputContainer, streams: Sequence[Any], damage: Damage) -> Iterator[Any]:
    """The packets of `streams`, going on behind what the demuxer stumbles over."""
    import av

    stops = 0
    source = container.demux(*streams)
    while True:
        try:
            packet = next(source, None)
        # IndexError: PyAV loses count of the tracks when damage makes a new one appear half way.
        except (av.FFmpegError, IndexError) as error:
            damage.lost(0.0, None, error)
            stops += 1
            if stops == _MOST_STOPS:
                damage.tail = float("inf")  # nobody knows how much is left
                return
            source = container.demux(*streams)
            continue
        if packet is None:
            return
        stops = 0
        yield packet


def can_be_decoded(stream: Any) -> bool:
    """FFmpeg knows the codec of a track, and it is one that may be opened."""
    return stream.codec_context is not None and stream.codec_context.codec.name in _CODECS


_CODECS = frozenset(CODECS.split(","))


def origin_of(container: InputContainer) -> float:
    """The second, on the container's clock, that players call the beginning: that of its earliest track."""
    return 0.0 if container.start_time is None else container.start_time / 1e6  # it counts microseconds
