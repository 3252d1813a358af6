"""What a model says about a clip it has read, token by token: begun from a draft, and stopped when it goes astray.

Ids only; what the words mean, and which of them are certain, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
import numpy as np

from ..generation import generate_tokens
from ..generation.batch import Batch
from ..generation.decode import Greedy
from ..generation.loop_guard import LoopGuard
from ..model import Gemma4
from ..model.cache import Caches

# Nobody says the same thing six times over in 24 tokens, or a word 24 times; what a person may repeat stays below.
_LOOP_PERIOD = 32
_LOOP_REPEATS = 6
_LOOP_TOKENS = 24


@dataclass(frozen=True)
class Decoded:
    """An answer.

    Attributes:
        tokens: its ids, without the one that ended it; of a loop, one round.
        ended: "stop" by itself; "length" by the limit; "loop" going round in circles; "stopped" by the caller.
    """

    tokens: list[int]
    ended: Literal["stop", "length", "loop", "stopped"]


@dataclass(frozen=True)
class Draft:
    """What an answer probably begins with, such as the answer to a little less of the same clip.

    Attributes:
        tokens: its ids.
        certain: the first of them that are not checked.
    """

    tokens: Sequence[int]
    certain: int = 0


NO_DRAFT = Draft(())


@dataclass(frozen=True)
class Decoder:
    """Answers clips that have been read into a cache each; the caches are left as they are.

    Attributes:
        model: the model.
        after: ids between any clip and its answer.
        stop_ids: ids that end an answer.
    """

    model: Gemma4
    after: Sequence[int]
    stop_ids: frozenset[int]

    def decode(
        self,
        cache: Caches,
        max_tokens: int,
        draft: Draft = NO_DRAFT,
        temperature: float = 0.0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Decoded:
        """Answer a clip.

        The draft is checked in one pass: up to the first token that is not the likeliest one it is taken as it is, and
        only what follows is decoded token by token. At temperature 0 the outcome is what it would be without a draft.

        Args:
            cache: has read the prompt and the clip.
            max_tokens: most tokens of the answer.
            draft: what the answer probably begins with.
            temperature: 0 takes the likeliest token.
            should_stop: asked before every token; once it says yes, the answer so far is handed back.
        """
        answer = _Answer(self.stop_ids, max_tokens)
        with self.model.turns:
            branch, unread = cache.copy(), list(self.after)
        tokens, known = list(draft.tokens[:max_tokens]), list[int]()
        if tokens:
            known = self._check(branch, tokens, draft.certain)
            if len(known) > len(tokens):
                unread = known[-1:]
            else:  # a sliding ring cannot forget the wrong tokens
                with self.model.turns:
                    branch, unread = cache.copy(), [*self.after, *known]
        for right in known:
            if (decoded := answer.add(right)) is not None:
                return decoded
        more = generate_tokens(
            self.model,
            unread,
            max_tokens - len(known),
            temperature=temperature,
            seed=0,
            stop_ids=self.stop_ids,
            cache=branch,
        )
        with closing(more):
            while not should_stop():
                if (token := next(more, None)) is None:  # the context is full
                    return Decoded(answer.tokens, "length")
                if (decoded := answer.add(token)) is not None:
                    return decoded
        return Decoded(answer.tokens, "stopped")

    def decode_together(
        self,
        caches: Sequence[Caches],
        max_tokens: Sequence[int],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Decoded]:
        """Answer several clips in one go: what `decode` answers to each, without a draft and at temperature 0."""
        return decode_together(self.model, caches, self.after, self.stop_ids, max_tokens, should_stop)

    def _check(self, branch: Caches, tokens: Sequence[int], certain: int) -> list[int]:
        """Read a draft → as much of it as is right, and the token that follows."""
        with self.model.turns:
            logits = self.model(mx.array([[*self.after, *tokens]]), cache=branch)[0, len(self.after) - 1 :]
            likeliest = np.array(mx.argmax(logits, axis=-1))
        wrong = (i for i in range(min(certain, len(tokens)), len(tokens)) if likeliest[i] != tokens[i])
        right = next(wrong, len(tokens))
        return [*tokens[:right], int(likeliest[right])]


def decode_together(
    model: Gemma4,
    caches: Sequence[Caches],
    after: Sequence[int],
    stop_ids: frozenset[int],
    max_tokens: Sequence[int],
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Decoded]:
    """The loop of `Decoder.decode_together`.

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
    written: dict[int, Decoded] = {}  # by clip
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
    return [written.get(clip, Decoded(answer.tokens, "stopped")) for clip, answer in enumerate(answers)]


def _begun(model: Gemma4, caches: Sequence[Caches], after: Sequence[int]) -> Batch:
    """Read `after` behind every clip → the batch in which the answers are to be written."""
    batch = Batch(model)
    with model.turns:
        branches = [cache.copy() for cache in caches]
        logits = [model(mx.array([after]), cache=branch, last_only=True) for branch in branches]
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

    def add(self, token: int) -> Decoded | None:
        """Take the next token; the whole answer, if it ends with it."""
        if token in self._stop_ids:
            return Decoded(self.tokens, "stop")
        self.tokens.append(token)
        if self._guard.feed(token):
            return Decoded(one_round(self.tokens), "loop")
        return Decoded(self.tokens, "length") if len(self.tokens) == self._max_tokens else None


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
