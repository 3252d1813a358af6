"""An answer that must call a tool: the notation round the call is given, and its arguments follow the tool's schema.

The arguments are JSON, which is read as well as Gemma's own notation (`tool_calls`), and of which a schema can be
enforced.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .channels import CALL_CLOSE, CALL_OPEN
from .schema import SchemaConstraint

if TYPE_CHECKING:
    from ..processing.tokenizer import Tokenizer

_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


class ForcedCall:
    """A constraint: a call of one of these tools, then, where several may come, further ones, then the end of the turn.

    Args:
        tools: their names, and the schema of each one's parameters.
        several: more than one call may come.
        tokenizer: the checkpoint's.
        vocab_size: of the model's logits.
        end_ids: tokens that may end the turn.

    Raises:
        ValueError: a schema that cannot be enforced; or the tokenizer has no tokens round calls.
    """

    def __init__(
        self,
        tools: Mapping[str, Mapping[str, Any]],
        several: bool,
        tokenizer: Tokenizer,
        vocab_size: int,
        end_ids: Collection[int],
    ) -> None:
        opening, closing = tokenizer.token_id(CALL_OPEN), tokenizer.token_id(CALL_CLOSE)
        if opening is None or closing is None:
            raise ValueError("this checkpoint's tokenizer has no tokens for tool calls: no call can be required of it")
        self._opening, self._closing = opening, closing
        self._several = several
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_ids = [id_ for id_ in end_ids if id_ < vocab_size]
        self._schemas = {name: schema or _NO_PARAMETERS for name, schema in tools.items()}
        self._heads = {name: [opening, *tokenizer.encode(tokenizer.literal(f"call:{name}"))] for name in tools}
        for name, schema in self._schemas.items():
            try:
                self._arguments_of(schema)
            except ValueError as error:
                raise ValueError(f"no call of the tool {name} can be required: {error}") from error
        self._head: list[int] = []
        self._arguments: SchemaConstraint | None = None
        self._is_closed = False  # a call has been, and no other has begun

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: bool `[vocab_size]`."""
        if self._arguments is not None:
            return self._arguments.allowed()
        if self._is_closed:
            return self._only([*self._end_ids, *([self._opening] if self._several else [])])
        allowed = self._only(self._further())
        # A name may be the beginning of another one.
        return allowed if (schema := self._named()) is None else allowed | self._arguments_of(schema).allowed()

    def accept(self, token: int) -> bool:
        """Go on by one token; False if it must not come although it was allowed, and then nothing has happened."""
        if self._arguments is not None:
            if token == self._closing:
                self._arguments, self._head, self._is_closed = None, [], True
                return True
            return self._arguments.accept(token)
        if self._is_closed and token != self._opening:
            return True  # the end of the turn
        self._is_closed = False
        if token in self._further():
            self._head.append(token)
            return True
        schema = self._named()
        assert schema is not None  # else nothing else was allowed
        self._arguments = self._arguments_of(schema)
        return self._arguments.accept(token)

    def _further(self) -> list[int]:
        """Tokens that continue what may still become a call's head."""
        at = len(self._head)
        heads: Sequence[list[int]] = list(self._heads.values())
        return [head[at] for head in heads if len(head) > at and head[:at] == self._head]

    def _named(self) -> Mapping[str, Any] | None:
        """The schema of the tool that has been named."""
        return next((self._schemas[name] for name, head in self._heads.items() if head == self._head), None)

    def _arguments_of(self, schema: Mapping[str, Any]) -> SchemaConstraint:
        return SchemaConstraint({"type": "object", **schema}, self._tokenizer, self._vocab_size, {self._closing})

    def _only(self, ids: Collection[int]) -> np.ndarray:
        allowed = np.zeros(self._vocab_size, dtype=bool)
        allowed[[*ids]] = True
        return allowed
