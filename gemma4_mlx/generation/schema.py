"""Answers that follow a JSON schema: which tokens may come next, told by llguidance.

llguidance (https://github.com/guidance-ai/llguidance) reads the schema and follows the text token by token; what is
here is its connection to our tokenizer and token loop.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .detokenizer import Detokenizer
from .distinct_items import DistinctItems
from .json_schema import enforceable, place_of
from .schema_tokenizer import schema_tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from ..processing.tokenizer import Tokenizer


# How many continuations are tried to see whether an item can still differ from all items before it.
_MOST_TRIES = 500

# One line, as Python's json writes it. Free white space would let a model that is lost write line breaks for ever.
_LAYOUT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class SchemaConstraint:
    """Follows one answer and knows which tokens may come next.

    Args:
        schema: a JSON schema, as a dict or as JSON text; see `json_schema.enforceable`.
        tokenizer: the checkpoint's.
        vocab_size: of the model's logits.
        end_ids: tokens that may end the answer once it is complete.

    Raises:
        ValueError: the schema is not JSON, or asks for what cannot be enforced; reason and place are named.
    """

    def __init__(
        self, schema: Mapping[str, Any] | str, tokenizer: Tokenizer, vocab_size: int, end_ids: Collection[int]
    ) -> None:
        # On first use: only answers with a schema need it.
        import llguidance

        rules = enforceable(schema)
        grammar = _grammar(rules.schema)
        self._distinct = DistinctItems(rules.distinct) if rules.distinct != frozenset() else None
        self._detokenizer = Detokenizer(tokenizer)
        self._text_of = partial(_text_of, tokenizer)
        self._tokenizer = schema_tokenizer(tokenizer, vocab_size, end_ids)
        # No log: an error is asked for below, and raised.
        self._matcher = llguidance.LLMatcher(self._tokenizer.library, grammar, log_level=0)
        if self._matcher.is_error() and (fault := _fault(rules.schema)):
            raise ValueError(f"the schema cannot be followed at {place_of(rules, _fault)}: {fault}")
        self._words = np.zeros((self._tokenizer.size + 31) // 32, dtype=np.uint32)
        self._check()

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: bool `[vocab_size]`."""
        allowed = self._allowed_by(self._matcher)
        self._check()
        return allowed

    def _allowed_by(self, matcher: LLMatcher) -> np.ndarray:
        matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
        return self._tokenizer.allowed(self._words)

    def accept(self, token: int) -> bool:
        """Go on by one token; False if it must not come although it was allowed, and then nothing has happened."""
        text = self._detokenizer.feed(token) if self._distinct is not None else ""
        if self._distinct is not None and not self._distinct.feed(text):
            # Bytes of a letter that waited for their end have come all the same.
            self._distinct.feed(text.removesuffix(self._detokenizer.feed(token)))
            return False
        self._matcher.consume_token(self._tokenizer.number_of(token))
        self._check()
        if self._distinct is None or not text or self._can_differ(self._matcher, self._distinct.repetitions()):
            return True
        self._distinct.undo()
        self._matcher.rollback(1)
        return False

    def _can_differ(self, matcher: LLMatcher, repetitions: list[str]) -> bool:
        """Whether anything may come after `matcher` that is none of these repetitions.

        Followed are texts that are a repetition so far, each once however it is cut into tokens.
        """
        if not repetitions:
            return True
        waiting = [(matcher, repetitions)]
        met: set[tuple[str, ...]] = set()
        while waiting and len(met) < _MOST_TRIES:
            matcher, repetitions = waiting.pop()
            for token in np.flatnonzero(self._allowed_by(matcher)).tolist():
                text = self._text_of(token)
                if not text or any(text.startswith(repetition) for repetition in repetitions):
                    continue
                rests = [repetition[len(text) :] for repetition in repetitions if repetition.startswith(text)]
                if not rests:
                    return True
                if (key := tuple(rests)) not in met:
                    met.add(key)
                    further = matcher.deep_copy()
                    further.consume_token(self._tokenizer.number_of(token))
                    waiting.append((further, rests))
        return bool(waiting)

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().splitlines()[0]
            raise ValueError(f"the schema cannot be followed: {reason}")


def _text_of(tokenizer: Tokenizer, token: int) -> str:
    """A token's text; "" for one that is only a part of a letter."""
    text = tokenizer.decode([token], skip_special_tokens=True)
    return "" if "\ufffd" in text else text


def _grammar(schema: dict[str, Any]) -> str:
    import llguidance

    return llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_LAYOUT)


def _fault(schema: dict[str, Any]) -> str:
    """What keeps llguidance from enforcing a schema, "" if nothing does."""
    import llguidance

    message = llguidance.LLMatcher.validate_grammar(_grammar(schema))
    if not message or message.startswith("WARNING"):
        return ""
    first, *more = message.splitlines()
    # Of a pattern, the pattern itself and a mark beneath it come before the reason.
    return next((line.removeprefix("error: ") for line in more if line.startswith("error: ")), first)
