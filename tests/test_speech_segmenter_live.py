"""Live sound into utterances: nothing said is lost or doubled, none is too long, silence and clicks stay out.

The tests bring their own detector (loud is speech), so that what is speech is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4_mlx.log_mel import SAMPLE_RATE
from gemma4_mlx.speech.segmenter import LIVE, Closed, Opened, Segmenter, Sound
from gemma4_mlx.speech.vad import WINDOW


def is_loud(window: np.ndarray) -> float:
    return 1.0 if np.abs(window).mean() > 0.1 else 0.0


def sound(*runs: tuple[str, float]) -> np.ndarray:
    """("speech" | "murmur" | "silence", seconds) runs; every sample differs from its neighbours."""
    level = {"speech": 0.5, "murmur": 0.2, "silence": 0.0}
    samples = np.concatenate([np.full(round(seconds * SAMPLE_RATE), level[kind]) for kind, seconds in runs])
    return (samples + np.arange(len(samples)) % 1000 * 1e-5).astype(np.float32)


@dataclass
class Heard:
    """One utterance as whoever listens got it."""

    start: int
    end: int = 0
    spoken: bool = True
    handed_on: list[np.ndarray] = field(default_factory=list)

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate(self.handed_on)[: self.end - self.start]


def listen(samples: np.ndarray, block: int = 1_600, **options) -> list[Heard]:
    segmenter = Segmenter(replace(LIVE, **options), is_loud)
    heard: list[Heard] = []

    def follow(steps) -> None:
        for step in steps:
            match step:
                case Opened(start):
                    assert not heard or heard[-1].end, "the one before is still open"
                    heard.append(Heard(start))
                case Sound(more):
                    assert len(more)
                    assert not heard[-1].end
                    heard[-1].handed_on.append(more)
                case Closed(end, spoken):
                    heard[-1].end, heard[-1].spoken = end, spoken

    for at in range(0, len(samples), block):
        follow(segmenter.push(samples[at : at + block]))
    follow(segmenter.finish())
    assert not segmenter.speaking
    return heard


runs = st.lists(
    st.tuples(st.just("speech") | st.just("murmur"), st.floats(0.25, 30), st.floats(0, 4)).map(
        lambda run: ((run[0], run[1]), ("silence", run[2]))
    ),
    min_size=1,
    max_size=6,
).map(lambda pairs: [run for pair in pairs for run in pair])


@given(runs, st.floats(0, 3), st.integers(100, 50_000), st.sampled_from([2.0, 20.0, 28.0]), st.floats(0.1, 2.0))
@settings(max_examples=60)
def test_all_speech_is_in_exactly_one_utterance_and_every_one_fits(spoken, lead_in, block, longest, silence):
    samples = sound(("silence", lead_in), *spoken)
    heard = listen(samples, block, longest=longest, silence=silence)
    for utterance in heard:
        assert 0 < utterance.end - utterance.start <= longest * SAMPLE_RATE + WINDOW
        np.testing.assert_array_equal(utterance.samples, samples[utterance.start : utterance.end])
    assert all(before.end <= after.start for before, after in pairwise(heard))
    padded = np.pad(samples, (0, -len(samples) % WINDOW))
    for at in range(0, len(padded), WINDOW):
        if is_loud(padded[at : at + WINDOW]):
            end = min(at + WINDOW, len(samples))
            assert sum(one.spoken and one.start <= at and end <= one.end for one in heard) == 1, at / SAMPLE_RATE


def test_an_utterance_keeps_half_a_second_before_it_and_its_tail():
    (heard,) = listen(sound(("silence", 3), ("speech", 2), ("silence", 3)))
    assert 2.44 < heard.start / SAMPLE_RATE < 2.51
    assert 5.35 < heard.end / SAMPLE_RATE < 5.45
    # All of it was handed on before the end was known: nothing is left to do then.
    assert sum(map(len, heard.handed_on)) == heard.end - heard.start


def test_a_pause_shorter_than_the_silence_is_part_of_the_utterance():
    said = sound(("speech", 1), ("silence", 0.9), ("speech", 1), ("silence", 3))
    assert len(listen(said, silence=1.2)) == 1
    assert len(listen(said, silence=0.6)) == 2


def test_the_second_utterance_begins_no_earlier_than_the_first_ended():
    first, second = listen(sound(("speech", 1), ("silence", 0.6), ("speech", 1), ("silence", 2)), silence=0.5)
    assert first.end == second.start


def test_long_speech_is_cut_at_its_quietest_moment():
    quiet = 15.0
    said = sound(("speech", quiet), ("murmur", 0.2), ("speech", 25 - quiet), ("silence", 2))
    first, second = listen(said)
    assert first.end == second.start
    assert quiet <= first.end / SAMPLE_RATE <= quiet + 0.2


def test_a_click_is_not_worth_writing_down_but_the_rest_of_something_cut_is():
    (click,) = listen(sound(("silence", 1), ("speech", 0.09), ("silence", 2)))
    assert not click.spoken
    long_one = listen(sound(("speech", 10.05), ("silence", 2)), longest=10.0)
    assert [one.spoken for one in long_one] == [True, True]


@pytest.mark.parametrize("samples", [sound(("silence", 60)), np.zeros(0, np.float32), np.zeros(700, np.float32)])
def test_silence_opens_nothing(samples):
    assert listen(samples) == []


def test_silence_of_an_hour_is_not_remembered():
    segmenter = Segmenter(LIVE, is_loud)
    for _ in range(3600):
        assert list(segmenter.push(np.zeros(SAMPLE_RATE, np.float32))) == []
    assert len(segmenter._activity._kept) <= 16
    assert segmenter.seconds == 3600


def test_noise_at_any_level_opens_nothing_with_the_real_detector():
    noise = np.random.default_rng(0).normal(size=8 * SAMPLE_RATE).astype(np.float32)
    for level in (0.001, 0.03, 0.3):
        segmenter = Segmenter(LIVE)
        assert list(segmenter.push(noise * level)) == []


@pytest.mark.parametrize("rest", [0, 1, 100, 511])
def test_what_comes_after_finish_is_handed_on_to_the_last_sample(rest):
    first, second = sound(("speech", 2.5))[: 62 * WINDOW + rest], sound(("speech", 3), ("silence", 2))
    segmenter = Segmenter(LIVE, is_loud)
    segmenter.push(first)
    assert isinstance(segmenter.finish()[-1], Closed)
    opened, *handed_on, closed = segmenter.push(second)
    assert opened == Opened(len(first))
    heard = np.concatenate([step.samples for step in handed_on])
    np.testing.assert_array_equal(heard, second[: closed.end - len(first)])
    assert segmenter.seconds == (len(first) + len(second)) / SAMPLE_RATE


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 1.0}, {"silence": 0.0}, {"longest": 29.0}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="not"):
        replace(LIVE, **options)
