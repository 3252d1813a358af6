"""A tokenizer.json of another kind: harmless ones are read, all others are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library

import gemma_tokenizer
from gemma4_mlx.errors import CheckpointError
from gemma4_mlx.processing.tokenizer import Tokenizer


def written(folder: Path, **parts: Any) -> Path:
    """A folder with Gemma's kind of tokenizer.json, some of its parts replaced."""
    content = json.loads(gemma_tokenizer.build(["ab", "▁a"], "▁abé", ["<bos>", "<eos>"]).to_str())
    for name, part in parts.items():
        content[name] = {**content[name], **part} if name == "model" else part
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


HARMLESS = {
    "letters put together": {"normalizer": {"type": "NFC"}},
    "small letters": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "NFKC"}]}},
    "bytes as letters": {
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    },
    "a mark before": {"normalizer": {"type": "Prepend", "prepend": "▁"}},
    "metaspace": {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    },
}
DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
REGEX = {"Regex": "(a|a)*$"}
HARMFUL = {
    "a chain of replacements": {"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 40}},
    "a long replacement": {"normalizer": {**DOUBLING, "content": "a" * 10**6}},
    "sequences in sequences": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [DOUBLING] * 5}] * 5}
    },
    "a chain in the decoder": {"decoder": {"type": "Sequence", "decoders": [DOUBLING] * 40}},
    "a long mark before": {"normalizer": {"type": "Prepend", "prepend": "a" * 10**6}},
    "a regular expression": {"normalizer": {"type": "Replace", "pattern": REGEX, "content": " "}},
    "a split by one": {
        "pre_tokenizer": {"type": "Split", "pattern": REGEX, "behavior": "Isolated", "invert": False},
    },
    "a replacement of nothing": {"normalizer": {**DOUBLING, "pattern": {"String": ""}}},
    "a compiled table": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}},
    "a kind that is none": {"normalizer": {"type": "Whatever"}},
    "a normalizer that is none": {"normalizer": [1]},
    "a model that is none": {"model": {"vocab": 3}},
    "large ids": {"added_tokens": [
        {"id": 2**32 - 1, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
    ]},
    "a text that is deep": {"normalizer": json.loads("[" * 500 + "]" * 500)},
}  # fmt: skip


@pytest.mark.parametrize("kind", HARMLESS)
def test_a_harmless_file_of_another_kind_is_read_by_the_library(kind: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(written(tmp_path, **HARMLESS[kind]))
    library = Library.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.bpe is None
    for text in ("ab a<bos>", "", "é 日 AB", "<eos><eos>"):
        ids = library.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("kind", HARMFUL)
def test_a_harmful_or_damaged_file_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json .*: (use the tokenizer of|download it again)") as found:
        Tokenizer.from_folder(written(tmp_path, **HARMFUL[kind]))
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 500 + len(str(tmp_path))


def test_a_file_far_larger_than_any_tokenizer_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(4 << 30)
    with pytest.raises(CheckpointError, match="is larger than 128 MiB: download it again"):
        Tokenizer.from_folder(tmp_path)


PANICS = {
    "merges of what is not there": {"model": {"merges": [["x", "y"]]}},
    "an unknown token that is not there": {"model": {"unk_token": "<nothing>", "vocab": {"a": 0}, "merges": []}},
    "ids beyond the end": {"model": {"type": "Unigram", "unk_id": 5, "vocab": [["a", -1.0]], "byte_fallback": False}},
    "numbers that are none": {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", float("nan")]]}},
    "no vocabulary": {"model": {"type": "Unigram", "unk_id": None, "vocab": [], "byte_fallback": False}},
    "words without end": {"model": {"type": "WordPiece", "unk_token": "<none>", "vocab": {"a": 0},
                                    "continuing_subword_prefix": "", "max_input_chars_per_word": 0}},
}  # fmt: skip


@pytest.mark.parametrize("kind", PANICS)
def test_what_the_library_stumbles_over_is_an_error_of_ours(kind: str, tmp_path: Path) -> None:
    try:
        tokenizer = Tokenizer.from_folder(written(tmp_path, **PANICS[kind]))
        tokenizer.decode(tokenizer.encode("ab é 日<bos>"))
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017  either outcome is right
