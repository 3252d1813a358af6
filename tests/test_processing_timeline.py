"""Pieces with times → one sound on the clock: holes, overlaps, resets and wrong times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4_mlx.processing.limits import LONGEST_GAP_SECONDS
from gemma4_mlx.processing.timeline import Timeline

RATE = 1000
PIECE = 0.02


def placed(times: list[float | None], begin: float | None = 0.0, longest_gap: float = float("inf")) -> list[float]:
    """Pieces of 20 ms with these times, each filled with its number from 1 on → the second each is heard at."""
    timeline = Timeline(begin, longest_gap)
    heard: list[np.ndarray] = []
    for number, time in enumerate(times, start=1):
        samples = np.full(round(PIECE * RATE), number, np.float32)
        heard += [piece for piece, rate in timeline.place(time, samples, RATE)]
    heard += [piece for piece, rate in timeline.finish()]
    sound = np.concatenate(heard)
    assert len(sound) == round(timeline.now * RATE)
    assert max(len(piece) for piece in heard) <= RATE
    return [round(float(np.flatnonzero(sound == number)[0]) / RATE, 3) for number in range(1, len(times) + 1)]


def row(begin: float, count: int) -> list[float]:
    return [begin + PIECE * number for number in range(count)]


def test_pieces_that_follow_each_other_are_where_they_were() -> None:
    assert placed(row(0, 50)) == pytest.approx(row(0, 50))


def test_a_track_that_begins_late_and_a_hole_are_silence() -> None:
    assert placed(row(5, 10) + row(22, 10)) == pytest.approx(row(5, 10) + row(22, 10))


def test_the_clock_begins_where_the_file_does() -> None:
    assert placed(row(3605, 10), begin=3600.0) == pytest.approx(row(5, 10))
    assert placed(row(-0.5, 10), begin=-0.5) == pytest.approx(row(0, 10))
    assert placed(row(3605, 10) + row(3606, 2), begin=None) == pytest.approx(row(0, 10) + row(1, 2))


@given(st.lists(st.floats(-0.04, 0.04), min_size=2, max_size=60))
def test_times_that_are_rounded_move_nothing(jitter: list[float]) -> None:
    times = [time + off for time, off in zip(row(0, len(jitter)), jitter, strict=True)]
    assert placed(times) == pytest.approx(row(0, len(jitter)))


@pytest.mark.parametrize("wrong", [1000.0, -2.0, -1000.0, 0.7])
def test_one_wrong_time_moves_nothing(wrong: float) -> None:
    times = row(0, 20)
    times[10] += wrong
    assert placed(times) == pytest.approx(row(0, 20))


def test_clocks_that_begin_anew_go_on() -> None:
    assert placed(row(50, 10) + row(0, 10), begin=50.0) == pytest.approx(row(0, 20))
    # A hole behind the new beginning is one of its own.
    times = row(50, 10) + row(0, 10) + row(3, 10)
    assert placed(times, begin=50.0) == pytest.approx(row(0, 20) + row(3.2, 10))


def test_pieces_that_overlap_are_all_heard_and_the_clock_is_right_behind_the_next_hole() -> None:
    times = row(0, 50) + row(0.5, 50) + row(4, 5)
    assert placed(times) == pytest.approx(row(0, 100) + row(4, 5))


def test_packets_that_come_now_and_then_while_nobody_speaks_keep_their_times() -> None:
    times = [*row(0, 10), 0.6, 1.0, 1.4, 1.8, *row(2.2, 10)]
    assert placed(times)[-10:] == pytest.approx(row(2.2, 10))


def test_a_piece_without_a_time_follows_the_one_before_it() -> None:
    assert placed([0.0, None, None, 0.06]) == pytest.approx(row(0, 4))
    assert placed([None] * 4, begin=None) == pytest.approx(row(0, 4))


def test_a_jump_of_more_than_six_hours_is_a_wrong_clock() -> None:
    assert placed(row(0, 5) + row(LONGEST_GAP_SECONDS + 60, 5)) == pytest.approx(row(0, 10))


def test_a_hole_is_cut_to_a_pause_where_there_is_no_clock() -> None:
    assert placed(row(0, 5) + row(40, 5), longest_gap=1.0) == pytest.approx(row(0, 5) + row(1.1, 5))


@given(st.lists(st.none() | st.floats(-1e4, 1e4), min_size=1, max_size=30))
def test_whatever_the_times_every_piece_is_heard_in_order(times: list[float | None]) -> None:
    heard = placed(times, longest_gap=1.0)
    assert heard == sorted(heard)
