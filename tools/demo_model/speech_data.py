"""Spoken training clips: whole utterances and strings of single words, changed the way rooms and microphones do.

``SpeechData.sample`` gives float32 samples at 16 kHz; ``log_mel`` is the same arithmetic as transformers'
``Gemma4AudioFeatureExtractor`` (in float32), so that what is trained on is what the processor gives later.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Gemma4AudioFeatureExtractor

from . import voices
from .words import DIGITS, SPOKEN, TENS, random_utterance

RATE = voices.RATE
_EXTRACTOR = Gemma4AudioFeatureExtractor()
_FILTERS = torch.from_numpy(np.asarray(_EXTRACTOR.mel_filters, dtype=np.float32))
_WINDOW = torch.from_numpy(_EXTRACTOR.window)
# Words that mean the same whatever stands beside them ("three hundred" and "twenty three" are one number).
_APART = [word for word in SPOKEN if word != "hundred" and word not in TENS]
# How often each kind of voice is heard: recordings and voices built from recordings carry more than formant synthesis.
WEIGHTS = {
    "espeak_a": 1.6, "espeak_b": 1.6, "flite_rms": 4.5, "flite_kal16": 1.5, "flite_kal": 0.6,
    "festival_ked_diphone": 1.8, "festival_kal_diphone": 0.8, "festival_lp_diphone": 0.7,
    "festival_czech_dita": 0.7, "festival_suo_fi_lj_diphone": 0.4, "festival_upc_ca_ona_hts": 0.4, "recordings": 2.2,
    "flite_rms_run": 5.0, "flite_kal16_run": 1.2, "festival_ked_diphone_run": 1.6, "espeak_run": 1.6,
    "flite_rms_talk": 1.6, "flite_kal16_talk": 0.4, "festival_ked_diphone_talk": 0.6, "espeak_talk": 0.6,
}  # fmt: skip


# Men's voices, which are also made into higher ones: the few women's voices there are do not cover enough.
MALE = ("flite", "festival_ked", "festival_kal")


def log_mel(samples: np.ndarray) -> np.ndarray:
    """float32 [N] → float32 [(N − 1) // 160, 128]."""
    wave = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    frames = torch.nn.functional.pad(wave, (160, 0)).unfold(0, 321, 160)[:, :320] * _WINDOW
    with torch.autocast("cpu", enabled=False):
        return torch.log(torch.fft.rfft(frames, n=512).abs() @ _FILTERS + 1e-3).numpy()


@dataclass
class Clip:
    """``samples`` float32 [N]; ``words`` as spoken; ``spans`` (start, end, word) in samples where known, else [].

    ``factor``: how much faster, and higher in pitch and formants, ``change`` makes it.
    """

    samples: np.ndarray
    words: list[str]
    spans: list[tuple[int, int, str]]
    factor: float = 1.0


class SpeechData:
    """All cached voices, and the ways to draw a clip from them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.noise = np.random.default_rng(seed)
        self.utterances: dict[str, list[tuple[list[str], np.ndarray]]] = {}
        self.singles: dict[str, dict[str, list[np.ndarray]]] = {}
        for name in voices.TRAINING_VOICES:
            clips = voices.read_voice(folder / f"{name}.npz")
            self.utterances[name] = clips
            singles: dict[str, list[np.ndarray]] = {}
            for words, pcm in clips:
                if len(words) == 1:
                    singles.setdefault(words[0], []).append(pcm)
            self.singles[name] = singles
        self.names = list(WEIGHTS)
        self.weights = [WEIGHTS[name] for name in self.names]

    def draw(self, longest: int, strings: float = 0.5) -> Clip:
        """A clean clip of at most ``longest`` words."""
        rng = self.rng
        while True:
            name = rng.choices(self.names, self.weights)[0]
            if name == "recordings" or (rng.random() < strings and not name.startswith("espeak")):
                clip = self._string(name, longest)
            else:
                words, pcm = rng.choice(self.utterances[name])
                spans = [(0, len(pcm), words[0])] if len(words) == 1 else []
                clip = Clip(pcm.astype(np.float32) / 32768, words, spans)
            if clip is None or len(clip.words) > longest:
                continue
            if len(clip.words) > 1 and rng.random() < 0.4 and not any(word in DIGITS for word in clip.words):
                continue  # digit strings are what is asked for most
            clip.factor = rng.uniform(0.9, 1.3) if name.startswith(MALE) else rng.uniform(0.84, 1.2)
            return clip

    def _string(self, name: str, longest: int) -> Clip | None:
        """Single words of one voice one after another, overlapping a little up to well apart."""
        rng, singles = self.rng, self.singles[name]
        words = random_utterance(rng)[:longest]
        if rng.random() < 0.15:
            words = [rng.choice(_APART) for _ in range(rng.randrange(1, longest + 1))]
        if any(word not in singles for word in words):
            words = [w for w in words if w in singles]
            if not words:
                return None
        close = rng.random() < 0.4
        parts: list[np.ndarray] = []
        spans = []
        position = 0
        for word in words:
            pcm = rng.choice(singles[word]).astype(np.float32) / 32768
            if parts:
                gap = int(rng.uniform(-0.03, 0.08) * RATE) if close else int(rng.uniform(0, 0.35) * RATE)
                if gap < 0:
                    cut = min(-gap, len(parts[-1]) // 4, len(pcm) // 4)
                    parts[-1] = parts[-1].copy()
                    parts[-1][-cut:] += pcm[:cut] if cut else 0
                    pcm = pcm[cut:]
                else:
                    parts.append(np.zeros(gap, dtype=np.float32))
                    position += gap
            parts.append(pcm)
            spans.append((position, position + len(pcm), word))
            position += len(pcm)
        return Clip(np.concatenate(parts), words, spans)

    def sample(self, longest: int = 7, strings: float = 0.5) -> Clip:
        """A clip as a microphone might give it."""
        return self.change(self.draw(longest, strings))

    def change(self, clip: Clip) -> Clip:
        """Speed and pitch, room, tone, noise, level, codec; silence around it."""
        rng, noise = self.rng, self.noise
        x, spans = clip.samples, clip.spans
        factor = clip.factor
        grid = np.arange(0, len(x) - 1, factor, dtype=np.float32)[:-1]
        below = grid.astype(np.int64)
        x = x[below] + (grid - below) * (x[below + 1] - x[below])
        # Mostly short silences: long ones cost time and teach nothing more.
        lead, tail = (int(rng.uniform(0.02, 0.5) ** 2 * 1.6 * RATE) for _ in range(2))
        x = np.concatenate([np.zeros(lead, np.float32), x, np.zeros(tail, np.float32)])
        spans = [(int(a / factor) + lead, int(b / factor) + lead, w) for a, b, w in spans]
        if rng.random() < 0.3:
            length = int(rng.uniform(0.05, 0.3) * RATE)
            room = noise.standard_normal(length, dtype=np.float32)
            room *= np.exp(-np.arange(length, dtype=np.float32) / (length / 5)) * rng.uniform(0.02, 0.15)
            room[0] = 1.0
            x = _convolve(x, room)
        if rng.random() < 0.6:
            x = _tone(x, noise, rng)
        rms = float(np.sqrt(np.mean(x**2)) + 1e-6)
        if rng.random() < 0.65:
            snr = rng.uniform(6, 40)
            x = x + _noise(len(x), noise, rng) * (rms * 10 ** (-snr / 20))
        level = 10 ** (rng.uniform(-36, -12) / 20)
        x = np.clip(x * (level / rms), -1, 1)
        if rng.random() < 0.1:
            x = np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256)
            x = np.round(x * 128) / 128
            x = np.sign(x) * (256 ** np.abs(x) - 1) / 255
        return Clip(x.astype(np.float32), clip.words, spans)

    def silence(self) -> Clip:
        """No words: exact zeros, hiss, hum, clicks, at any level."""
        rng, noise = self.rng, self.noise
        length = int(rng.uniform(0.3, 4.0) * RATE)
        kind = rng.random()
        x = np.zeros(length, np.float32)
        if kind > 0.15:
            x = _noise(length, noise, rng) * 10 ** (rng.uniform(-60, -14) / 20)
        if kind > 0.7:
            t = np.arange(length) / RATE
            hum = sum(np.sin(2 * np.pi * rng.choice([50, 60, 120, 440, 1000]) * k * t) / k for k in (1, 2, 3))
            x = x + hum * 10 ** (rng.uniform(-50, -18) / 20)
        if kind > 0.88:
            for _ in range(rng.randrange(1, 6)):
                at = rng.randrange(length)
                burst = noise.standard_normal(rng.randrange(20, 600)) * rng.uniform(0.02, 0.4)
                x[at : at + len(burst)] += burst[: max(0, length - at)]
        return Clip(np.clip(x, -1, 1).astype(np.float32), [], [])


def _convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    size = _fast_length(len(x) + len(kernel) - 1)
    a, b = torch.fft.rfft(torch.from_numpy(x), size), torch.fft.rfft(torch.from_numpy(kernel), size)
    return torch.fft.irfft(a * b, size)[: len(x)].numpy()


def _fast_length(size: int) -> int:
    """The next length that an FFT likes: a multiple of a large power of two."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step


def _tone(x: np.ndarray, noise: np.random.Generator, rng: random.Random) -> np.ndarray:
    """A smooth random frequency response; sometimes a telephone's."""
    size = _fast_length(len(x))
    spectrum = torch.fft.rfft(torch.from_numpy(x), size)
    frequency = np.linspace(0, 8000, len(spectrum))
    knots = np.cumsum(noise.standard_normal(7)) * 2.5
    response = np.interp(frequency, [0, 300, 800, 1600, 3000, 5000, 8000], knots - knots.mean())
    if rng.random() < 0.2:
        response = response - 30 * (frequency > rng.uniform(3200, 4500)) - 20 * (frequency < rng.uniform(100, 300))
    return torch.fft.irfft(spectrum * torch.from_numpy(10 ** (response / 20)).float(), size)[: len(x)].numpy()


def _noise(length: int, noise: np.random.Generator, rng: random.Random) -> np.ndarray:
    """Unit-power noise, white to brown."""
    size = _fast_length(length)
    x = noise.standard_normal(size, dtype=np.float32)
    slope = rng.uniform(0, 1.0)
    if slope > 0.2:
        spectrum = torch.fft.rfft(torch.from_numpy(x))
        spectrum *= torch.arange(len(spectrum)).clamp(min=20.0) ** -slope
        x = torch.fft.irfft(spectrum, size).numpy()
    x = x[:length]
    return x / (np.sqrt(np.mean(x**2)) + 1e-9)
