"""How likely a model takes given answers to be: `score`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ..device_errors import device_errors
from ..model import Gemma4
from .answers import end_of_turn_ids
from .loop import read_prompt

if TYPE_CHECKING:
    from ..processing import Processor


@device_errors()
def score(model: Gemma4, processor: Processor, messages: Any, choices: Sequence[str]) -> list[float]:
    """The log probability of each choice as the whole answer to `messages`.

    It counts all tokens of a choice and the end of the model's turn behind them, so that "yes" and "yes, but" can be
    compared. The probabilities are the model's own, at temperature 1. The prompt is read once for all choices.

    Args:
        model, processor: from `load`.
        messages: as for `generate`.
        choices: answers, as text. Control tokens that they spell are text.

    Returns:
        One number for each choice, at most 0.

    Raises:
        ValueError: no choices, or one that is empty or no text.
        InputError: as `generate`; `ContextLengthError` also if a choice does not fit behind the prompt.
        OutOfMemoryError, DeviceError: as `generate`.
    """
    if not choices or isinstance(choices, str):
        raise ValueError("choices must be a list of answers: give at least one")
    for choice in choices:
        if not isinstance(choice, str) or not choice:
            raise ValueError(f"a choice must be text that is not empty, not {choice!r}")
    inputs = processor(messages)
    ends = sorted(end_of_turn_ids(processor))
    cache = model.make_cache()
    first = read_prompt(model, inputs, cache, lambda: False)
    assert first is not None
    scores = []
    for choice in choices:
        ids = processor.tokenizer.encode(processor.tokenizer.literal(choice))
        processor.check_length(inputs.input_ids.shape[1] + len(ids))
        with model.turns:
            rest = model(mx.array([ids]), cache=cache.copy())
            logits = mx.concatenate([first, rest], axis=1)[0].astype(mx.float32)
            likely = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        end = np.logaddexp.reduce(likely[-1, ends])
        scores.append(float(likely[np.arange(len(ids)), ids].sum() + end))
    return scores
