"""A thought before an answer that must follow a schema: the schema's grammar begins where the thought ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .answer_reader import opened_channel
from .channels import CALL_CLOSE, CALL_OPEN, CHANNEL_CLOSE, CHANNEL_OPEN, THOUGHT_HEADER
from .choices import Constraint

if TYPE_CHECKING:
    from ..processing.tokenizer import Tokenizer

_HEADER = f"{THOUGHT_HEADER}\n"


class ThoughtFirst:
    """A constraint that lets the model think, then hands over to the schema's.

    What must follow may be a call of a tool instead (`ForcedCall`). A thought is opened by the prompt, or by the
    model's first token where it may think; its header is what the chat format writes. Within it any token may come but
    those that would end it otherwise than by `<channel|>`: the end of a turn in a thought would leave no answer. A
    tokenizer without the markers as tokens has no thoughts.

    Args:
        schema: the answer's constraint.
        prompt: the ids before the answer.
        may_think: the model may open a thought of its own.
        end_ids: tokens that end a turn.
        vocab_size: of the model's logits.
    """

    def __init__(
        self,
        schema: Constraint,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        may_think: bool,
        end_ids: Collection[int],
        vocab_size: int,
    ) -> None:
        self._schema = schema
        self._tokenizer = tokenizer
        self._opening, self._closing = tokenizer.token_id(CHANNEL_OPEN), tokenizer.token_id(CHANNEL_CLOSE)
        self._may_open = may_think and self._opening is not None and self._closing is not None
        self._in_thought = False
        self._header: list[int] = []  # what must come before the thought
        forbidden = {*end_ids, self._opening, *map(tokenizer.token_id, (CALL_OPEN, CALL_CLOSE))}
        self._thought = np.ones(vocab_size, dtype=bool)
        self._thought[[id_ for id_ in forbidden if id_ is not None and id_ < vocab_size]] = False
        if (opened := opened_channel(tokenizer, prompt)) is not None:
            self._open(opened)

    @property
    def answer_begun(self) -> bool:
        """Whether the schema says what comes next."""
        return not self._in_thought and not self._may_open

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: bool `[vocab_size]`."""
        if self._header:
            only = np.zeros_like(self._thought)
            only[self._header[0]] = True
            return only
        if self._in_thought:
            return self._thought
        allowed = self._schema.allowed()
        if self._may_open:
            allowed[self._opening] = True
        return allowed

    def accept(self, token: int) -> bool:
        """Go on by one token; False if it must not come although it was allowed, and then nothing has happened."""
        if self._header:
            del self._header[0]
        elif self._in_thought:
            self._in_thought = token != self._closing
        elif self._may_open and token == self._opening:
            self._open("")
        else:
            self._may_open = False
            return self._schema.accept(token)
        return True

    def _open(self, opened: str) -> None:
        """A channel has been opened, and `opened` is what it begins with so far."""
        self._may_open = False
        if _HEADER.startswith(opened):
            self._in_thought = True
            rest = _HEADER.removeprefix(opened)
            self._header = self._tokenizer.encode(rest) if rest else []
        else:
            self._in_thought = opened.startswith(THOUGHT_HEADER) and opened[len(THOUGHT_HEADER)].isspace()
