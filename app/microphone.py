"""Microphones: which there are, and their sound as 16 kHz mono, as it comes. What is said is not this file's business.

PortAudio calls back in a thread of its own, where anything slow loses sound: there samples are copied and queued, all
else happens in the thread that reads.
"""

from __future__ import annotations

import atexit
import queue
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from gemma4_mlx.errors import InputError
from gemma4_mlx.log_mel import FloatArray

from .c_output import c_libraries_silent, end_silence, silence

if TYPE_CHECKING:
    from gemma4_mlx.processing.resampling import Resampler

# A device that says it has 32 channels is a mixer: the microphone is on one of the first two.
_MOST_CHANNELS = 2
_ZEROS_SECONDS = 1.0
# A stream that calls back no more is a device that was pulled out, also where PortAudio does not notice.
_SILENT_SECONDS = 3.0
# A stream that is well calls back many times in so long.
_END_SECONDS = 0.5
# Headsets that switch to telephone quality when opened deliver another rate than they state, by far more than this.
_RATE_TOLERANCE = 0.05
_RATE_SECONDS = 5.0
# What a device is asked for when it refuses its own stated rate.
_OTHER_RATES = (48_000, 44_100, 16_000)
# Streams that PortAudio holds; one that it cannot close, because its server died, stays here.
_unclosed: set[Any] = set()


class MicrophoneError(InputError):
    """No such microphone, or it cannot be listened to."""


@dataclass(frozen=True)
class Device:
    """An input device.

    Attributes:
        number: what PortAudio calls it; it changes when devices come and go.
        name: what people call it.
        channels: inputs it has.
        rate: samples per second it runs at.
        is_default: the one chosen when nobody says which.
    """

    number: int
    name: str
    channels: int
    rate: float
    is_default: bool


def devices() -> list[Device]:
    """All input devices, those connected since the last call too, unless a microphone is open.

    PortAudio lists what is there once, when it starts (PortAudio issue 447, sounddevice issue 125), and ends every open
    stream with itself: so it is started anew only when there is none.

    Raises:
        MicrophoneError: PortAudio is not installed.
    """
    may_be_old = "sounddevice" in sys.modules
    sounddevice = _sounddevice()
    with c_libraries_silent():
        if may_be_old and not _unclosed:
            sounddevice._terminate()
            sounddevice._initialize()
        default, _ = sounddevice.default.device
        found = list(enumerate(sounddevice.query_devices()))
    return [
        Device(i, info["name"], info["max_input_channels"], info["default_samplerate"], i == default)
        for i, info in found
        if info["max_input_channels"] > 0
    ]


def find_device(wanted: str | None, available: list[Device]) -> Device:
    """The device called `wanted`: its number or any part of its name; None: the default one.

    Raises:
        MicrophoneError: there is none, or more than one; those that could be meant are listed.
    """
    if not available:
        raise MicrophoneError("no microphone was found: connect one, or transcribe a file")
    if wanted is None:
        return next((device for device in available if device.is_default), available[0])
    if wanted.isdecimal():
        matching = [device for device in available if device.number == int(wanted)]
    else:
        exact = [device for device in available if device.name.casefold() == wanted.casefold()]
        matching = exact or [device for device in available if wanted.casefold() in device.name.casefold()]
    if len(matching) == 1:
        return matching[0]
    what = "no microphone is" if not matching else "more than one microphone is"
    listed = ", ".join(f"{device.number} {device.name}" for device in matching or available)
    raise MicrophoneError(f"{what} called {wanted!r}: choose one of {listed}")


class Capture:
    """Sound on its way from a device's callback to whoever reads it.

    Args:
        rate: samples per second the device states.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        from gemma4_mlx.processing.resampling import Resampler

        self._rate = rate
        self._clock = clock
        self._queue: queue.SimpleQueue[tuple[float, FloatArray]] = queue.SimpleQueue()
        self._resampler: Resampler | None = Resampler(rate)
        self._queued = self._taken = 0  # frames
        self._first_at: float | None = None
        self._last_at = clock()
        self._zeros = 0
        self.overflows = 0
        self.closed = False

    def put(self, frames: FloatArray, overflowed: bool) -> None:
        """From the callback: float32 `[n, channels]`, which are copied."""
        self._queued += len(frames)
        self.overflows += overflowed
        self._queue.put((self._clock(), frames.copy()))

    def take(self, timeout: float) -> FloatArray:
        """All sound that waits, as float32 `[n]` at 16 kHz; after at most `timeout` seconds none."""
        blocks = []
        with suppress(queue.Empty):
            blocks.append(self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait())
            while True:
                blocks.append(self._queue.get_nowait())
        if not blocks:
            return np.zeros(0, np.float32)
        if self._first_at is None:
            # The first block was recorded before it came.
            self._first_at = blocks[0][0] - len(blocks[0][1]) / self._rate
        self._last_at = blocks[-1][0]
        frames = np.concatenate([frames for _, frames in blocks])
        self._taken += len(frames)
        mono = frames.mean(axis=1, dtype=np.float32)
        sounding = np.flatnonzero(mono)
        self._zeros = self._zeros + len(mono) if not len(sounding) else len(mono) - 1 - int(sounding[-1])
        mono = np.nan_to_num(mono, nan=0.0, posinf=1.0, neginf=-1.0)
        return mono if self._resampler is None else self._resampler.feed(mono)

    def rest(self) -> FloatArray:
        """What `take` would give, and what is still in the filter: nothing comes after it."""
        samples = self.take(0)
        resampler, self._resampler = self._resampler, None
        if resampler is None:
            return samples
        return np.concatenate([samples, resampler.finish()])

    def backlog(self) -> float:
        """Seconds of sound that wait to be taken."""
        return (self._queued - self._taken) / self._rate

    @property
    def only_zeros(self) -> bool:
        """The last second at least was exactly zero: no room is that quiet, somebody withholds the sound."""
        return self._zeros >= _ZEROS_SECONDS * self._rate

    @property
    def is_dead(self) -> bool:
        """Nothing has come for so long that nothing will."""
        return self._clock() - self._last_at > _SILENT_SECONDS

    @property
    def actual_rate(self) -> float | None:
        """Samples per second by the clock, when it is known and is not the stated rate."""
        if self._first_at is None or self._last_at - self._first_at < _RATE_SECONDS:
            return None
        actual = self._taken / (self._last_at - self._first_at)
        return actual if abs(actual / self._rate - 1) > _RATE_TOLERANCE else None


class Microphone:
    """An open microphone; a context manager.

    Raises:
        MicrophoneError: it cannot be opened.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._channels = min(device.channels, _MOST_CHANNELS)
        silence()  # until it is closed: PortAudio's own threads print as well
        try:
            self._stream, self.capture = self._open(_sounddevice())
        except BaseException:
            end_silence()
            raise

    def __enter__(self) -> Microphone:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def read(self, timeout: float) -> FloatArray:
        """What has been heard since the last call, float32 `[n]` at 16 kHz; waits up to `timeout` seconds for it.

        Raises:
            MicrophoneError: the device is gone, and all that came from it has been read.
        """
        samples = self.capture.take(timeout)
        if not len(samples) and (self.capture.closed or not self._stream.active or self.capture.is_dead):
            raise MicrophoneError(
                f"the microphone {self.device.name} is gone: "
                "connect it again, or choose another (`gemma4-mlx devices` lists them)"
            )
        return samples

    def stop(self) -> FloatArray:
        """Stop listening; what had been heard and not been read."""
        self._end()
        return self.capture.rest()

    def backlog(self) -> float:
        """Seconds of sound that have come and not been read."""
        return self.capture.backlog()

    def warnings(self) -> list[str]:
        """What somebody who is not being understood should know, worst first."""
        found = []
        if self.capture.only_zeros:
            found.append(_zeros_hint(sys.platform))
        if (actual := self.capture.actual_rate) is not None:
            found.append(
                f"the microphone {self.device.name} delivers {actual:.0f} samples a second, "
                f"not the {self.rate:.0f} it states"
            )
        if self.capture.overflows:
            found.append(f"sound was lost {self.capture.overflows} times: this machine is too busy")
        return found

    @property
    def rate(self) -> float:
        """Samples per second the device was opened with."""
        return float(self._stream.samplerate)

    def _end(self) -> None:
        if self.capture.closed:
            return
        # The callback ends itself. Under Linux `abort` kills its thread wherever that is, also where it holds the
        # interpreter's lock: then nothing in this process ever runs again. Only a device that is gone calls back no
        # more and is killed; `stop` would wait for it.
        self.capture.closed = True
        deadline = time.monotonic() + _END_SECONDS
        while self._stream.active and time.monotonic() < deadline:
            time.sleep(0.005)
        # Even so PortAudio may never return: ALSA's PulseAudio device locks itself up when its server dies.
        closing = Thread(target=_close, args=(self._stream,), daemon=True)
        closing.start()
        closing.join(_END_SECONDS)
        if closing.is_alive():  # and may print to the end
            atexit.unregister(_sounddevice()._exit_handler)  # it would close the stream once more
        else:
            end_silence()

    def _open(self, sounddevice: Any) -> tuple[Any, Capture]:
        refusal: Exception | None = None
        # Its own rate first: most devices refuse 16 kHz.
        for rate in dict.fromkeys((self.device.rate, *_OTHER_RATES)):
            capture = Capture(rate)

            def callback(frames: FloatArray, _count: int, _time: object, status: Any, into: Capture = capture) -> None:
                into.put(frames, status.input_overflow)
                if into.closed:
                    raise sounddevice.CallbackAbort

            stream = None
            try:
                stream = sounddevice.InputStream(
                    samplerate=rate,
                    device=self.device.number,
                    channels=self._channels,
                    dtype="float32",
                    callback=callback,
                )
                _unclosed.add(stream)
                stream.start()
            except sounddevice.PortAudioError as error:
                refusal = refusal or error
                if stream is not None:
                    _close(stream)
                continue
            return stream, capture
        raise MicrophoneError(
            f"the microphone {self.device.name} cannot be opened ({' '.join(str(refusal).split())}): "
            "close what else uses it, or choose another (`gemma4-mlx devices` lists them)"
        )


def _close(stream: Any) -> None:
    stream.abort(ignore_errors=True)
    stream.close(ignore_errors=True)
    _unclosed.discard(stream)


def _sounddevice() -> Any:
    is_new = "sounddevice" not in sys.modules
    try:
        with c_libraries_silent():
            import sounddevice
    except OSError as error:  # the package is there, the library it calls is not
        raise MicrophoneError(
            f"{error}: install it (Debian: apt install libportaudio2; macOS: pip install --force-reinstall sounddevice)"
        ) from error
    if is_new:
        atexit.register(silence)  # called before sounddevice's own handler, which ends PortAudio
    return sounddevice


def _zeros_hint(platform: str) -> str:
    if platform == "darwin":
        return (
            "the microphone delivers complete silence: allow this terminal app (in tmux, screen or ssh: the one they "
            "were started in) to use it in System Settings › Privacy & Security › Microphone, then start it again"
        )
    return "the microphone delivers complete silence: is it muted?"
