"""Control tokens are text, whoever spells them, wherever: none gets into a prompt that its template did not write."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversations import call, calling, processor, result
from gemma4_mlx.processing.tokenizer import Tokenizer
from processing_reference import ids_of
from published_templates import TEMPLATES
from tiny_tokenizer import SPECIAL_IDS, SPECIAL_TOKENS, build_tokenizer


def everywhere(words: str) -> list[dict[str, Any]]:
    """A conversation in which everybody says these words, and every name and key is made of them."""
    return [
        {"role": "system", "content": words},
        {"role": "user", "content": words},
        {"role": "assistant", "content": words, "reasoning_content": words},
        {"role": "user", "content": [{"type": "text", "text": words}, {"type": "text", "text": words}]},
        calling(call("f" + words, {"k" + words: [words, {words: None}]}), content=words, reasoning_content=words),
        result({"k" + words: words, "list": [words]}),
        calling(call("f" + words, json.dumps({"k": words}), "c2")),
        result(words, "c2"),
    ]


def tool_of(words: str) -> list[dict[str, Any]]:
    schema = {"type": "object", "properties": {"p" + words: {"type": "string", "description": words, "enum": [words]}}}
    return [{"name": "f" + words, "description": words, "parameters": {**schema, "required": ["p" + words]}}]


def control_ids(template: str, words: str, thinking: bool = False) -> list[int]:
    inputs = processor(template)(everywhere(words), tools=tool_of(words), thinking=thinking)
    return [id_ for id_ in ids_of(inputs) if id_ < len(SPECIAL_IDS)]


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_control_token_is_anybody_s_to_spell(template: str) -> None:
    plain = {thinking: control_ids(template, "x", thinking) for thinking in (False, True)}
    for token in SPECIAL_TOKENS:
        for thinking in (False, True):
            assert control_ids(template, f"a{token}b", thinking) == plain[thinking], token
            assert control_ids(template, token, thinking) == plain[thinking], token


@pytest.mark.parametrize("template", TEMPLATES)
def test_words_are_all_there_whatever_they_spell(template: str) -> None:
    words = f"see {' '.join(SPECIAL_TOKENS)} here"
    inputs = processor(template)(everywhere(words), tools=tool_of(words))
    # The thought and the words of the answer before the last question are the template's to leave out.
    assert processor(template).tokenizer.decode(ids_of(inputs)).count(words) >= 14


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_control_token_cut_anywhere_is_not_put_together_by_a_join(template: str) -> None:
    plain = control_ids_of_parts(template, "x", "y", "z")
    for token in SPECIAL_TOKENS:
        for one, two in itertools.combinations_with_replacement(range(len(token) + 1), 2):
            cut = token[:one], token[one:two], token[two:]
            assert control_ids_of_parts(template, *cut) == plain, cut


def control_ids_of_parts(template: str, *texts: str) -> list[int]:
    parts = [{"type": "text", "text": text} for text in texts]
    messages = [
        {"role": "system", "content": parts},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": parts},
        {"role": "user", "content": parts},
        calling(call()),
        result(parts),
    ]
    return [id_ for id_ in ids_of(processor(template)(messages)) if id_ < len(SPECIAL_IDS)]


PIECES = st.sampled_from(
    [*SPECIAL_TOKENS, "<", "<|", "|>", ">", "turn", " ", "\n", "\ufdd0", "\ufdd1", "\ufdd4", "\ufdd6", "é"]
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_whatever_is_spelled_in_any_place_adds_no_control_token(words: str) -> None:
    for template in TEMPLATES:
        assert control_ids(template, f"a{words}b") == control_ids(template, "x")


def test_a_question_about_a_placeholder_and_a_picture_go_together() -> None:
    """A page, a question or an earlier answer that spells one neither stops the chat nor takes the picture's place."""
    from PIL import Image

    picture = {"type": "image", "image": Image.new("RGB", (96, 96))}
    words = {"type": "text", "text": "What is <|image|>, and <|audio|>?"}
    for template in TEMPLATES:
        inputs = processor(template)([{"role": "user", "content": [words, picture]}], image_tokens=70)
        assert ids_of(inputs).count(SPECIAL_IDS["<|audio|>"]) == 0
        assert ids_of(inputs).count(SPECIAL_IDS["<|image|>"]) == sum(
            image.rows * image.columns // 9 for image in inputs.images
        )


@pytest.mark.parametrize("kind", ["Gemma's", "another"])
def test_what_another_thread_encodes_at_the_same_time_changes_nothing(kind, tmp_path):
    tokenizer = processor(next(iter(TEMPLATES))).tokenizer
    if kind == "another":
        tokenizer = other_kind(tmp_path)
    turn = "<|turn>user\nHello<turn|>"
    marked = tokenizer.literal("what does <turn|> mean? " * 20)
    expected = tokenizer.encode(turn), tokenizer.encode(marked)
    over = threading.Event()
    other = threading.Thread(target=lambda: [tokenizer.encode(marked) for _ in iter(over.is_set, True)])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other.start()
    try:
        for _ in range(300):
            assert (tokenizer.encode(turn), tokenizer.encode(marked)) == expected
    finally:
        sys.setswitchinterval(interval)
        over.set()
        other.join()


def other_kind(folder: Path) -> Tokenizer:
    """A tokenizer that the library reads, with the control tokens of Gemma's kind."""
    content = json.loads(build_tokenizer().to_str())
    content["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, content["normalizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.bpe is None
    return tokenizer
