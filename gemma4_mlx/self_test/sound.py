"""The sound encoder in streams against whole, and whether it keeps up here with somebody who speaks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..checkpoint import load_model, read_config
from ..checkpoint.builtin import DEMO
from ..checkpoint.hub import resolve
from ..config import Config
from ..log_mel import SAMPLE_RATE, log_mel
from ..model import Gemma4, ModelInputs
from .check import Item, Outcome, difference, type_name
from .models import PACKINGS, SIZES, arrays_of, copied, float32_twin

_BOUNDS = {mx.float32: 2e-3, mx.bfloat16: 0.3}
_BATCH_SECONDS = 0.2
_BATCHES = 5
_NO_DIGITS = str.maketrans("", "", "0123456789")
# What of the published sizes that hear decides how long sound takes: how many layers there are, and how wide they are.
_DEPTHS = {
    "e2b": {"num_hidden_layers": 35, "num_kv_shared_layers": 20, "intermediate_size": 6144},
    "e4b": {"num_hidden_layers": 42, "num_kv_shared_layers": 18, "intermediate_size": 10240},
}
_SLIDING_PER_FULL = {"e2b": 4, "e4b": 5}


def items(working: mx.Dtype) -> Iterator[Item]:
    folder = resolve(DEMO)
    model = load_model(folder, read_config(folder), dtype="float32", per_layer="memory")
    for dtype in dict.fromkeys((mx.float32, working)):
        yield Item("sound", f"in a stream against whole, {type_name(dtype)}", partial(_streamed, model, dtype))
    for size in _DEPTHS if working != mx.float32 else ():  # without a GPU it takes minutes to say no
        yield Item("speed", f"{_BATCH_SECONDS:g} s of sound, {size} in 8 bits", partial(_keeps_up, size, working))


def _sound(seconds: float) -> np.ndarray:
    """A rising tone with a little noise, float32."""
    at = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(5).standard_normal(len(at))
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * at) * at) + 0.02 * noise).astype(np.float32)


def _streamed(model: Gemma4, dtype: mx.Dtype) -> Outcome:
    stored, sound = copied(model, dtype), _sound(3.0)
    twin = float32_twin(stored)
    with mx.stream(mx.cpu):
        (right,) = twin.encode_audio(ModelInputs(mx.zeros((1, 1), mx.int32), sounds=(mx.array(log_mel(sound)),)))
        mx.eval(right)
    stream = stored.audio_stream()
    parts = [stream.feed(sound[start : start + 1777]) for start in range(0, len(sound), 1777)]
    return Outcome(difference(right, mx.concatenate([*parts, stream.finish()])), _BOUNDS[dtype])


def _keeps_up(size: str, working: mx.Dtype) -> Outcome:
    model = _hearing_model(size, working)
    stream, cache = model.audio_stream(), model.make_cache()
    sound = _sound(_BATCH_SECONDS * (_BATCHES + 2))
    batch = round(_BATCH_SECONDS * SAMPLE_RATE)
    times = []
    for start in range(0, len(sound), batch):
        began = time.perf_counter()
        tokens = stream.feed(sound[start : start + batch])
        model.append_soft_tokens(tokens, cache)
        mx.eval([layer_cache.state for layer_cache in cache])
        times.append(time.perf_counter() - began)
    share = float(np.median(times[2:])) / _BATCH_SECONDS
    told = (
        "live speech keeps up" if share < 0.7 else "live speech may fall behind" if share < 1 else "too slow to listen"
    )
    return Outcome(
        share, None, "of real time", f"{told} (random weights, every layer with those of the first of its kind)"
    )


def _hearing_model(size: str, working: mx.Dtype) -> Gemma4:
    """The published depth and width, the decoder in 8 bits; layers of one shape share their weights, to save memory."""
    text = SIZES[size] | _DEPTHS[size] | {"vocab_size": 512, "vocab_size_per_layer_input": 512}
    group = ["sliding_attention"] * _SLIDING_PER_FULL[size] + ["full_attention"]
    text["layer_types"] = (group * text["num_hidden_layers"])[: text["num_hidden_layers"]]
    model = Gemma4(Config.from_dict({"model_type": "gemma4", "text_config": text, "audio_config": {}}))
    model.set_dtype(working)
    nn.quantize(
        model.language_model,
        class_predicate=lambda _, module: PACKINGS["8 bits"] if isinstance(module, nn.Linear) else False,
    )
    first: dict[tuple[str, tuple[int, ...]], mx.array] = {}
    weights = []
    for name, array in arrays_of(model):
        shape_of = (name.translate(_NO_DIGITS), array.shape)
        if shape_of not in first:
            first[shape_of] = array
        weights.append((name, first[shape_of]))
    model.load_weights(weights)
    return model
