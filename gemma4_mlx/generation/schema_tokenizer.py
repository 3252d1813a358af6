"""llguidance's own view of a checkpoint's tokenizer, made once in a process: a trie of what every token writes.

For tokens in the order of their spelling llguidance builds that trie in a third of the time it takes for the order of
their ids, and given their bytes it has no tokenizer.json to read. So tokens have other numbers there than here.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import llguidance

    from ..processing.bpe import BPE
    from ..processing.tokenizer import Tokenizer

_made: weakref.WeakKeyDictionary[Tokenizer, dict[Any, SchemaTokenizer]] = weakref.WeakKeyDictionary()
_making = threading.Lock()


class SchemaTokenizer:
    """A tokenizer as llguidance knows it.

    Attributes:
        library: llguidance's tokenizer.
        size: how many tokens it has: bits of a mask.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_ids: Collection[int]) -> None:
        # On first use: only answers with a schema need it.
        import llguidance

        self.size = vocab_size
        bpe = tokenizer.bpe
        if bpe is None:
            # The file may have a few tokens more than the model: they are followed, and never allowed.
            self.size = max(vocab_size, len(tokenizer))
            self._number_of = np.arange(vocab_size)
            self.library = _from_json(tokenizer, self.size, end_ids)
            return
        ids, spelled = bpe.spellings()
        # Rows that only the model has are no tokens, and tokens that only the file has are never drawn.
        spelled = [bytes_ for id_, bytes_ in zip(ids, spelled, strict=True) if id_ < vocab_size]
        ids = [id_ for id_ in ids if id_ < vocab_size] + list(range(len(ids), vocab_size))
        spelled += [b""] * (vocab_size - len(spelled))
        self._number_of = np.empty(vocab_size, np.int64)
        self._number_of[ids] = np.arange(vocab_size)
        ends = [int(self._number_of[id_]) for id_ in sorted(end_ids) if id_ < vocab_size]
        wrapper = llguidance.TokenizerWrapper(_Spelled(bpe, self._number_of, spelled, ends[0]))
        # No slices, tries of their own for what JSON strings may hold: each costs as much as the masks of some thousand
        # tokens gain by it.
        self.library = llguidance.LLTokenizer(wrapper, n_vocab=vocab_size, eos_token=ends, slices=[])

    def number_of(self, token: int) -> int:
        """llguidance's number of a token."""
        return int(self._number_of[token])

    def allowed(self, mask: np.ndarray) -> np.ndarray:
        """llguidance's mask, one bit a token in words, as bool `[vocab_size]` by id."""
        bits = np.unpackbits(mask.view(np.uint8), count=self.size, bitorder="little").view(bool)
        return bits[self._number_of]


class _Spelled:
    """What llguidance asks of a tokenizer."""

    def __init__(self, bpe: BPE, number_of: np.ndarray, spelled: list[bytes], end: int) -> None:
        self.eos_token_id, self.bos_token_id = end, None
        self.special_token_ids: list[int] = []
        self.tokens = spelled
        self._bpe, self._number_of = bpe, number_of

    def __call__(self, text: str | bytes) -> list[int]:
        """How a text that a schema leaves no choice about is best written."""
        ids = self._bpe.spell(text if isinstance(text, str) else text.decode())
        return self._number_of[ids].tolist()


def schema_tokenizer(tokenizer: Tokenizer, vocab_size: int, end_ids: Collection[int]) -> SchemaTokenizer:
    """The tokenizer as llguidance knows it, made on first need.

    Args:
        vocab_size: of the model's logits.
        end_ids: tokens that may end an answer.
    """
    with _making:
        made = _made.setdefault(tokenizer, {})
        key = (vocab_size, frozenset(end_ids))
        if key not in made:
            made[key] = SchemaTokenizer(tokenizer, vocab_size, end_ids)
        return made[key]


def _from_json(tokenizer: Tokenizer, vocab_size: int, end_ids: Collection[int]) -> llguidance.LLTokenizer:
    """From the text of a tokenizer.json, whose every kind llguidance knows."""
    import llguidance

    with tempfile.TemporaryDirectory() as folder:
        # It reads a tokenizer from a file, whatever it was made from.
        path = Path(folder) / "tokenizer.json"
        path.write_text(tokenizer.to_json(), encoding="utf-8")
        return llguidance.LLTokenizer(str(path), n_vocab=vocab_size, eos_token=sorted(end_ids))
