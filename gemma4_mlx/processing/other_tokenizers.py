"""A tokenizer.json that is not of Gemma's kind, read by the library `tokenizers`.

The library does whatever such a file says: regular expressions that take for ever, replacements that double a text
again and again until the process is killed. So the file's parts are looked at first, and only those that can do no harm
are taken. What the library then still stumbles over is an error of ours, also where its Rust code panics.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .sources import reason

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Library

_MOST_TOKENS = 1 << 22
_MOST_PARTS = 16  # of a sequence
_MOST_GROWTH = 4  # times, of all replacements together

_HARMLESS = {
    "normalizer": {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Replace", "Prepend"},
    "pre_tokenizer": {"ByteLevel", "Digits", "Metaspace", "Punctuation", "Split", "Whitespace", "WhitespaceSplit"},
    "post_processor": {"ByteLevel", "TemplateProcessing"},
    "decoder": {"BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"},
}
_SEQUENCES = {"normalizers", "pretokenizers", "processors", "decoders"}


class OtherTokenizer:
    """The library's tokenizer, as `bpe.BPE` is used.

    Args:
        special: control tokens; those that the vocabulary has become so.

    Raises:
        CheckpointError: the file is damaged, or asks for what no Gemma tokenizer does.
    """

    def __init__(self, path: Path, special: Iterable[str]) -> None:
        # On first need: Gemma's own files need no library.
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Library

        _check(path)
        with _no_panic(path):
            tokenizer = Library.from_file(str(path))
            # A checkpoint's file may ask for padding or cutting, which a prompt must never get.
            tokenizer.no_padding()
            tokenizer.no_truncation()
            known = [token for token in special if tokenizer.token_to_id(token) is not None]
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in known])
        self._path = path
        self._library: Library = tokenizer

    @cached_property
    def _literal(self) -> Library:
        """The same with its switch set: one for both would be switched under another thread's hands."""
        from tokenizers import Tokenizer as Library

        literal: Library = Library.from_str(self._library.to_str())
        literal.encode_special_tokens = True
        return literal

    def encode(self, text: str, literal: bool = False) -> Encoding:
        """Token ids of a text; tokens of a template around it are never added.

        Args:
            literal: control tokens spelled in it are mere text.
        """
        with _no_panic(self._path):
            return (self._literal if literal else self._library).encode(text, add_special_tokens=False)

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        with _no_panic(self._path, OverflowError):
            return self._library.decode(ids, skip_special_tokens=skip_special_tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


@contextmanager
def _no_panic(path: Path, *callers_own: type[Exception]) -> Iterator[None]:
    try:
        yield
    except callers_own:
        raise
    except BaseException as error:
        # The Rust side raises nothing narrower, and pyo3's PanicException, which is no Exception, cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = " ".join(str(error).split()) if not isinstance(error, Exception) else reason(error)
        raise CheckpointError(f"{path} is damaged ({said[:300]}): download it again") from error


def _check(path: Path) -> None:
    """Raise `CheckpointError` for a file that the library should not be given."""
    try:
        problem = _problem(json.loads(path.read_bytes()))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({reason(error)})") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({reason(error)[:300]}): download it again") from error
    if problem is not None:
        raise CheckpointError(f"{path} {problem}: use the tokenizer of a Gemma 4 checkpoint")


def _problem(tokenizer: Mapping[str, Any]) -> str | None:
    growth = 1.0
    for place, harmless in _HARMLESS.items():
        parts = list(_parts(tokenizer.get(place)))
        if len(parts) > _MOST_PARTS:
            return f"has {len(parts)} parts in its {place}"
        for part in parts:
            kind = part["type"]
            if kind not in harmless:
                return f"has a {place} of the kind {str(kind)[:40]!r}, which is not supported"
            if kind in ("Replace", "Split"):
                pattern = part["pattern"].get("String")
                if not isinstance(pattern, str) or not pattern:
                    return f"has a regular expression in its {place}, which is not supported"
                growth *= max(1.0, len(part.get("content", "")) / len(pattern))
            elif kind == "Prepend":
                growth *= max(1, len(part["prepend"]))
        if growth > _MOST_GROWTH:
            return f"makes texts {growth:.0f} times as long in its {place}"
    if tokenizer["model"].get("continuing_subword_prefix") and tokenizer["model"].get("merges"):
        return "has a mark for what goes on inside of a word, which is not supported"  # a short token makes it panic
    vocabulary = tokenizer["model"]["vocab"]
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
    ids += [token["id"] for token in tokenizer.get("added_tokens") or []]
    if not all(type(id_) is int and 0 <= id_ < _MOST_TOKENS for id_ in ids):
        return f"has tokens with ids that are not from 0 to {_MOST_TOKENS - 1}"
    return None


def _parts(part: Any) -> Iterator[Mapping[str, Any]]:
    """The parts of a normalizer or the like, those of sequences one by one."""
    if part is None:
        return
    if part["type"] != "Sequence":
        yield part
        return
    for name in _SEQUENCES & part.keys():
        for inner in part[name]:
            yield from _parts(inner)
