"""Choosing a microphone by what people type, and what becomes of its sound on the way from the callback."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from gemma4_mlx.app import microphone
from gemma4_mlx.app.microphone import Capture, Device, Microphone, MicrophoneError, find_device

from command_line import only_line, start
from virtual_microphone import IS_INSTALLED, prepare, virtual_microphone

BUILT_IN = Device(0, "MacBook Pro Microphone", 1, 48_000.0, True)
HEADSET = Device(3, "AirPods Pro", 1, 24_000.0, False)
MIXER = Device(4, "Scarlett 2i2 USB Microphone", 2, 44_100.0, False)
ALL = [BUILT_IN, HEADSET, MIXER]


@pytest.mark.parametrize(
    ("wanted", "device"),
    [(None, BUILT_IN), ("3", HEADSET), ("airpods", HEADSET), ("Scarlett", MIXER), ("MACBOOK pro microphone", BUILT_IN)],
)
def test_a_device_is_found_by_number_or_by_part_of_its_name(wanted, device):
    assert find_device(wanted, ALL) is device


def test_without_a_default_the_first_is_taken():
    assert find_device(None, [HEADSET, MIXER]) is HEADSET


@pytest.mark.parametrize(
    ("wanted", "listed", "not_listed"),
    [
        ("microphone", ["0 MacBook Pro Microphone", "4 Scarlett 2i2 USB Microphone"], "AirPods"),
        ("Blue Yeti", ["0 MacBook Pro Microphone", "3 AirPods Pro", "4 Scarlett"], "Yeti Pro"),
        ("7", ["3 AirPods Pro"], "7 "),
    ],
)
def test_an_ambiguous_or_unknown_name_lists_those_that_could_be_meant(wanted, listed, not_listed):
    with pytest.raises(MicrophoneError) as error:
        find_device(wanted, ALL)
    for text in listed:
        assert text in str(error.value)
    assert not_listed not in str(error.value).replace(repr(wanted), "")


def test_no_device_at_all_says_what_to_do():
    with pytest.raises(MicrophoneError, match="connect one"):
        find_device(None, [])


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def deliver(capture: Capture, clock: Clock, frames: np.ndarray, rate: float) -> None:
    clock.now += len(frames) / rate
    capture.put(frames, False)


def tone(seconds: float, rate: float, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channel_count_becomes_16_khz_mono(rate, channels):
    clock, capture = Clock(), None
    capture = Capture(rate, clock)
    sound = tone(2, rate, channels)
    heard = []
    for at in range(0, len(sound), 480):
        deliver(capture, clock, sound[at : at + 480], rate)
        heard.append(capture.take(0))
    heard = np.concatenate(heard)
    assert len(heard) == pytest.approx(32_000, abs=400)  # what is still in the filter
    spectrum = np.abs(np.fft.rfft(heard[4_000:20_000]))
    assert np.argmax(spectrum) == 440
    assert np.abs(heard).max() == pytest.approx(0.5, abs=0.02)


def test_the_callback_s_buffer_may_be_overwritten_once_it_returns():
    capture = Capture(16_000)
    buffer = np.full((160, 1), 0.25, np.float32)
    capture.put(buffer, False)
    buffer[:] = 9
    np.testing.assert_array_equal(capture.take(0), np.full(160, 0.25, np.float32))


def test_reading_waits_for_sound_and_not_for_ever():
    capture = Capture(16_000)
    assert len(capture.take(0.01)) == 0
    threading.Timer(0.05, capture.put, (tone(0.01, 16_000), False)).start()
    assert len(capture.take(5.0)) == 160


def test_what_waits_and_what_was_lost_is_counted():
    capture = Capture(16_000)
    for overflowed in (False, True, True):
        capture.put(tone(0.1, 16_000), overflowed)
    assert capture.backlog() == pytest.approx(0.3)
    capture.take(0)
    assert capture.backlog() == 0
    assert capture.overflows == 2


def test_a_second_of_exact_zeros_is_noticed_and_forgotten_with_the_first_sound():
    clock = Clock()
    capture = Capture(16_000, clock)
    for _ in range(9):
        deliver(capture, clock, np.zeros((1_600, 1), np.float32), 16_000)
    capture.take(0)
    assert not capture.only_zeros
    deliver(capture, clock, np.zeros((1_600, 1), np.float32), 16_000)
    capture.take(0)
    assert capture.only_zeros
    deliver(capture, clock, np.full((1_600, 1), 1e-5, np.float32), 16_000)
    capture.take(0)
    assert not capture.only_zeros


def test_a_rate_that_is_not_the_stated_one_is_told_by_the_clock():
    clock = Clock()
    capture = Capture(48_000, clock)
    for _ in range(80):
        clock.now += 0.1
        capture.put(tone(0.1, 24_000), False)  # a headset in telephone quality
        capture.take(0)
    assert capture.actual_rate == pytest.approx(24_000, rel=0.03)
    honest = Capture(48_000, clock)
    for _ in range(80):
        deliver(honest, clock, tone(0.1, 48_000), 48_000)
        honest.take(0)
    assert honest.actual_rate is None


def test_a_device_that_calls_back_no_more_is_dead_after_a_while():
    clock = Clock()
    capture = Capture(16_000, clock)
    deliver(capture, clock, tone(0.1, 16_000), 16_000)
    capture.take(0)
    clock.now += 2
    assert not capture.is_dead
    clock.now += 2
    assert capture.is_dead


class SomeDevice:
    """A sounddevice whose one input runs at 48 kHz only, whatever it states."""

    class PortAudioError(Exception):
        pass

    tried: ClassVar[list[float]] = []

    class InputStream:
        def __init__(self, samplerate, device, channels, dtype, callback):
            SomeDevice.tried.append(samplerate)
            if samplerate != 48_000:
                raise SomeDevice.PortAudioError("Invalid sample rate [PaErrorCode -9997]")
            self.samplerate, self.active, self._callback = samplerate, True, callback

        def start(self):
            self._callback(tone(0.1, 48_000), 4_800, None, SimpleNamespace(input_overflow=False))

        def abort(self, ignore_errors):
            self.active = False

        close = abort


def test_a_device_that_refuses_its_own_rate_is_opened_at_another(monkeypatch):
    monkeypatch.setattr(microphone, "_sounddevice", lambda: SomeDevice)
    with Microphone(HEADSET) as opened:
        assert SomeDevice.tried == [24_000, 48_000]
        assert opened.rate == 48_000
        assert len(opened.read(1.0)) == pytest.approx(1_600, abs=400)
        opened.stop()
        with pytest.raises(MicrophoneError, match="AirPods Pro is gone"):
            opened.read(0.01)


def test_a_device_that_refuses_every_rate_says_why(monkeypatch):
    monkeypatch.setattr(microphone, "_sounddevice", lambda: SomeDevice)
    monkeypatch.setattr(microphone, "_OTHER_RATES", (44_100,))
    with pytest.raises(MicrophoneError, match=r"Scarlett.*-9997.*gemma4-mlx devices"):
        Microphone(MIXER)


def test_a_missing_portaudio_is_one_line_that_says_what_to_install(tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    process = start("devices", more_environment={"PYTHONPATH": str(tmp_path)})
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "apt install libportaudio2" in only_line(errors.decode())


def test_a_device_s_nonsense_does_not_reach_the_model():
    capture = Capture(16_000)
    capture.put(np.array([[np.nan], [np.inf], [0.5]], np.float32), False)
    assert np.isfinite(capture.take(0)).all()


LATE = """
from gemma4_mlx.app.microphone import Microphone, devices, find_device
print(len(devices()), flush=True)
input()
with Microphone(find_device(None, devices())) as microphone:
    heard = any(len(microphone.read(1.0)) for _ in range(10))
    print(len(devices()), heard, flush=True)
"""


@pytest.mark.skipif(not IS_INSTALLED, reason="pulseaudio is not installed")
def test_a_microphone_that_is_connected_later_is_found_and_an_open_one_is_left_alone(tmp_path):
    environment = {**os.environ, **prepare(tmp_path)}
    child = subprocess.Popen(
        [sys.executable, "-c", LATE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "0\n"
        with virtual_microphone(tmp_path):
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "2 True\n"
