"""Our own byte-pair encoding gives what the library gives, for every text and every tokenizer of Gemma's kind."""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

import gemma_tokenizer
from gemma4_mlx.processing.bpe import BPE
from gemma4_mlx.processing.bpe_file import OtherKindError, make_tables
from gemma4_mlx.processing.tokenizer import Tokenizer

LIBRARY = gemma_tokenizer.build()


def bpe_of(library: Library) -> BPE:
    return BPE(make_tables(library.to_str().encode()))


OURS = bpe_of(LIBRARY)
TOKENS = sorted(LIBRARY.get_vocab())
SPELLED = st.sampled_from([token.replace("▁", " ") for token in TOKENS] + TOKENS)
RUNS = st.tuples(st.sampled_from(" \n\t=a:-▁y"), st.integers(1, 200)).map(lambda run: run[0] * run[1])
MARKS = st.text("e\u0301\u0308\u200d👩🏽️é", max_size=8)
CLOSE = st.text("abc <>|/table\nturn=y:", max_size=30)
TEXTS = st.lists(st.one_of(st.text(max_size=10), SPELLED, RUNS, MARKS, CLOSE), max_size=12).map("".join)


def same(library: Library, ours: BPE, text: str, literal: bool = False) -> None:
    library.encode_special_tokens = literal
    expected = library.encode(text, add_special_tokens=False).ids
    assert ours.encode(text, literal).ids == expected
    for skip in (False, True):
        assert ours.decode(expected, skip_special_tokens=skip) == library.decode(expected, skip_special_tokens=skip)


@settings(max_examples=500)
@given(text=TEXTS, literal=st.booleans())
def test_any_text_becomes_the_library_s_ids_and_is_decoded_as_the_library_does(text: str, literal: bool) -> None:
    same(LIBRARY, OURS, text, literal)


@settings(max_examples=200)
@given(ids=st.lists(st.integers(0, len(TOKENS) + 5) | st.integers(7, 275), max_size=40), skip=st.booleans())
def test_any_ids_are_decoded_as_the_library_does(ids: list[int], skip: bool) -> None:
    assert OURS.decode(ids, skip_special_tokens=skip) == LIBRARY.decode(ids, skip_special_tokens=skip)


@settings(max_examples=150)
@given(
    pieces=st.lists(st.text("ab▁é日", min_size=2, max_size=6), min_size=1, max_size=30, unique=True),
    added=st.lists(st.text("ab<>", min_size=1, max_size=4), max_size=6, unique=True),
    texts=st.lists(st.text("ab é日<>\n", max_size=60), min_size=1, max_size=5),
    literal=st.booleans(),
)
def test_any_tokenizer_of_gemma_s_kind_is_followed(
    pieces: list[str], added: list[str], texts: list[str], literal: bool
) -> None:
    library = gemma_tokenizer.build(pieces, "▁abé日", added)
    ours = bpe_of(library)
    for text in texts:
        same(library, ours, text, literal)


def test_the_characters_of_unicode_in_a_row_and_between_others() -> None:
    codes = [*range(0xD800), *range(0xE000, 0x10000), *range(0x10000, sys.maxunicode + 1, 31)]
    for start in range(0, len(codes), 4096):
        for between in ("", " a"):
            same(LIBRARY, OURS, between.join(map(chr, codes[start : start + 4096])))


def test_a_long_text_of_many_scripts_and_code() -> None:
    scripts = [
        "".join(c for c in map(chr, range(*block)) if unicodedata.category(c)[0] in "LMN")
        for block in ((0x41, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0x3040, 0x3100), (0x4E00, 0x9000))
    ]
    chance = random.Random(0)
    words = ["".join(chance.choices(chance.choice(scripts), k=chance.randint(1, 12))) for _ in range(3000)]
    for text in (" ".join(words), "".join(words), Path(__file__).read_text(encoding="utf-8") * 5, "=" * 5000):
        same(LIBRARY, OURS, text)


def test_a_piece_that_no_merges_lead_to_is_not_taken_whole() -> None:
    library = gemma_tokenizer.build(["aa", "aaaaa"], "▁a", [])
    assert library.encode("aaaaa", add_special_tokens=False).tokens == ["aa", "aa", "a"]
    same(library, bpe_of(library), "aaaaa")


def test_tokens_and_ids_name_each_other() -> None:
    assert OURS.get_vocab_size() == LIBRARY.get_vocab_size()
    for token, id_ in LIBRARY.get_vocab().items():
        assert OURS.token_to_id(token) == id_
        assert OURS.id_to_token(id_) == token
    for absent in ("", "nope", "<0x0a>", "\ud800", "~"):
        assert OURS.token_to_id(absent) is None


def test_a_negative_id_is_refused_as_the_library_does() -> None:
    for tokenizer in (OURS, LIBRARY):
        with pytest.raises(OverflowError):
            tokenizer.decode([-1])


def changed(*path: str, to: Any) -> bytes:
    content = json.loads(LIBRARY.to_str())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return json.dumps(content).encode()


def first_added(**flags: Any) -> list[dict[str, Any]]:
    added = json.loads(LIBRARY.to_str())["added_tokens"]
    return [added[0] | flags, *added[1:]]


def vocabulary(**entries: int) -> dict[str, int]:
    return json.loads(LIBRARY.to_str())["model"]["vocab"] | entries


MERGES = json.loads(LIBRARY.to_str())["model"]["merges"]
OTHER_KINDS = {
    "no normalizer": changed("normalizer", to=None),
    "another normalizer": changed("normalizer", to={"type": "NFC"}),
    "a regular expression": changed("normalizer", "pattern", to={"Regex": " "}),
    "another split": changed("pre_tokenizer", "behavior", to="Isolated"),
    "bytes as letters": changed("pre_tokenizer", to={"type": "ByteLevel"}),
    "another decoder": changed("decoder", to={"type": "ByteLevel"}),
    "the first space stripped": changed("decoder", "decoders", to=[{"type": "Strip", "content": " ", "start": 1}]),
    "words": changed("model", "type", to="WordPiece"),
    "no bytes to fall back on": changed("model", "byte_fallback", to=False),
    "whole words first": changed("model", "ignore_merges", to=True),
    "chance": changed("model", "dropout", to=0.1),
    "marked ends": changed("model", "end_of_word_suffix", to="</w>"),
    "an added token with space around it": changed("added_tokens", to=first_added(lstrip=True)),
    "an added token in normalized text": changed("added_tokens", to=first_added(normalized=True)),
    "an added word": changed("added_tokens", to=first_added(single_word=True)),
    "an added token outside the vocabulary": changed("added_tokens", to=first_added(content="<new>", id=9999)),
    "an added token with another's id": changed("added_tokens", to=first_added(id=5)),
    "a gap in the ids": changed("model", "vocab", to=vocabulary(zzz=10_000)),
    "one id twice": changed("model", "vocab", to=vocabulary(zzz=3)),
    "a byte spelled otherwise": changed("model", "vocab", to=vocabulary(**{"<0x+A>": len(TOKENS)})),
    "a merge twice": changed("model", "merges", to=[*MERGES, MERGES[0]]),
    "merged bytes": changed("model", "merges", to=[["<0x41>", "a"], *MERGES]),
    "a merge of unknown tokens": changed("model", "merges", to=[["q", "nope"], *MERGES]),
    "half a merge": changed("model", "merges", to=[["a"], *MERGES]),
    "half a character": changed("model", "vocab", to=vocabulary(**{"\ud800": len(TOKENS)})),
    "nothing": b"",
    "a list": b"[]",
    "no model": b'{"model": {}}',
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_file_of_any_other_kind_is_left_to_the_library(kind: str) -> None:
    with pytest.raises(OtherKindError):
        make_tables(OTHER_KINDS[kind])


def test_merges_may_be_written_as_older_files_do() -> None:
    older = changed("model", "merges", to=[" ".join(merge) for merge in MERGES])
    same(Library.from_buffer(older), BPE(make_tables(older)), "the inner table == 日本語\n\n\n and  so on")


def test_another_kind_still_reads_prompts_and_gives_them_back(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(OTHER_KINDS["whole words first"])
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.bpe is None
    assert tokenizer.decode(tokenizer.encode("<bos>the table")) == "<bos>the table"


def test_named_control_tokens_become_some_in_both(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"mask_token": "<mask>", "cell_token": "<|cell|>"}')
    for content in (LIBRARY.to_str().encode(), OTHER_KINDS["whole words first"]):
        (tmp_path / "tokenizer.json").write_bytes(content)
        tokenizer = Tokenizer.from_folder(tmp_path)
        assert tokenizer.decode(tokenizer.encode("a<mask><|cell|>"), skip_special_tokens=True) == "a<|cell|>"
