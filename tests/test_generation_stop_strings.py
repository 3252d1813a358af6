"""Stop strings end an answer wherever pieces begin and end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4_mlx.generation.stop_strings import StopStrings, partial_suffix

short_text = st.text(alphabet="ab", max_size=12)
stop_lists = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3)


def shown(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    watcher, text = StopStrings(stops), ""
    for piece in pieces:
        text += watcher.feed(piece)
        if watcher.hit:
            return text, True
    return text + watcher.flush(), False


@given(text=short_text, stops=stop_lists, data=st.data())
def test_any_cutting_into_pieces_ends_at_the_same_place(text, stops, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert shown(pieces, stops) == shown([text], stops) == shown(list(text), stops)


@given(text=short_text, stops=stop_lists)
def test_what_is_shown_never_holds_a_stop_string_and_nothing_is_lost_without_one(text, stops):
    out, hit = shown(list(text), stops)
    assert not any(stop in out for stop in stops)
    assert hit == any(stop in text for stop in stops)
    assert out == text or (hit and text.startswith(out))


@given(text=short_text, stops=stop_lists)
def test_exactly_what_could_still_become_a_stop_string_is_held_back(text, stops):
    held = partial_suffix(text, stops)
    could_begin_one = [n for n in range(1, len(text) + 1) if any(s[:n] == text[-n:] and n < len(s) for s in stops)]
    assert held == max(could_begin_one, default=0)


def test_text_is_shown_as_soon_as_it_cannot_be_part_of_a_stop_string():
    watcher = StopStrings(["\nUser:"])
    assert [watcher.feed(piece) for piece in ["Hi", "\nUs", "ually", "\n", "User", ": x"]] == [
        "Hi",
        "",
        "\nUsually",
        "",
        "",
        "",
    ]
    assert watcher.hit


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="empty"):
        StopStrings(["a", ""])
