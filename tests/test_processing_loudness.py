"""Very quiet speech is made louder; everything else is left alone, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gemma4_mlx as g4
from demo_inputs import RECORDINGS
from gemma4_mlx.processing.audio import load_audio
from gemma4_mlx.processing.loudness import levelled

VOICES = [load_audio(recording.path) for recording in RECORDINGS]


def quieter(samples: np.ndarray, decibels: float) -> np.ndarray:
    """As a 16-bit file would keep it."""
    stored = np.round(samples * 10 ** (-decibels / 20) * 32768).clip(-32768, 32767)
    return (stored / np.float32(32768)).astype(np.float32)


@pytest.mark.parametrize("decibels", [0, 10, 20, 25])
def test_speech_of_any_usual_level_is_left_alone(decibels: float) -> None:
    for voice in VOICES:
        samples = quieter(voice, decibels)
        assert levelled(samples) is samples


@pytest.mark.parametrize("decibels", [40, 45, 50])
def test_a_recording_far_too_quiet_is_written_down_as_it_is(decibels: float) -> None:
    model, processor = g4.load("demo")
    for voice, recording in zip(VOICES, RECORDINGS, strict=True):
        pause = np.zeros(32_000, np.float32)
        samples = quieter(np.concatenate([voice, pause]), decibels)
        assert g4.transcribe(model, processor, samples).text == recording.transcript


def test_a_quiet_clip_is_levelled_when_it_is_loaded() -> None:
    loud = VOICES[0]
    samples = load_audio((quieter(loud, 45), 16_000))
    assert 0.05 < np.abs(samples).max() <= 1
    correlation = np.corrcoef(samples, loud)[0, 1]
    assert correlation > 0.99


@pytest.mark.parametrize("level", [1e-6, 1e-4, 1e-3, 3e-3])
def test_noise_hum_and_silence_stay_as_soft_as_they_are(level: float) -> None:
    time = np.arange(48_000) / 16_000
    noise = np.random.default_rng(0).standard_normal(len(time))
    for sound in (noise, np.sin(2 * np.pi * 50 * time), 0 * noise):
        samples = (level * sound).astype(np.float32)
        assert levelled(samples) is samples


def test_a_click_in_a_quiet_recording_stays_within_full_scale() -> None:
    samples = quieter(VOICES[0], 45)
    samples[1000] = 0.9
    assert np.abs(levelled(samples)).max() <= 1


@given(st.integers(0, 3000), st.floats(-140, 20), st.integers(0, 9))
def test_nothing_but_the_level_changes(length: int, decibels: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = (10 ** (decibels / 20) * rng.standard_normal(length) * rng.random(length) ** 8).astype(np.float32)
    louder = levelled(samples)
    assert louder.dtype == np.float32
    assert louder.shape == samples.shape
    if louder is not samples:
        gain = np.abs(louder).max() / np.abs(samples).max()
        assert gain >= 1
        np.testing.assert_allclose(louder, samples * gain, rtol=1e-4)
