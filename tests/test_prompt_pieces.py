"""How many tokens of a prompt are read at once: by the machine, within its memory, and with the same result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gemma4_mlx as g4
from gemma4_mlx.checkpoint.per_layer_table import PerLayerTable
from gemma4_mlx.generation import loop
from gemma4_mlx.generation.prompt_pieces import piece_tokens
from gemma4_mlx.model.cache import Caches
from gemma4_mlx.model.gpu import Gpu
from gemma4_mlx.model.inputs import split_inputs
from parity import pair
from tiny_tokenizer import SPECIAL_IDS

GB = 10**9


def heads(count: int) -> SimpleNamespace:
    return SimpleNamespace(num_attention_heads=count)


@pytest.mark.parametrize(
    ("gpu", "attention_heads", "span", "tokens"),
    [
        (None, 8, 8_192, 512),
        (Gpu(13, 5 * GB), 8, 8_192, 512),
        (Gpu(13, None), 8, 8_192, 512),
        (Gpu(None, None), 8, 8_192, 512),
        (Gpu(14, 18 * GB), 8, 8_192, 1_024),
        (Gpu(16, 36 * GB), 8, 8_192, 2_048),
        (Gpu(None, 36 * GB), 8, 8_192, 2_048),
        (Gpu(17, 12 * GB), 8, 8_192, 2_048),
        (Gpu(16, 100 * GB), 32, 7_000, 2_048),
        (Gpu(16, 100 * GB), 32, 12_000, 1_024),
        (Gpu(16, 100 * GB), 32, 262_144, 512),
    ],
)
def test_a_prompt_is_read_in_pieces_that_suit_the_machine(gpu, attention_heads, span, tokens):
    assert piece_tokens(gpu, heads(attention_heads), span) == tokens


@given(
    generation=st.none() | st.integers(10, 20),
    memory=st.none() | st.integers(1, 600 * GB),
    attention_heads=st.sampled_from([8, 16, 32]),
    span=st.integers(1, 262_144),
)
@settings(max_examples=60)
def test_scores_never_take_more_than_a_gigabyte_or_a_sixteenth_of_the_memory(generation, memory, attention_heads, span):
    tokens = piece_tokens(Gpu(generation, memory), heads(attention_heads), span)
    assert tokens in (512, 1_024, 2_048)
    if tokens > 512:
        assert attention_heads * tokens * span * 2 <= min(GB, memory / 16)


@given(length=st.integers(1, 400), longest=st.integers(1, 90), last=st.integers(1, 90))
@settings(max_examples=60)
def test_pieces_before_a_short_last_one_are_equally_long(length, longest, last):
    ids = mx.arange(length)[None] + len(SPECIAL_IDS)
    pieces = split_inputs(g4.ModelInputs(ids), pair("e2b").model.config, longest, last)
    lengths = [piece.input_ids.shape[1] for piece in pieces]
    assert mx.array_equal(mx.concatenate([piece.input_ids for piece in pieces], axis=1), ids)
    assert max(lengths) <= longest
    assert lengths[-1] == min(length, longest, last)
    assert all(abs(a - lengths[0]) < len(lengths) for a in lengths[:-1])


@pytest.mark.parametrize("longest", [5, 24, 60, 500])
def test_a_conversation_can_be_edited_anywhere_in_its_last_window_whatever_the_pieces_were(longest, monkeypatch):
    model = pair("e2b").model  # with a window of 24
    monkeypatch.setattr(loop, "PREFILL_TOKENS", longest)
    ids = np.random.default_rng(7).integers(len(SPECIAL_IDS), 512, 131).tolist()
    for kept in (130, 128, 131 - 24, 131 - 12):
        cache = g4.ConversationCache(model)
        list(g4.generate_tokens(model, ids, max_tokens=2, cache=cache))
        edited = [*ids[:kept], 77, 78]
        tokens = list(g4.generate_tokens(model, edited, max_tokens=6, cache=cache))
        assert tokens == list(g4.generate_tokens(model, edited, max_tokens=6))
        assert cache.reused == (kept if longest >= 24 or kept > 131 - longest else cache.reused)


def test_the_next_piece_s_rows_are_read_while_the_one_before_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = g4.load(pair("e2b").folder, per_layer="disk")
    monkeypatch.setattr(loop, "PREFILL_TOKENS", 20)
    happened: list[str] = []
    read, start, wait = PerLayerTable.__call__, Caches.start, Caches.evaluate
    monkeypatch.setattr(PerLayerTable, "__call__", lambda *a: happened.append("rows") or read(*a))
    monkeypatch.setattr(Caches, "start", lambda *a: happened.append("start") or start(*a))
    monkeypatch.setattr(Caches, "evaluate", lambda *a: happened.append("wait") or wait(*a))
    ids = [40 + i for i in range(60)]
    tokens = list(g4.generate_tokens(model, ids, max_tokens=8))
    assert happened == ["rows", *["start", "rows", "wait"] * 2]
    monkeypatch.setattr(loop, "PREFILL_TOKENS", None)
    assert tokens == list(g4.generate_tokens(model, ids, max_tokens=8))


def test_rows_that_cannot_be_read_leave_the_pieces_before_in_the_cache(tmp_path: Path, monkeypatch) -> None:
    model, _ = g4.load(pair("e2b").folder, per_layer="disk")
    monkeypatch.setattr(loop, "PREFILL_TOKENS", 20)
    read, calls = PerLayerTable.__call__, []

    def fails_in_the_second_piece(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise g4.CheckpointError("the file was changed while in use: load the model again")
        return read(*arguments)

    monkeypatch.setattr(PerLayerTable, "__call__", fails_in_the_second_piece)
    ids, cache = [40 + i for i in range(60)], model.make_cache()
    with pytest.raises(g4.CheckpointError):
        list(g4.generate_tokens(model, ids, max_tokens=8, cache=cache))
    assert {layer.offset for layer in cache} == {20}
    tokens = list(g4.generate_tokens(model, ids[20:], max_tokens=8, cache=cache))
    assert tokens == list(g4.generate_tokens(model, ids, max_tokens=8))
