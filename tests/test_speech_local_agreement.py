"""Two answers in a row make a word certain; it then stays, and half a word never is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gemma4_mlx.speech.local_agreement import LocalAgreement

WORDS = {1: "Ask", 2: " not", 3: " what", 4: " your", 5: " coun", 6: "try", 7: " ty", 8: "你", 9: "好", 10: "."}


def agreement(*answers: list[int]) -> LocalAgreement:
    made = LocalAgreement(WORDS.__getitem__)
    for answer in answers:
        made.add(answer)
    return made


def test_one_answer_makes_nothing_certain():
    assert agreement([1, 2, 3]).certain == 0


def test_what_two_answers_in_a_row_begin_with_is_certain():
    assert agreement([1, 2, 7], [1, 2, 3, 4]).certain == 2


def test_half_a_word_is_not_certain_but_a_sign_that_stands_for_itself_is():
    assert agreement([4, 5], [4, 5, 6]).certain == 1
    assert agreement([8], [8, 9]).certain == 1
    assert agreement([4, 5, 6], [4, 5, 6, 10]).certain == 3


def test_a_guess_that_was_not_finished_certifies_nothing_itself():
    made = agreement([1, 2])
    made.replace_draft([1, 2, 3])
    assert (made.tokens, made.certain) == ([1, 2, 3], 0)


@given(st.lists(st.lists(st.integers(1, 10), max_size=8), max_size=8))
def test_what_is_certain_never_changes(answers):
    made = LocalAgreement(WORDS.__getitem__)
    certain: list[int] = []
    for answer in answers:
        made.add([*certain, *answer])
        assert made.tokens[: len(certain)] == certain
        assert made.certain >= len(certain)
        certain = made.tokens[: made.certain]
