"""What messages show of a stranger's names, values and times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4_mlx.shown import clock, shown, shown_name


@given(st.text() | st.binary() | st.dictionaries(st.text(), st.text()))
def test_whatever_is_shown_is_short_and_visible_on_one_line(value: object) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) < 1300  # each of 120 characters may be escaped
    if isinstance(value, str):
        assert shown_name(value).isprintable()


def test_a_plain_name_is_shown_as_it_is_and_another_in_quotes() -> None:
    assert shown_name("model.norm.weight") == "model.norm.weight"
    assert shown_name("größe 大") == "größe 大"
    assert shown_name("a\x1b[2J\u202e") == r"'a\x1b[2J\u202e'"
    assert shown_name("x" * 200) == "x" * 120 + "…"
    assert shown("x" * 200) == "'" + "x" * 120 + "…'"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.9, "0:07"), (750, "12:30"), (3723, "1:02:03"), (-0.2, "0:00")]
)
def test_a_time_is_shown_in_seconds_that_have_passed(seconds: float, text: str) -> None:
    assert clock(seconds) == text
