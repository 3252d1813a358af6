"""What processor_config.json and generation_config.json may choose, and a check of what they may not.

The number and size of a video's frames are choices and are honoured. Everything else follows from how Gemma 4 was
trained: a file that says otherwise is refused, and a missing one means what all published checkpoints say. Image tokens
are the caller's choice, per call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import IMAGE_TOKEN_BUDGETS, AudioConfig, Config
from ..errors import CheckpointError
from ..log_mel import FFT, HOP, MEL_BINS, MEL_FLOOR, SAMPLE_RATE, WINDOW
from .images import PATCH_SIZE, POOLING
from .tokenizer import read_json
from .video import FRAMES, TOKENS_PER_FRAME

_MOST_FRAMES = 10_000  # more than the longest context has room for


@dataclass(frozen=True)
class Settings:
    """How a video is sampled: frames per video, soft tokens per frame."""

    video_frames: int = FRAMES
    video_frame_tokens: int = TOKENS_PER_FRAME


def read_settings(folder: Path, config: Config) -> Settings:
    """Read processor_config.json, or the older preprocessor_config.json, if the folder has one.

    Raises:
        CheckpointError: a file is damaged, or asks for what this package does not do.
    """
    path = folder / "processor_config.json"
    sections = {"image_processor": read_json(folder / "preprocessor_config.json")} | read_json(path)
    for section, fixed in _fixed(config).items():
        given = sections.get(section) or {}
        if not isinstance(given, Mapping):
            raise CheckpointError(f"{path}: {section} is not an object: download the checkpoint again")
        for key, expected in fixed.items():
            value = given.get(key)
            if value is not None and not _same(value, expected):
                raise CheckpointError(f"{path}: {section}.{key} is {value!r}, only {expected!r} is supported")
        if given.get("do_normalize"):  # of no effect with a mean of 0 and a deviation of 1, transformers' defaults
            for key, number in (("image_mean", 0), ("image_std", 1)):
                if (value := given.get(key)) is not None and value not in (number, [number] * 3):
                    raise CheckpointError(f"{path}: {section}.{key} is {value!r}, only {number} is supported")
    of_video = sections.get("video_processor") or {}
    frames = of_video.get("num_frames") or FRAMES
    tokens = of_video.get("max_soft_tokens") or TOKENS_PER_FRAME
    if not 0 < (_whole_number(frames) or 0) <= _MOST_FRAMES:
        raise CheckpointError(f"{path}: video_processor.num_frames is {frames!r}, must be 1 to {_MOST_FRAMES}")
    if _whole_number(tokens) not in IMAGE_TOKEN_BUDGETS:
        raise CheckpointError(f"{path}: video_processor.max_soft_tokens is {tokens!r}, must be {IMAGE_TOKEN_BUDGETS}")
    return Settings(int(frames), int(tokens))


def read_generation_config(folder: Path) -> dict[str, Any]:
    """generation_config.json, {} if the folder has none; what generation reads from it is as generation takes it.

    transformers and others have more than one way to write that a choice is off. All are read; what none of them can
    generate with is refused.

    Raises:
        CheckpointError: the file is damaged, or a value cannot be used; the key is named.
    """
    path = folder / "generation_config.json"
    config = read_json(path)
    for key, (read, expected) in _GENERATION.items():
        if (value := config.get(key)) is None:
            continue
        if (usable := read(value)) is None:
            raise CheckpointError(f"{path}: {key} is {value!r}, must be {expected}")
        config[key] = usable
    return config


def _number(value: Any) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30
    return value if fits and value >= 0 else None  # NaN is not below 1e30


def _whole_number(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30 or value != int(value):
        return None
    return int(value)


def _top_p(value: Any) -> float | None:
    # 1 and more keep every token. transformers keeps the best one whatever top_p is: with 0 that one alone.
    number = _number(value)
    return None if number is None else min(max(number, 1e-9), 1.0)


def _top_k(value: Any) -> int | None:
    # vLLM and llama.cpp write -1 for all tokens, transformers 0.
    number = _whole_number(value)
    return None if number is None else max(number, 0)


def _switch(value: Any) -> bool | None:
    return bool(value) if value in (0, 1) else None


def _ids(value: Any) -> int | list[int] | None:
    """An id or a list of them; a negative one is no token."""
    numbers = [_whole_number(v) for v in (value if isinstance(value, list) else [value])]
    found = [n for n in numbers if n is not None]
    if len(found) != len(numbers):
        return None
    ids = [n for n in found if n >= 0]
    return ids[0] if ids and not isinstance(value, list) else ids


_GENERATION: dict[str, tuple[Callable[[Any], Any], str]] = {
    "temperature": (_number, "0 or more"),
    "top_p": (_top_p, "0 or more"),
    "top_k": (_top_k, "a whole number"),
    "do_sample": (_switch, "true or false"),
    "eos_token_id": (_ids, "a token id or a list of them"),
}


def _same(value: Any, expected: Any) -> bool:
    if isinstance(value, int | float) and isinstance(expected, int | float):
        return math.isclose(value, expected, rel_tol=1e-5)
    return bool(value == expected)


_PICTURES = {
    "patch_size": PATCH_SIZE,
    "pooling_kernel_size": POOLING,
    "rescale_factor": 1 / 255,
    "do_rescale": True,
    "do_resize": True,
    "resample": 3,  # bicubic
}
_LOG_MEL = {
    "sampling_rate": SAMPLE_RATE,
    "feature_size": MEL_BINS,
    "frame_length_ms": 20.0,
    "hop_length_ms": 10.0,
    "frame_length": WINDOW,
    "hop_length": HOP,
    "fft_length": FFT,
    "fft_overdrive": False,
    "min_frequency": 0.0,
    "max_frequency": 8000.0,
    "mel_floor": MEL_FLOOR,
    "preemphasis": 0.0,
    "dither": 0.0,
    "input_scale_factor": 1.0,
    "per_bin_mean": "null",
    "per_bin_stddev": "null",
}


def _fixed(config: Config) -> dict[str, dict[str, Any]]:
    """By section and key of processor_config.json."""
    sound: dict[str, Any] = {}
    if isinstance(config.audio, AudioConfig):
        sound = _LOG_MEL
    elif config.audio is not None:
        size = config.audio.samples_per_token
        sound = {"sampling_rate": SAMPLE_RATE, "feature_size": size, "audio_samples_per_token": size}
    return {"image_processor": _PICTURES, "video_processor": _PICTURES, "feature_extractor": sound}
