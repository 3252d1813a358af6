"""One layer of each kind in the shapes of every size, in every packing: prompts and single tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import mlx.core as mx

from ..model import Gemma4
from .check import Item, Outcome, difference, type_name
from .models import PACKINGS, SIZES, copied, float32_twin, random_model

# Times eight experts, enough pairs for them to be sorted; one token alone is not.
_PROMPT = 9
_FLOAT32, _ROUNDED = 2e-3, 0.15


def items(working: mx.Dtype) -> Iterator[Item]:
    """All checks of layers; unpacked weights are in `working`, which is what packed ones are computed in too.

    A size's model is made when its first check is asked for, and is gone when the next size's is.
    """
    for size in SIZES:
        model = random_model(size)
        cut = "MLP and experts cut" if size == "26b" else "MLP cut"
        yield Item("layers", f"{size}, {type_name(working)} ({cut})", partial(_against_float32, model, working, None))
        # The kinds of matrices are those of the small sizes and, for experts, of the 26b.
        packings = PACKINGS if size in ("e2b", "26b") else {"4 bits": PACKINGS["4 bits"]}
        for name, packing in packings.items():
            yield Item("layers", f"{size}, {name}", partial(_against_float32, model, working, packing))


def _against_float32(model: Gemma4, working: mx.Dtype, packing: dict[str, Any] | None) -> Outcome:
    stored = copied(model, working, packing)
    twin = float32_twin(stored)
    with mx.stream(mx.cpu):
        right = _prompt_and_token(twin)
    return Outcome(difference(right, _prompt_and_token(stored)), _FLOAT32 if working == mx.float32 else _ROUNDED)


def _prompt_and_token(model: Gemma4) -> mx.array:
    """Logits of a prompt's every position and of a token after it."""
    ids = mx.arange(_PROMPT + 1)[None] * 37 % model.config.text.vocab_size
    cache = model.make_cache()
    prompt = model(ids[:, :-1], cache=cache)
    token = model(ids[:, -1:], cache=cache)
    logits = mx.concatenate([prompt, token], axis=1)
    mx.eval(logits)
    return logits
