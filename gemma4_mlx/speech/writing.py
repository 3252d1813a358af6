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
from gemma4_mlx.generation.batch import Batch
from gemma4_mlx.generation.decode import Greedy
from gemma4_mlx.generation.loop_guard import LoopGuard
from gemma4_mlx.model import Gemma4
from gemma4_mlx.model.cache import Caches

# Nobody says the same thing six times over in 24 tokens, or a word 24 times; what a person may repeat stays below.
_LOOP_PERIOD = 32
_LOOP_REPEATS = 6
_LOOP_TOKENS = 24


@dataclass(frozen=True)
class Written:
    """An answer.

    Attributes:
        tokens: its ids, without the one that ended it; of a loop, one round.
        ended: "stop" by itself; "length" by the limit; "loop" going round in circles; "stopped" by the caller.
    """

    tokens: list[int]
    ended: Literal["stop", "length", "loop", "stopped"]


def write(
    model: Gemma4,
    cache: Caches,
    after: Sequence[int],
    stop_ids: frozenset[int],
    max_tokens: int,
    guess: Sequence[int] = (),
    sure: int = 0,
    temperature: float = 0.0,
    should_stop: Callable[[], bool] = lambda: False,
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
        should_stop: asked before every token; once it says yes, the answer so far is handed back.
    """
    tokens = list(guess[:max_tokens])
    branch = cache.copy()
    unread = list(after)
    if tokens:
        logits = model(mx.array([[*after, *tokens]]), cache=branch)[0, len(after) - 1 :]
        likeliest = np.array(mx.argmax(logits, axis=-1))
        wrong = (i for i in range(min(sure, len(tokens)), len(tokens)) if likeliest[i] != tokens[i])
        agreed = next(wrong, len(tokens))
        following = int(likeliest[agreed])
        if agreed < len(tokens):
            branch = cache.copy()  # a sliding ring cannot forget the wrong tokens
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

    answer = _Answer(stop_ids, max_tokens)
    for known in tokens:
        if (written := answer.add(known)) is not None:
            return written
    more = generate_tokens(
        model, unread, max_tokens - len(tokens), temperature=temperature, seed=0, stop_ids=stop_ids, cache=branch
    )
    with closing(more):
        while not should_stop():
            if (token := next(more, None)) is None:  # the context is full
                return Written(answer.tokens, "length")
            if (written := answer.add(token)) is not None:
                return written
    return Written(answer.tokens, "stopped")


def write_together(
    model: Gemma4,
    caches: Sequence[Caches],
    after: Sequence[int],
    stop_ids: frozenset[int],
    max_tokens: Sequence[int],
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Written]:
    """Answer several clips in one decode: what `write` answers to each, without a guess and at temperature 0.

    A step for several costs less than one for each: the weights are read once, and the operations launched once. A clip
    that is answered stays in the batch until half of them are.

    Args:
        caches: of each clip, has read the prompt and the clip; they are left as they are.
        after: ids between any clip and its answer.
        stop_ids: ids that end an answer.
        max_tokens: most tokens of each answer; with the prompt, the context must hold them.
        should_stop: asked before every step; once it says yes, the answers so far are handed back.
    """
    answers = [_Answer(stop_ids, limit) for limit in max_tokens]
    written: dict[int, Written] = {}  # by clip
    batch, rows = _begun(model, caches, after), list(range(len(answers)))  # the clip in each row of the batch
    while not should_stop():
        for clip, token in zip(rows, batch.step(), strict=True):
            if clip not in written and (answer := answers[clip].add(token)) is not None:
                written[clip] = answer
        if len(written) == len(answers):
            break
        # A smaller batch costs a copy of the caches, and a graph the first time: not worth it for every single row.
        ended = [row for row, clip in enumerate(rows) if clip in written]
        if len(ended) >= len(rows) / 2:
            batch.leave(ended)
            rows = [clip for clip in rows if clip not in written]
    return [written.get(clip, Written(answer.tokens, "stopped")) for clip, answer in enumerate(answers)]


def _begun(model: Gemma4, caches: Sequence[Caches], after: Sequence[int]) -> Batch:
    """Read `after` behind every clip → the batch in which the answers are to be written."""
    branches = [cache.copy() for cache in caches]
    logits = [model(mx.array([after]), cache=branch, last_only=True) for branch in branches]
    batch = Batch(model)
    batch.join(branches, [Greedy()] * len(branches), mx.concatenate(logits))
    return batch


class _Answer:
    """An answer as it grows.

    Attributes:
        tokens: so far.
    """

    def __init__(self, stop_ids: frozenset[int], max_tokens: int) -> None:
        self.tokens: list[int] = []
        self._stop_ids = stop_ids
        self._max_tokens = max_tokens
        self._guard = LoopGuard(_LOOP_PERIOD, _LOOP_REPEATS, _LOOP_TOKENS)

    def add(self, token: int) -> Written | None:
        """Take the next token; the whole answer, if it ends with it."""
        if token in self._stop_ids:
            return Written(self.tokens, "stop")
        self.tokens.append(token)
        if self._guard.feed(token):
            return Written(one_round(self.tokens), "loop")
        return Written(self.tokens, "length") if len(self.tokens) == self._max_tokens else None


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
