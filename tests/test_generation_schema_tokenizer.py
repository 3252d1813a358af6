"""llguidance's view of a tokenizer: the same masks as from its tokenizer.json, made once in a process."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer

import gemma_tokenizer
from gemma4_mlx.generation.json_schema import enforceable
from gemma4_mlx.generation.schema import SchemaConstraint, _grammar
from gemma4_mlx.generation.schema_tokenizer import schema_tokenizer
from gemma4_mlx.processing.tokenizer import Tokenizer

ENDS = (1, 5)
SCHEMAS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "object"},
    {"type": "string", "pattern": "^[a-cé日]{2,40}$"},
    {"type": "array", "items": {"enum": ["日本", "café", "x  y", "aaaa", "the\ttable"]}, "minItems": 1, "maxItems": 3},
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 120}},
        "required": ["name", "age"],
    },
    {"type": "object", "properties": {"long name é": {"type": "boolean"}}, "required": ["long name é"]},
    {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "number"}}]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = gemma_tokenizer.build(characters=gemma_tokenizer.CHARACTERS + "+?!#$%&*\\^`~")
    return gemma_tokenizer.write(tmp_path_factory.mktemp("model") / "tokenizer.json", tokenizer).parent


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder)


def masks_from_json(folder: Path, schema: dict[str, Any], vocab_size: int, accept: list[int]) -> Iterator[np.ndarray]:
    """What llguidance allows before each token of `accept`, its tokenizer read from the file."""
    library = LLTokenizer(str(folder / "tokenizer.json"), n_vocab=vocab_size, eos_token=list(ENDS))
    matcher = LLMatcher(library, _grammar(enforceable(schema).schema), log_level=0)
    words = np.zeros((vocab_size + 31) // 32, np.uint32)
    for token in accept:
        matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        yield np.unpackbits(words.view(np.uint8), count=vocab_size, bitorder="little").astype(bool)
        matcher.consume_token(token)


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
@pytest.mark.parametrize("more", [0, 37])  # rows that only the model has
def test_the_masks_are_those_of_the_tokenizer_s_file(
    folder: Path, tokenizer: Tokenizer, schema: dict[str, Any], more: int
) -> None:
    chance = random.Random(0)
    vocab_size = len(tokenizer) + more
    for _ in range(3):
        constraint = SchemaConstraint(schema, tokenizer, vocab_size, ENDS)
        taken: list[int] = []
        allowed: list[np.ndarray] = []
        while len(taken) < 60 and not set(taken) & set(ENDS):
            allowed.append(constraint.allowed())
            taken.append(int(chance.choice(np.flatnonzero(allowed[-1]))))
            if taken[-1] not in ENDS:
                constraint.accept(taken[-1])
        for step, mask in enumerate(masks_from_json(folder, schema, vocab_size, taken)):
            assert np.array_equal(allowed[step], mask), taken[:step]


@pytest.mark.parametrize(
    "name", ["<table>", "<|turn>", "▁▁", "a▁b", "[multimodal]", "<0x0A>", "\n\n\t", "turn|>x", "日本"]
)
def test_a_schema_may_name_whatever_the_tokenizer_has_a_token_for(tokenizer: Tokenizer, name: str) -> None:
    schema = {"type": "object", "properties": {name: {"const": name}}, "required": [name]}
    constraint = SchemaConstraint(schema, tokenizer, len(tokenizer), ENDS)
    ids: list[int] = []
    while not (allowed := constraint.allowed())[list(ENDS)].any():
        ids.append(int(np.flatnonzero(allowed)[-1]))
        constraint.accept(ids[-1])
    assert json.loads(tokenizer.decode(ids)) == {name: name}


def test_it_is_made_once_in_a_process_and_goes_with_its_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    made = schema_tokenizer(tokenizer, len(tokenizer), ENDS)
    assert schema_tokenizer(tokenizer, len(tokenizer), list(ENDS)) is made
    assert schema_tokenizer(tokenizer, len(tokenizer), [1]) is not made
    assert schema_tokenizer(Tokenizer.from_folder(folder), len(tokenizer), ENDS) is not made


def test_a_tokenizer_of_another_kind_has_masks_too(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["ignore_merges"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.bpe is None
    allowed = SchemaConstraint({"enum": ["abc", "x"]}, tokenizer, len(tokenizer), ENDS).allowed()
    assert {tokenizer.decode([int(id_)]) for id_ in np.flatnonzero(allowed)} == {'"'}
