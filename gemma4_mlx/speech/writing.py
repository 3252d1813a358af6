"""What a model writes about a clip it has heard, token by token: begun from a guess, and stopped when it goes astray.

Ids only; what the words mean, and which of them are certain, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
import numpy as np

from gemma4_mlx.generation import generate_tokens
from gemma4_mlx.generation.loop_guard import LoopGuard
from gemma4_mlx.model import Gemma4
from gemma4_mlx.model.cache import KVCache
from gemma4_mlx.speech.hearing import copies

# Nobody says the same thing six times over in 24 tokens, or a word 24 times; what a person may repeat stays below.
_LOOP_PERIOD = 32
_LOOP_REPEATS = 6
_LOOP_TOKENS = 24


@dataclass(frozen=True)
class Written:
    """An answer.

    Attributes:
        tokens: its ids, without the one that ended it; of a loop, one round.
        ended: "stop" by itself; "length" by the limit; "loop" going round in circles; "yielded" to something better.
    """

    tokens: list[int]
    ended: Literal["stop", "length", "loop", "yielded"]


def write(
    model: Gemma4,
    cache: Sequence[KVCache],
    after: Sequence[int],
    stop_ids: frozenset[int],
    max_tokens: int,
    guess: Sequence[int] = (),
    sure: int = 0,
    temperature: float = 0.0,
    should_yield: Callable[[], bool] = lambda: False,
) -> Written:
    """Answer a clip.

    The guess is checked in one pass: up to the first token that is not the likeliest one it is taken as it is, and only
    what follows is written token by token. At temperature 0 the outcome is what it would be without a guess.

    Args:
        cache: has read the prompt and the clip; it is left as it is.
        after: ids between the clip and the answer.
        stop_ids: ids that end the answer.
        max_tokens: most tokens of the answer.
        guess: what the answer probably is, such as the one to a little less sound.
        sure: so many tokens of the guess are not checked.
        temperature: 0 takes the likeliest token.
        should_yield: asked before every token; once it says yes, the answer so far is handed back.
    """
    tokens = list(guess[:max_tokens])
    branch = copies(cache)
    unread = list(after)
    if tokens:
        logits = model(mx.array([[*after, *tokens]]), cache=branch)[0, len(after) - 1 :]
        likeliest = np.array(mx.argmax(logits, axis=-1))
        wrong = (i for i in range(min(sure, len(tokens)), len(tokens)) if likeliest[i] != tokens[i])
        agreed = next(wrong, len(tokens))
        following = int(likeliest[agreed])
        if agreed < len(tokens):
            branch = copies(cache)  # a sliding ring cannot forget the wrong tokens
            unread = [*after, *tokens[:agreed]]
        else:
            unread = []
        tokens = tokens[:agreed]
        if following in stop_ids:
            return Written(tokens, "stop")
        if len(tokens) == max_tokens:
            return Written(tokens, "length")
        tokens.append(following)
        unread.append(following)

    guard = LoopGuard(_LOOP_PERIOD, _LOOP_REPEATS, _LOOP_TOKENS)
    for known in tokens:
        if guard.feed(known):
            return Written(one_round(tokens), "loop")
    if len(tokens) == max_tokens:
        return Written(tokens, "length")
    more = generate_tokens(
        model, unread, max_tokens - len(tokens), temperature=temperature, seed=0, stop_ids=stop_ids, cache=branch
    )
    with closing(more):
        while not should_yield():
            if (token := next(more, None)) is None:
                return Written(tokens, "length")
            if token in stop_ids:
                return Written(tokens, "stop")
            tokens.append(token)
            if guard.feed(token):
                return Written(one_round(tokens), "loop")
    return Written(tokens, "yielded")


def one_round(tokens: Sequence[int]) -> list[int]:
    """Tokens that end in a loop → the same with one round of it."""
    for period in range(1, _LOOP_PERIOD + 1):
        end = len(tokens)
        while end >= 2 * period and tokens[end - period : end] == tokens[end - 2 * period : end - period]:
            end -= period
        if len(tokens) - end + period >= max(_LOOP_TOKENS, _LOOP_REPEATS * period):
            # The round the guard fired in may be unfinished at either end; what is left begins where the loop does.
            return list(tokens[:end])
    return list(tokens)
