"""The model that comes with the package, in every type: what it answers, sees and hears."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..checkpoint import load_model, read_config
from ..checkpoint.builtin import DEMO
from ..checkpoint.hub import resolve
from ..generation import generate_tokens
from ..model import Gemma4, ModelInputs
from ..processing import Processor
from .check import Item, Outcome, difference, type_name
from .models import PACKINGS, copied, float32_twin

_QUESTION = "Does my data leave this Mac?"
_BOUNDS = {mx.float32: 2e-3, mx.float16: 0.05, mx.bfloat16: 0.5}
_ANSWER_TOKENS = 24


def items(working: mx.Dtype) -> Iterator[Item]:
    folder = resolve(DEMO)
    model = load_model(folder, read_config(folder), dtype="float32", per_layer="memory")
    inputs = _everything(folder, model)
    for dtype in (mx.float32, mx.bfloat16, mx.float16):
        yield Item(
            "built-in",
            f"text, picture and sound, {type_name(dtype)}",
            partial(_logits, model, inputs, dtype, None),
        )
    for name in ("8 bits", "4 bits"):
        check = partial(_logits, model, inputs, working, {**PACKINGS[name], "group_size": 32})
        yield Item("built-in", f"text, picture and sound, {name}", check)
    yield Item("built-in", "an answer, token for token", partial(_answer, folder, model))


def _everything(folder: Path, model: Gemma4) -> ModelInputs:
    """A prompt of all the model takes; the picture and the sound are made here."""
    y, x = np.mgrid[0:96, 0:144]
    picture = np.stack([x, y, x + y], axis=-1).astype(np.uint8)
    seconds = np.arange(16_000) / 16_000
    sound = (0.3 * np.sin(2 * np.pi * (200 + 600 * seconds) * seconds)).astype(np.float32)
    parts: list[dict[str, Any]] = [
        {"type": "image", "image": picture},
        {"type": "text", "text": _QUESTION},
        {"type": "audio", "audio": sound},
    ]
    return Processor.from_folder(folder, model.config)([{"role": "user", "content": parts}], image_tokens=70)


def _logits(model: Gemma4, inputs: ModelInputs, dtype: mx.Dtype, packing: dict[str, Any] | None) -> Outcome:
    stored = copied(model, dtype, packing)
    twin = float32_twin(stored)
    with mx.stream(mx.cpu):
        right = twin(inputs)
        mx.eval(right)
    return Outcome(difference(right, stored(inputs)), _BOUNDS[dtype])


def _answer(folder: Path, model: Gemma4) -> Outcome:
    """What decoding in compiled steps writes, against the prompt and the answer read anew for every token."""
    ids = Processor.from_folder(folder, model.config)(_QUESTION).input_ids
    with mx.stream(mx.cpu):
        right: list[int] = []
        twin = float32_twin(model)
        for _ in range(_ANSWER_TOKENS):
            logits = twin(mx.concatenate([ids, mx.array([right], mx.int32)], axis=1) if right else ids, last_only=True)
            right.append(int(np.argmax(np.array(logits))))
    written = list(generate_tokens(model, ids, max_tokens=_ANSWER_TOKENS))
    differing = sum(a != b for a, b in zip(right, written, strict=True))
    return Outcome(differing, 0, "tokens", f"of {_ANSWER_TOKENS}")
