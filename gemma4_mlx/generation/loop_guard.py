"""Notices that a model has run into a loop: the same few tokens, over and over, to the end of its budget.

Quantized and mixture-of-experts checkpoints do so now and then, most of all on long audio. It sees token ids only.
"""

from __future__ import annotations

import numpy as np


class LoopGuard:
    """Fires when the last tokens are one block of at most `max_period` tokens, repeated without the slightest change.

    Both thresholds must be met: `min_repeats` copies of the block *and* `min_tokens` tokens in all. With the defaults a
    single token must come 256 times in a row, "ha " and "| --- " fill a few screen lines, a sentence of 20 tokens must
    be said 24 times. That is meant to be late: a table of zeros or a line asked for ten times is no loop, rows and
    numbered lists differ in at least one token, and a loop missed still ends at `max_tokens`. Speech, where nothing
    legitimate repeats, can pass smaller numbers.
    """

    def __init__(self, max_period: int = 64, min_repeats: int = 24, min_tokens: int = 256) -> None:
        self._periods = np.arange(1, max_period + 1)
        # A run of r tokens that equal the one a period earlier is r + period tokens of repetition.
        self._needed = np.maximum(self._periods * min_repeats, min_tokens) - self._periods
        self._runs = np.zeros(max_period, dtype=np.int64)
        self._recent = np.full(max_period, -1, dtype=np.int64)  # ring of the last tokens
        self._seen = 0

    def feed(self, token: int) -> bool:
        """Take the next token; True once the tokens so far end in a loop."""
        earlier = self._recent[(self._seen - self._periods) % len(self._recent)]
        self._runs = (self._runs + 1) * (earlier == token)
        self._recent[self._seen % len(self._recent)] = token
        self._seen += 1
        return bool((self._runs >= self._needed).any())
