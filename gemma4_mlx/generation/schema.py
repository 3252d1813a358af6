"""Answers that follow a JSON schema: which tokens may come next, told by llguidance.

llguidance (https://github.com/guidance-ai/llguidance) reads the schema and follows the text token by token; what is
here is its connection to our tokenizer and token loop.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .schema_tokenizer import schema_tokenizer

if TYPE_CHECKING:
    from ..processing.tokenizer import Tokenizer


# One line, as Python's json writes it. Free white space would let a model that is lost write line breaks for ever.
_LAYOUT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class SchemaConstraint:
    """Follows one answer and knows which tokens may come next.

    Args:
        schema: a JSON schema, as a dict or as JSON text.
        tokenizer: the checkpoint's.
        vocab_size: of the model's logits.
        end_ids: tokens that may end the answer once it is complete.

    Raises:
        ValueError: the schema is not JSON, or asks for what cannot be enforced; the reason is named.
    """

    def __init__(
        self, schema: Mapping[str, Any] | str, tokenizer: Tokenizer, vocab_size: int, end_ids: Collection[int]
    ) -> None:
        # On first use: only answers with a schema need it.
        import llguidance

        grammar = llguidance.LLMatcher.grammar_from_json_schema(_as_object(schema), overrides=_LAYOUT)
        self._tokenizer = schema_tokenizer(tokenizer, vocab_size, end_ids)
        # No log: an error is asked for below, and raised.
        self._matcher = llguidance.LLMatcher(self._tokenizer.library, grammar, log_level=0)
        self._words = np.zeros((vocab_size + 31) // 32, dtype=np.uint32)
        self._check()

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: bool `[vocab_size]`."""
        self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
        self._check()
        return self._tokenizer.allowed(self._words)

    def accept(self, token: int) -> None:
        """Go on by one token."""
        self._matcher.consume_token(self._tokenizer.number_of(token))
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().splitlines()[0]
            raise ValueError(f"the schema cannot be followed: {reason}")


def _as_object(schema: Mapping[str, Any] | str) -> str:
    """JSON text of a schema."""
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise ValueError(f"the schema is not JSON: {error}") from None
    if not isinstance(schema, Mapping):
        raise ValueError(f"a JSON schema is an object, not {type(schema).__name__}")
    return json.dumps(schema)
