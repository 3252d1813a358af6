"""Sound of any container, rate and channel count → mono float32 at 16 kHz, whole or in blocks.

Stops at samples: log-mel frames are made in `log_mel.py`. Devices and live input are not this file's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..log_mel import HOP, SAMPLE_RATE, FloatArray
from .containers import open_container
from .downmix import Downmix
from .loudness import levelled
from .resampling import Resampler
from .soundtrack import Soundtrack, sound_tracks, stated_end
from .sources import FORMS, FileSource, Pipe, reason, resolve_source, source_name
from .timeline import Block

AudioSource = FileSource | tuple[npt.ArrayLike, float] | npt.NDArray[Any] | list[float]

# The encoder was trained on clips of up to 30 s (750 soft tokens of 40 ms); `transcribe` cuts what is longer.
CLIP_SECONDS = 30
CLIP_SAMPLES = CLIP_SECONDS * SAMPLE_RATE
# A clip has no clock: of a hole that a recorder left in it (nobody spoke), a pause is kept.
_LONGEST_PAUSE = 1.0
_MIX_SECONDS = 0.05
"""Samples given as an array are mixed down in blocks of this length, about as long as the frames of files."""


def load_audio(source: AudioSource, shortest: int = HOP + 1) -> FloatArray:
    """One clip for one message part.

    Args:
        source: a path, URL, bytes or open file of anything PyAV opens (the sound of a video too), `(samples, rate)`, or
            samples at 16 kHz. Samples are `[n]`, or two-dimensional with the shorter axis counting channels; uint8,
            int16 and int32 are scaled to [-1, 1], floats are taken as they are. Channels are averaged.
        shortest: samples at 16 kHz that are one soft token.

    Returns:
        float32 `[n]`, mono, 16 kHz, `shortest` to 480,000 samples.

    Raises:
        InputError: no such file, no sound in it, damaged, NaN or infinite samples, too short for one soft token, or
            longer than 30 s.
    """
    name = source_name(source, "sound")
    track: Soundtrack | None = None
    if isinstance(source, FileSource):
        file = resolve_source(source, "sound")
        track = Soundtrack(file, keeps_clock=False, longest_gap=_LONGEST_PAUSE)
    blocks: list[FloatArray] = []
    total = 0
    for block in _resampled(_given(source, name) if track is None else track.blocks(), name):
        blocks.append(block)
        total += len(block)
        filled_up = 0 if track is None else round(track.filled_up * SAMPLE_RATE)
        if total > CLIP_SAMPLES + filled_up:  # an hour-long file is not decoded only to be refused
            raise InputError(
                f"{name} is longer than the {CLIP_SECONDS} s that one message part can hold: "
                "use `gemma4-mlx transcribe` or gemma4_mlx.transcribe for long sound, or cut it"
            )
    if total == 0:
        raise InputError(f"{name} has no samples: check the recording")
    if total < shortest:
        milliseconds = shortest * 1000 // SAMPLE_RATE
        raise InputError(
            f"{name} is too short ({total} samples at 16 kHz): "
            f"the model hears nothing under {shortest} samples ({milliseconds} ms)"
        )
    return levelled(np.concatenate(blocks)[:CLIP_SAMPLES])


def stream_audio(
    source: AudioSource, block_seconds: float = 1.0, joints: list[float] | None = None
) -> Iterator[FloatArray]:
    """Sound of any length in blocks, in bounded memory.

    Yields float32 `[block_seconds * 16000]`, mono, 16 kHz; the last block holds what is left. When a file breaks half
    way, everything decoded before the damage is yielded first and the error raised after it.

    Args:
        source: as for `load_audio`.
        block_seconds: length of a block.
        joints: gets the seconds at which another recording begins, in a file that was joined from several; each before
            the block it lies in is yielded, or up to a second later.

    Raises:
        InputError: as for `load_audio`, but for the two limits on length.
        ValueError: `block_seconds` is under one sample.
    """
    if not block_seconds * SAMPLE_RATE >= 1:  # NaN too
        raise ValueError(f"block_seconds must be at least one sample at 16 kHz, not {block_seconds}")
    name = source_name(source, "sound")
    if isinstance(source, FileSource):
        track = Soundtrack(resolve_source(source, "sound"), joints=joints)
        blocks: Iterable[Block] = track.blocks()
    else:
        blocks = _given(source, name)
    return _blocks(_resampled(blocks, name), round(block_seconds * SAMPLE_RATE))


def stream_pipe(
    pipe: BinaryIO, name: str, rate: float | None = None, block_seconds: float = 0.1
) -> Iterator[FloatArray]:
    """Sound that comes through a pipe, in blocks as for `stream_audio`, each as soon as it is complete.

    Args:
        pipe: a binary stream that need not be seekable.
        name: what errors call it.
        rate: samples per second of raw little-endian 16-bit mono; None: a WAV, or another container that can be read
            from its beginning.

    Raises:
        InputError: as for `stream_audio`.
    """
    blocks = Soundtrack(Pipe(name, pipe)).blocks() if rate is None else _raw(pipe, checked_rate(rate, name))
    return _blocks(_resampled(blocks, name), round(block_seconds * SAMPLE_RATE))


def _raw(pipe: BinaryIO, rate: float) -> Iterator[Block]:
    odd = b""
    # `read1`: what is there now, instead of waiting for a whole buffer.
    read = getattr(pipe, "read1", pipe.read)
    while content := read(1 << 14):
        content = odd + content
        odd = content[len(content) // 2 * 2 :]
        yield np.frombuffer(content[: len(content) - len(odd)], "<i2").astype(np.float32) / np.float32(32768), rate


def audio_duration(source: FileSource) -> float | None:
    """The second a file says its sound ends at, on its own clock; None where it does not say. Nothing is decoded.

    Raises:
        InputError: no such file, or no sound in it.
    """
    file = resolve_source(source, "sound")
    with open_container(file, "sound") as container:
        return stated_end(container, sound_tracks(container, file.name)[0])


def _given(source: Any, name: str) -> list[Block]:
    """Samples that are no file, as one mono block with its rate."""
    if not isinstance(source, tuple):
        return [(_mono(source, SAMPLE_RATE, name), SAMPLE_RATE)]
    if len(source) != 2:
        raise InputError(f"{name} is a tuple of {len(source)}: give (samples, rate)")
    if isinstance(source[0], int | float | np.number):
        raise InputError(f"{name} is (rate, samples): give (samples, rate)")
    rate = checked_rate(source[1], name)
    return [(_mono(source[0], rate, name), rate)]


def _mono(samples: npt.ArrayLike, rate: float, name: str) -> FloatArray:
    try:
        array = np.asarray(samples)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{name} is not an array of samples ({reason(error)}): give [n] or [n, channels]") from error
    if array.ndim == 0:
        raise InputError(f"{name} cannot be a {type(samples).__name__}: give {FORMS}, or samples [n]")
    if array.ndim not in (1, 2):
        raise InputError(f"{name} has {array.ndim} dimensions: give samples [n] or [n, channels]")
    if array.size == 0:
        return np.zeros(0, np.float32)
    array = as_float(array, name)
    if array.ndim == 2:
        channels_last = array if array.shape[0] > array.shape[1] else array.T
        length = max(1, round(rate * _MIX_SECONDS))
        mix = Downmix()
        mixed = [mix.mono(channels_last[at : at + length], rate) for at in range(0, len(channels_last), length)]
        array = np.concatenate(mixed) if mixed else np.zeros(0, np.float32)
    return array


def as_float(array: npt.NDArray[Any], name: str) -> FloatArray:
    """Samples of any of the usual kinds → float32 in [-1, 1]."""
    if array.dtype == np.uint8:
        return ((array.astype(np.float32) - 128.0) / 128.0).astype(np.float32)
    if array.dtype.newbyteorder("=") in (np.int16, np.int32):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    raise InputError(f"{name} has {array.dtype} samples: give float, int16, int32 or uint8")


def checked_rate(rate: float, name: str) -> float:
    # Far wider than any recorder; outside it a resampler would ask for gigabytes or give nothing.
    if not (isinstance(rate, int | float | np.number) and 1_000 <= rate <= 1_000_000):
        raise InputError(f"{name} has a rate of {rate!r} Hz: give the samples per second, such as 44100")
    return float(rate)


def _resampled(blocks: Iterable[Block], name: str) -> Iterator[FloatArray]:
    """Blocks at any rate → blocks at 16 kHz, filtered as one continuous stream."""
    current: float = SAMPLE_RATE
    resampler = Resampler(current)
    try:
        for samples, rate in blocks:
            if not np.isfinite(samples).all():
                raise InputError(f"{name} has NaN or infinite samples: check how it was made")
            if rate != current:  # a file may change its rate half way: each stretch is a stream of its own
                yield resampler.finish()
                current, resampler = rate, Resampler(checked_rate(rate, name))
            yield resampler.feed(samples)
    except InputError:
        yield resampler.finish()
        raise
    yield resampler.finish()


def _blocks(blocks: Iterable[FloatArray], size: int) -> Iterator[FloatArray]:
    """Blocks of any length → blocks of `size` samples and a shorter last one."""
    waiting: list[FloatArray] = []
    held = 0
    try:
        for block in blocks:
            waiting.append(block)
            held += len(block)
            if held >= size:
                joined = np.concatenate(waiting)
                whole = held - held % size
                yield from (joined[start : start + size] for start in range(0, whole, size))
                waiting, held = [joined[whole:]], held - whole
    except InputError:
        if held:
            yield np.concatenate(waiting)
        raise
    if held:
        yield np.concatenate(waiting)
