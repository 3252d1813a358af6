"""The sound of a file → mono blocks on the file's own clock: which track speaks, from when on, and what was lost."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import InputError, MediaWarning
from ..log_mel import FloatArray
from ..shown import clock
from .containers import Damage, can_be_decoded, decoded, open_container, origin_of
from .downmix import Downmix
from .limits import SOUND_TRACKS
from .sources import Pipe, Source
from .timeline import Block, Timeline

# Of several tracks the first one is taken, as players do. But if it stays under `_SILENT` for `_LOOK_AHEAD_SECONDS`,
# and another track is more than `_LOUDER` times as loud, the other one is taken. A level is the root of the mean square
# of one frame, of full scale.
_SILENT = 10 ** (-50 / 20)
_LOUDER = 10 ** (30 / 20)
_LOOK_AHEAD_SECONDS = 30.0

# An encoder fills its last frame up, and puts one or two frames before the first. Not every container says so, and not
# every version of PyAV heeds it.
_FILLED_UP_FRAMES = 3

# If a file states a longer duration than it gives, its end is lost. Small differences do not count: containers are off
# by a frame or two, and some guess their length from their size.
_LOST_END_SECONDS = 1.0
_LOST_END_SHARE = 0.05


class Soundtrack:
    """Decodes the sound of one file, once.

    Args:
        file: where it is.
        keeps_clock: begin at the file's beginning, with silence before a track that begins late. Otherwise with the
            first sound.
        longest_gap: most seconds of silence to put where the file has no sound.
        joints: gets the seconds, counted from the first block, at which another recording begins.

    Attributes:
        filled_up: seconds of sound that the codec may have added at both ends; known once all is decoded.
    """

    def __init__(
        self,
        file: Source | Pipe,
        keeps_clock: bool = True,
        longest_gap: float = float("inf"),
        joints: list[float] | None = None,
    ) -> None:
        self._file = file
        self._keeps_clock = keeps_clock
        self._longest_gap = longest_gap
        self.filled_up = 0.0
        self._joints = joints
        self._taken = 0  # the number of the track that is listened to

    def blocks(self) -> Iterator[Block]:
        """Mono blocks `[n]` with their rates, as the frames of the file come.

        Warns with `MediaWarning` of what could not be decoded, and if another track than the first is taken.

        Raises:
            InputError: no sound in it, or damaged so that nothing, or nothing more, can be decoded.
        """
        damage = Damage(self._file.name, "sound")
        with open_container(self._file, "sound") as container:
            tracks = sound_tracks(container, self._file.name)
            origin = origin_of(container)
            timeline = Timeline(origin if self._keeps_clock else None, self._longest_gap, self._joints)
            mixers = {track.index: _Mixer() for track in tracks}
            frames = (
                (index, *mixers[index].mono(frame))
                for index, frame in decoded(container, tracks, damage, origin, timeline.begin_anew)
            )
            end = 0.0
            for index, time, samples, rate in self._chosen([track.index for track in tracks], frames):
                if not np.isfinite(samples).all():  # some decoders turn a broken packet into these
                    place = None if time is None else time - origin
                    damage.lost(len(samples) / rate, place, ValueError("samples that are no numbers"))
                    samples = np.zeros_like(samples)
                end = max(end + len(samples) / rate, 0.0 if time is None else time - origin + len(samples) / rate)
                lossless = mixers[index].lossless(container.streams[index])
                self.filled_up = max(self.filled_up, 0.0 if lossless else _FILLED_UP_FRAMES * len(samples) / rate)
                yield from timeline.place(time, samples, rate)
            yield from timeline.finish()
            stated = stated_end(container, container.streams[self._taken]) or 0.0
        if damage.at_end and (timeline.now == 0 or max(stated - end, damage.tail) > _LOST_END_SECONDS):
            raise damage.error()
        damage.warn()
        # In Ogg the duration counts from zero, wherever the sound begins.
        missing = 0.0 if damage.places else stated - end - max(0.0, origin)
        if missing > max(_LOST_END_SECONDS, _LOST_END_SHARE * stated):
            says = f"it says that it holds {clock(round(stated))}, but only {clock(round(end))} came out of it"
            warnings.warn(
                f"{self._file.name}: {says}: it was probably cut off; get it once more", MediaWarning, stacklevel=2
            )

    def _chosen(
        self, indices: list[int], frames: Iterator[tuple[int, float | None, FloatArray, float]]
    ) -> Iterator[tuple[int, float | None, FloatArray, float]]:
        """The frames of the track that is listened to."""
        first = self._taken = indices[0]
        decided = len(indices) == 1
        waiting: list[tuple[int, float | None, FloatArray, float]] = []
        levels = dict.fromkeys(indices, 0.0)
        seconds = dict.fromkeys(indices, 0.0)

        def decide() -> bool:
            """Take the track that is loud enough, and return whether there is one yet."""
            other = max(indices, key=lambda index: levels[index])
            if levels[first] >= _SILENT or levels[other] <= levels[first] * _LOUDER:
                return levels[first] >= _SILENT
            self._taken = other
            which = f"the first of its {len(indices)} sound tracks is silent, so number {indices.index(other) + 1}"
            warnings.warn(f"{self._file.name}: {which} is listened to", MediaWarning, stacklevel=2)
            return True

        for frame in frames:
            index, _, samples, rate = frame
            if decided:
                if index == self._taken:
                    yield frame
                continue
            waiting.append(frame)
            seconds[index] += len(samples) / rate
            levels[index] = max(levels[index], _level(samples))
            if levels[first] >= _SILENT or seconds[index] >= _LOOK_AHEAD_SECONDS:
                decided = decide()
                yield from (kept for kept in waiting if kept[0] == self._taken)
                waiting.clear()
                seconds = dict.fromkeys(indices, 0.0)
        if waiting:
            decide()
            yield from (kept for kept in waiting if kept[0] == self._taken)


class _Mixer:
    """One track's frames → mono."""

    def __init__(self) -> None:
        self._layout: tuple[str, str, int] | None = None
        self._to_float: Any = None
        self._downmix = Downmix()

    def mono(self, frame: Any) -> tuple[float | None, FloatArray, float]:
        """A frame's time in seconds, its samples `[n]` and their rate."""
        import av

        layout = (frame.format.name, frame.layout.name, frame.sample_rate)
        if layout != self._layout:
            self._layout = layout
            # Only the sample format changes here: packed or planar, 8 to 64 bits, becomes floats in [-1, 1], the
            # channels interleaved. (Not in planes: PyAV reads past the end of a frame of more than 8 planes.)
            self._to_float = av.AudioResampler(format="flt")
        time = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        blocks = [
            self._downmix.mono(floats.to_ndarray().reshape(-1, floats.layout.nb_channels), frame.sample_rate)
            for floats in self._to_float.resample(frame)
        ]
        return time, np.concatenate(blocks) if blocks else np.zeros(0, np.float32), frame.sample_rate

    @staticmethod
    def lossless(stream: Any) -> bool:
        """Whether the codec returns exactly the samples that were encoded."""
        codec = stream.codec_context.codec
        return bool(codec.lossless)


def sound_tracks(container: Any, name: str) -> list[Any]:
    """The tracks that can be decoded.

    Raises:
        InputError: there is none.
    """
    if not container.streams.audio:
        raise InputError(f"{name} has no sound in it: give a file with an audio track")
    tracks = [track for track in container.streams.audio if can_be_decoded(track)][:SOUND_TRACKS]
    if not tracks:
        raise InputError(f"{name} has sound that cannot be decoded here: save it as m4a, mp3, flac or wav")
    return tracks


def stated_end(container: Any, track: Any) -> float | None:
    """The end of a track as the file states it, in seconds of the file's own clock; None if it states none."""
    if container.format.name == "aac":
        return None  # FFmpeg guesses by the size of the first packets
    begin = origin_of(container)
    if track.duration is not None and track.time_base is not None:
        start = begin if track.start_time is None else float(track.start_time * track.time_base)
        return start - begin + float(track.duration * track.time_base)
    if (tagged := _tagged_seconds(track.metadata.get("DURATION", ""))) is not None:
        return tagged - begin
    return None if container.duration is None else container.duration / 1e6  # the container counts microseconds


def _tagged_seconds(text: str) -> float | None:
    """Matroska's own `00:01:02.500000000`."""
    try:
        hours, minutes, seconds = (float(part) for part in text.split(":"))
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds


def _level(samples: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0
