"""A sound as a model takes it: a log-mel spectrogram (E2B, E4B), or the samples themselves (12B)."""

from __future__ import annotations

import numpy as np

from .config import AudioConfig
from .config_unified import UnifiedAudioConfig
from .log_mel import HOP, FloatArray, log_mel
from .log_mel import soft_token_count as log_mel_tokens


def sound_features(samples: FloatArray, audio: AudioConfig | UnifiedAudioConfig) -> FloatArray:
    """The features of a clip.

    Args:
        samples: float32 `[n]`, mono, 16 kHz, in [-1, 1].
        audio: the model's `config.audio`.

    Returns:
        float32: log-mel frames `[frames, 128]`, or the samples `[ceil(n / 640), 640]` with zeros after the last one.
    """
    if isinstance(audio, AudioConfig):
        return log_mel(samples)
    size = audio.samples_per_token
    return np.pad(samples.astype(np.float32, copy=False), (0, -len(samples) % size)).reshape(-1, size)


def soft_token_count(samples: int, audio: AudioConfig | UnifiedAudioConfig) -> int:
    """How many soft tokens a clip of `samples` at 16 kHz has."""
    if isinstance(audio, AudioConfig):
        return log_mel_tokens(samples)
    return -(-samples // audio.samples_per_token)


def shortest_clip(audio: AudioConfig | UnifiedAudioConfig) -> int:
    """The number of samples at 16 kHz from which a clip has a soft token."""
    return HOP + 1 if isinstance(audio, AudioConfig) else 1
