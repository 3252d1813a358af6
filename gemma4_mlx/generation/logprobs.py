"""How likely the model took the tokens of an answer to be, and which ones it took to be likeliest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import mlx.core as mx
import numpy as np

from .decode import Choose
from .sampling import most_likely


@dataclass(frozen=True)
class LikelyToken:
    """A token that might have come.

    Attributes:
        token: its id.
        text: what it stands for by itself; a part of a letter is shown as U+FFFD, a control token by its name.
        logprob: natural logarithm of its probability.
    """

    token: int
    text: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprob(LikelyToken):
    """A token that came.

    Attributes:
        best: the likeliest tokens at its place, the likeliest first; the one that came need not be among them.
    """

    best: tuple[LikelyToken, ...] = ()


def check_logprobs(count: object, vocab_size: int) -> None:
    """Raise ValueError unless it is None or a number of tokens to tell."""
    if count is None:
        return
    if not isinstance(count, Integral) or isinstance(count, bool) or not 0 <= int(count) <= vocab_size:
        raise ValueError(f"logprobs must be a whole number from 0 to {vocab_size:,}, or None, not {count!r}")


class Logprobs:
    """Notes the log probabilities of tokens as they are chosen, and tells them as they are handed out.

    They are log_softmax of the model's logits: before temperature, top_p, top_k and what a constraint forbids.

    Args:
        count: how many of the likeliest tokens to note at each step.
        text_of: a token's text.
    """

    def __init__(self, count: int, text_of: Callable[[int], str]) -> None:
        self._count = count
        self._text_of = text_of
        self._noted: deque[tuple[mx.array, mx.array, mx.array]] = deque()

    def noting(self, choose: Choose) -> Choose:
        """`choose`, and what it is given and takes is noted."""
        return _Noting(choose, self._note)

    def _note(self, logits: mx.array, token: mx.array) -> mx.array:
        """Note a choice, logits `[1, vocab]` and token `[1]`. Returns the token, with which the notes are computed."""
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        best = mx.zeros((1, 0), mx.uint32)
        if self._count:
            best = most_likely(logprobs, self._count)
            order = mx.argsort(-mx.take_along_axis(logprobs, best, axis=-1), axis=-1)
            best = mx.take_along_axis(best, order, axis=-1)
        noted = (
            mx.take_along_axis(logprobs, token[:, None], axis=-1)[0],
            best[0],
            mx.take_along_axis(logprobs, best, axis=-1)[0],
        )
        self._noted.append(noted)
        [token] = mx.depends([token], list(noted))
        return token

    def of_next(self, token: int) -> TokenLogprob:
        """What was noted of the next token handed out."""
        [logprob], ids, values = (np.array(noted).tolist() for noted in self._noted.popleft())
        best = tuple(LikelyToken(i, self._text_of(i), value) for i, value in zip(ids, values, strict=True))
        return TokenLogprob(token, self._text_of(token), logprob, best)


class _Noting:
    """A `Choose` that tells of each choice."""

    def __init__(self, choose: Choose, note: Callable[[mx.array, mx.array], mx.array]) -> None:
        self.waits = choose.waits
        self._choose = choose
        self._note = note

    def __call__(self, logits: mx.array) -> mx.array:
        return self._note(logits, self._choose(logits))
