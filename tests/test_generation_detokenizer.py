"""Pieces of text add up to what the tokenizer makes of all ids, and never show half a character."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gemma4_mlx.generation.detokenizer import Detokenizer
from gemma4_mlx.processing.tokenizer import Tokenizer
from tiny_tokenizer import SPECIAL_IDS, VOCAB_SIZE, write_tokenizer

with tempfile.TemporaryDirectory() as folder:
    write_tokenizer(folder)
    TOKENIZER = Tokenizer.from_folder(Path(folder))
BYTES = [TOKENIZER.token_id(f"<0x{byte:02X}>") for byte in range(256)]

any_ids = st.lists(st.integers(0, VOCAB_SIZE - 1) | st.sampled_from(BYTES), max_size=30)


def pieces_of(ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(TOKENIZER)
    return [*(detokenizer.feed(token) for token in ids), detokenizer.flush()]


@given(any_ids)
@example([BYTES[0xE2], SPECIAL_IDS["<pad>"], BYTES[0x82], BYTES[0xAC]])
def test_pieces_of_random_ids_add_up_to_the_whole_without_special_tokens(ids):
    assert "".join(pieces_of(ids)) == TOKENIZER.decode(ids, skip_special_tokens=True)


@given(st.text())
def test_text_survives_the_way_through_ids(text):
    text = "".join(char for char in text if char != "▁")  # Gemma's tokenizer takes it for a space
    ids = TOKENIZER.encode(TOKENIZER.literal(text))
    pieces = pieces_of(ids)
    assert "".join(pieces) == TOKENIZER.decode(ids, skip_special_tokens=True)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(
    "text", ["👩‍👩‍👧‍👦 family", "é", "한국어 e\u0301", "  two spaces", " leading", "€uro", "\n\n", "🇫🇷🇩🇪"]
)
def test_characters_come_whole(text):
    ids = TOKENIZER.encode(text)
    assert "".join(pieces_of(ids)) == text


def test_a_character_is_shown_when_the_next_piece_begins():
    euro = [BYTES[byte] for byte in "€".encode()]
    (x,) = TOKENIZER.encode("x")
    assert pieces_of([x, *euro, x]) == ["x", "", "", "", "€x", ""]


def test_an_unfinished_character_at_the_end_is_a_replacement_character_per_byte():
    assert pieces_of([BYTES[0xE2], BYTES[0x82]]) == ["", "", "\ufffd\ufffd"]


def test_special_tokens_are_not_written():
    ids = [SPECIAL_IDS[token] for token in ("<bos>", "<|channel>", "<|image|>", "<channel|>", "<turn|>")]
    assert pieces_of(ids) == [""] * 6


def test_an_id_beyond_the_vocabulary_writes_nothing():
    assert pieces_of([10**6]) == ["", ""]
