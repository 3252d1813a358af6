"""The measuring itself, for one engine in a process that has done nothing before.

Everything timed is run once before, to warm up, and then as often as the plan says. Prompts are random ids drawn from
seeds, so every engine reads the same ones and no run finds the last one's answer anywhere.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from .engines import Engine, copied
from .report import Measurement, Plan

if TYPE_CHECKING:
    import mlx.core as mx

    from gemma4_mlx.config import Config
    from gemma4_mlx.model import Gemma4

#: Called with a few words for each thing about to be measured.
OnProgress = Callable[[str], None]

_FIRST_TOKENS = 16
_PICTURE_SIDE = 896  # pixels: 256 soft tokens of the default 280
_SOUND_SECONDS = 30  # the longest clip


class Stopwatch:
    """Seconds between entering and leaving `timing()`."""

    seconds = 0.0


@contextmanager
def timing() -> Iterator[Stopwatch]:
    watch = Stopwatch()
    start = time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - start


def random_ids(config: Config, count: int, *seed: int) -> list[int]:
    """Ids that mean nothing, without the ones that stand for pictures, sound and their borders."""
    import numpy as np

    special = {
        config.pad_token_id,
        *config.placeholder_ids,
        config.boi_token_id,
        config.eoi_token_id,
        config.boa_token_id,
        config.eoa_token_id,
    }
    plain = np.setdiff1d(np.arange(config.text.vocab_size), list(special))
    return np.random.default_rng(seed).choice(plain, count).tolist()


def measure_text(
    engine: Engine, config: Config, plan: Plan, on_progress: OnProgress
) -> tuple[list[Measurement], tuple[int, ...]]:
    """Prompt and generation speed at each depth, and the most memory MLX held meanwhile.

    Returns:
        The measurements, and the first tokens said after the first prompt.
    """
    import mlx.core as mx

    measured = []
    cold = random_ids(config, plan.prompts[0] if plan.prompts else 1, 0)
    on_progress("first token")
    with timing() as watch:
        tokens = engine.tokens(cold, _FIRST_TOKENS, engine.make_cache())
        first = next(tokens)
    first_tokens = (first, *tokens)
    measured.append(Measurement("ttft_cold", "s", (watch.seconds,), tokens=len(cold)))
    peaks = []
    for depth in plan.depths:
        if depth:
            on_progress(f"filling the context to {depth}")
        filled = engine.filled_cache(random_ids(config, depth, 1, depth))
        # What follows works on copies of the filled cache, which is the benchmark's memory and not the engine's.
        if depth:
            peaks.append(mx.get_peak_memory())
        for count in plan.prompts:
            on_progress(f"prompt of {count}{_at(depth)}")
            seconds = _repeated(plan, partial(_prompt_seconds, engine, config, filled, depth, count))
            measured.append(Measurement("pp", "tok/s", tuple(count / s for s in seconds), count, depth))
            measured.append(Measurement("ttft", "s", tuple(seconds), count, depth))
        for count in plan.generations:
            on_progress(f"generating {count}{_at(depth)}")
            seconds = _repeated(plan, partial(_decode_seconds, engine, config, filled, depth, count))
            measured.append(Measurement("tg", "tok/s", tuple(count / s for s in seconds), count, depth))
        if not depth:
            peaks.append(mx.get_peak_memory())
        del filled
        mx.clear_cache()
        mx.reset_peak_memory()
    measured.append(Measurement("memory_text", "bytes", (max(peaks),)))
    return measured, first_tokens


def measure_towers(model: Gemma4, plan: Plan, on_progress: OnProgress) -> list[Measurement]:
    """What a picture and 30 s of sound cost before the decoder sees them, and the most memory MLX held meanwhile.

    Nothing of a model that has no towers.
    """
    import mlx.core as mx
    import numpy as np

    from gemma4_mlx.log_mel import SAMPLE_RATE
    from gemma4_mlx.model import ModelInputs
    from gemma4_mlx.processing.images import image_patches
    from gemma4_mlx.sound_features import sound_features

    measured = []
    no_ids = mx.zeros((1, 0), mx.int32)
    rng = np.random.default_rng(0)
    if model.config.vision is not None:
        from PIL import Image

        on_progress("a picture")
        picture = Image.fromarray(rng.integers(0, 256, (_PICTURE_SIDE, _PICTURE_SIDE, 3), dtype=np.uint8))
        inputs = ModelInputs(no_ids, images=(image_patches(picture),))
        prepare = _repeated(plan, lambda _: _seconds(lambda: image_patches(picture).patches))
        encode = _repeated(plan, lambda _: _seconds(lambda: model.encode_images(inputs)))
        count = len(model.encode_images(inputs)[0])
        measured.append(Measurement("vision_prepare", "s", tuple(prepare), count))
        measured.append(Measurement("vision_encode", "s", tuple(encode), count))
    if (audio := model.config.audio) is not None:
        on_progress("a sound")
        samples = rng.uniform(-0.5, 0.5, _SOUND_SECONDS * SAMPLE_RATE).astype(np.float32)
        inputs = ModelInputs(no_ids, sounds=(mx.array(sound_features(samples, audio)),))
        prepare = _repeated(plan, lambda _: _seconds(lambda: mx.array(sound_features(samples, audio))))
        encode = _repeated(plan, lambda _: _seconds(lambda: model.encode_audio(inputs)))
        count = len(model.encode_audio(inputs)[0])
        measured.append(Measurement("audio_prepare", "s", tuple(prepare), count))
        measured.append(Measurement("audio_encode", "s", tuple(encode), count))
        factors = ((p + e) / _SOUND_SECONDS for p, e in zip(prepare, encode, strict=True))
        measured.append(Measurement("audio_rtf", "x", tuple(factors)))
    if measured:
        measured.append(Measurement("memory_all", "bytes", (mx.get_peak_memory(),)))
    return measured


def process_memory() -> Measurement:
    """The most memory this process ever held, by the system's count."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Measurement("memory_process", "bytes", (peak if sys.platform == "darwin" else peak * 1024,))


def table_place(model: Gemma4) -> Literal["disk", "memory"] | None:
    """Where the per-layer table is; None for a size without one."""
    import mlx.nn as nn

    table = getattr(model.language_model, "embed_tokens_per_layer", None)
    if table is None:
        return None
    return "memory" if isinstance(table, nn.Module) else "disk"


def _repeated(plan: Plan, run: Callable[[int], float]) -> list[float]:
    """`run(n)` for n = 0 … repetitions; the first one warms up and does not count."""
    return [run(n) for n in range(plan.repetitions + 1)][1:]


def _prompt_seconds(engine: Engine, config: Config, filled: Sequence[Any], depth: int, count: int, n: int) -> float:
    import mlx.core as mx

    prompt = random_ids(config, count, 2, count, depth, n)
    cache = copied(filled) if depth else engine.make_cache()
    # Two tokens, of which one is waited for: engines build the step after it before they hand it out.
    tokens = engine.tokens(prompt, 2, cache)
    with timing() as watch:
        next(tokens)
    mx.eval([layer.state for layer in cache])
    return watch.seconds


def _decode_seconds(engine: Engine, config: Config, filled: Sequence[Any], depth: int, count: int, n: int) -> float:
    cache = copied(filled) if depth else engine.make_cache()
    tokens = engine.tokens(random_ids(config, 1, 3, count, depth, n), count + 1, cache)
    next(tokens)
    with timing() as watch:
        produced = sum(1 for _ in tokens)
    if produced != count:
        raise ValueError(f"asked for {count} tokens at depth {depth}, got {produced}")
    return watch.seconds


def _seconds(make: Callable[[], mx.array | list[mx.array]]) -> float:
    import mlx.core as mx

    with timing() as watch:
        mx.eval(make())
    return watch.seconds


def _at(depth: int) -> str:
    return f" at depth {depth}" if depth else ""
