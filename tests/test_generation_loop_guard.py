"""The loop guard fires on loops, and on nothing a person would call an answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4_mlx.generation.loop_guard import LoopGuard
from tiny_tokenizer import build_tokenizer

TOKENIZER = build_tokenizer()


def fires_after(tokens: list[int], guard: LoopGuard | None = None) -> int | None:
    """How many tokens it took, None if it never fired."""
    guard = guard or LoopGuard()
    return next((n for n, token in enumerate(tokens, 1) if guard.feed(token)), None)


def fires_on(text: str) -> bool:
    return fires_after(TOKENIZER.encode(text, add_special_tokens=False).ids) is not None


@settings(max_examples=40)
@given(block=st.lists(st.integers(0, 500), min_size=1, max_size=64), lead_in=st.lists(st.integers(0, 500), max_size=99))
def test_a_block_repeated_without_end_is_found_by_the_time_it_should(block, lead_in):
    repeated = block * 300
    found = fires_after(lead_in + repeated)
    assert found is not None
    assert found <= len(lead_in) + max(24 * len(block), 256)


@given(st.lists(st.integers(0, 2), max_size=400))
def test_it_fires_exactly_when_the_end_is_that_many_copies(tokens):
    guard = LoopGuard(max_period=3, min_repeats=4, min_tokens=6)

    def is_loop(end: list[int]) -> bool:
        return any(
            len(end) >= (need := max(4 * p, 6)) and all(end[-i] == end[-i - p] for i in range(1, need - p + 1))
            for p in (1, 2, 3)
        )

    for n, token in enumerate(tokens, 1):
        assert guard.feed(token) == is_loop(tokens[:n])


@pytest.mark.parametrize(
    "text",
    [
        "ha " * 20 + "that was funny",
        "no, " * 30,
        "=" * 80 + "\nTitle\n" + "=" * 80,
        "| a | b | c |\n|---|---|---|\n" + "".join(f"| {i} | 0 | 0 |\n" for i in range(200)),
        ", ".join(str(i) for i in range(1000)),
        "[" + ",\n ".join("[" + ", ".join(["0"] * 8) + "]" for _ in range(8)) + "]",
        "".join(f"    if x == {i}:\n        return {i}\n" for i in range(100)),
        "I will not talk in class.\n" * 10,
        "".join(f"{i}. I will not talk in class.\n" for i in range(1, 101)),
    ],
)
def test_ordinary_repetition_is_no_loop(text):
    assert not fires_on(text)


@pytest.mark.parametrize("text", ["a" * 2000, "and then " * 400, "I am going to the house. " * 60])
def test_real_loops_are_found(text):
    assert fires_on(text)
