"""Cutting sound into clips: nothing said is lost or doubled, nothing is too long, silence stays out.

Most tests bring their own detector (loud is speech), so that what is speech is known exactly; the real one is tried on
a recording.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gemma4_mlx.log_mel import SAMPLE_RATE, FloatArray
from gemma4_mlx.speech.segmenter import FILE, Clip, ClipCollector, Segmenter, cut
from gemma4_mlx.speech.vad import WINDOW

LONGEST = 28 * SAMPLE_RATE
PADDING = 0.4


def _is_loud(window: FloatArray) -> float:
    return 1.0 if np.abs(window).mean() > 0.1 else 0.0


def _sound(*runs: tuple[str, float]) -> FloatArray:
    """("speech" | "silence" | "murmur", seconds) runs; every sample differs from its neighbours."""
    level = {"speech": 0.5, "murmur": 0.2, "silence": 0.0}
    samples = np.concatenate([np.full(round(seconds * SAMPLE_RATE), level[kind]) for kind, seconds in runs])
    return (samples + np.arange(len(samples)) % 1000 * 1e-5).astype(np.float32)


def _cut(samples: FloatArray, block: int = SAMPLE_RATE) -> list[Clip]:
    return list(cut((samples[at : at + block] for at in range(0, len(samples), block)), FILE, _is_loud))


def _times(clips: list[Clip]) -> list[tuple[float, float]]:
    return [(clip.start / SAMPLE_RATE, clip.end / SAMPLE_RATE) for clip in clips]


def _loud_windows(samples: FloatArray) -> list[int]:
    padded = np.pad(samples, (0, -len(samples) % WINDOW))
    return [at for at in range(0, len(padded), WINDOW) if _is_loud(padded[at : at + WINDOW])]


runs = st.lists(
    st.tuples(st.just("speech") | st.just("murmur"), st.floats(0.25, 40), st.floats(0, 6)).map(
        lambda run: ((run[0], run[1]), ("silence", run[2]))
    ),
    min_size=1,
    max_size=8,
).map(lambda pairs: [run for pair in pairs for run in pair])


@given(runs, st.floats(0, 5), st.integers(100, 100_000))
@example([("speech", 27.0), ("silence", 1.5), ("speech", 0.3), ("silence", 3.0)], 0.0, 512)
@example([("speech", 28.4)], 0.1, 16_000)
@settings(max_examples=40)
def test_all_speech_is_in_exactly_one_clip_and_every_clip_fits(runs, lead_in, block):
    samples = _sound(("silence", lead_in), *runs)
    clips = _cut(samples, block)
    for clip in clips:
        assert 0 < clip.end - clip.start <= LONGEST
        np.testing.assert_array_equal(clip.samples, samples[clip.start : clip.end])
    assert all(before.end <= after.start for before, after in itertools.pairwise(clips))
    for at in _loud_windows(samples):
        end = min(at + WINDOW, len(samples))
        assert sum(clip.start <= at and end <= clip.end for clip in clips) == 1, f"speech at {at / SAMPLE_RATE} s"


@given(runs)
@settings(max_examples=20)
def test_no_clip_holds_two_seconds_of_silence_or_begins_and_ends_with_more_than_the_padding(runs):
    samples = _sound(*runs)
    loud = set(_loud_windows(samples))
    for clip in _cut(samples):
        inside = [at for at in range(clip.start, clip.end, WINDOW) if at in loud]
        gaps = np.diff([clip.start - WINDOW, *inside, clip.end]) - WINDOW
        assert gaps.max() < 2.1 * SAMPLE_RATE
        assert max(gaps[0], gaps[-1]) <= PADDING * SAMPLE_RATE + WINDOW


@given(runs, st.integers(1, 40_000), st.integers(1, 40_000))
@settings(max_examples=20)
def test_the_size_of_the_blocks_changes_nothing(runs, first, second):
    samples = _sound(*runs)
    assert _times(_cut(samples, max(first, 300))) == _times(_cut(samples, max(second, 300)))


@pytest.mark.parametrize("seconds", [0, 0.001, 0.5, 45])
def test_silence_gives_no_clip(seconds):
    assert _cut(_sound(("silence", seconds))) == []


def test_a_click_gives_no_clip():
    assert _cut(_sound(("silence", 3), ("speech", 0.07), ("silence", 3))) == []


def test_speech_keeps_a_little_of_the_silence_around_it():
    ((start, end),) = _times(_cut(_sound(("silence", 5), ("speech", 3), ("silence", 5))))
    assert 5 - PADDING - 0.05 <= start <= 5 - 0.2
    assert 8 + 0.2 <= end <= 8 + PADDING + 0.05


def test_speech_at_both_ends_of_a_sound_is_kept_to_the_last_sample():
    samples = _sound(("speech", 3.3333))
    ((start, end),) = [(clip.start, clip.end) for clip in _cut(samples)]
    assert (start, end) == (0, len(samples))


def test_a_long_pause_divides_even_short_clips():
    clips = _times(_cut(_sound(("speech", 2), ("silence", 4), ("speech", 2))))
    assert [round(end - start) for start, end in clips] == [2, 2]


def test_a_short_pause_does_not_divide_what_fits_in_one_clip():
    assert len(_cut(_sound(("speech", 8), ("silence", 1.2), ("speech", 8), ("silence", 1.2), ("speech", 8)))) == 1


def test_of_equal_pauses_the_one_near_20_seconds_is_taken():
    clips = _times(_cut(_sound(*[("speech", 5.5), ("silence", 0.5)] * 10)))
    assert clips[0][1] == pytest.approx(17.75, abs=0.2)


def test_a_real_pause_early_is_better_than_a_breath_near_20_seconds():
    clips = _times(_cut(_sound(("speech", 14), ("silence", 1.5), ("speech", 4.5), ("silence", 0.35), ("speech", 20))))
    assert clips[0][1] == pytest.approx(14 + PADDING, abs=0.1)


def test_a_pause_before_five_seconds_is_taken_only_for_want_of_another():
    later = _times(_cut(_sound(("speech", 3), ("silence", 1.5), ("speech", 3), ("silence", 0.35), ("speech", 25))))
    assert later[0][1] == pytest.approx(7.7, abs=0.1)
    alone = _times(_cut(_sound(("speech", 3), ("silence", 1.5), ("speech", 26))))
    assert [round(end - start) for start, end in alone] == [3, 26]


def test_without_a_pause_the_cut_is_where_it_is_quietest_and_loses_nothing():
    clips = _times(_cut(_sound(("speech", 21), ("murmur", 0.2), ("speech", 20))))
    assert clips[0][1] == pytest.approx(21.1, abs=0.06)
    assert clips[1] == (clips[0][1], pytest.approx(41.2))


def test_a_word_left_over_by_a_cut_is_kept_however_short():
    samples = _sound(("speech", 27.9), ("silence", 0.0), ("speech", 0.2), ("silence", 4))
    clips = _cut(samples)
    assert clips[-1].end >= 28.1 * SAMPLE_RATE


def test_no_more_than_one_clip_of_sound_is_held():
    segmenter = Segmenter(FILE, _is_loud)
    block = _sound(("speech", 1.0))
    for heard in range(1, 120):
        segmenter.push(block)
        assert heard * SAMPLE_RATE - segmenter.settled <= LONGEST + WINDOW


def test_settled_never_runs_ahead_of_a_clip_still_to_come():
    samples = _sound(("silence", 4), ("speech", 3), ("silence", 4), ("speech", 33), ("silence", 4))
    segmenter = Segmenter(FILE, _is_loud)
    collector = ClipCollector()
    settled = 0
    for at in range(0, len(samples), 1000):
        clips = collector.add(segmenter.push(samples[at : at + 1000]))
        assert all(clip.start >= settled for clip in clips)
        assert segmenter.settled >= settled
        settled = segmenter.settled
    assert settled > 40 * SAMPLE_RATE


@given(runs, st.sampled_from([0.1, 0.4, 1.0, 5.0]), st.sampled_from([1.0, 3.0, 12.0]))
@settings(max_examples=20)
def test_other_pauses_and_lengths_lose_nothing_either(runs, silence, longest):
    samples = _sound(*runs)
    clips = list(cut([samples], replace(FILE, silence=silence, longest=longest), _is_loud))
    assert all(before.end <= after.start for before, after in itertools.pairwise(clips))
    for clip in clips:
        assert clip.end - clip.start <= longest * SAMPLE_RATE + WINDOW
        np.testing.assert_array_equal(clip.samples, samples[clip.start : clip.end])
    for at in _loud_windows(samples):
        assert any(clip.start <= at < clip.end for clip in clips)


@pytest.mark.parametrize("options", [{"threshold": 0}, {"silence": 0.01}, {"silence": 11}, {"longest": 29}])
def test_settings_out_of_their_range_are_refused(options):
    with pytest.raises(ValueError, match=r"probability|silence|utterance"):
        replace(FILE, **options)


@pytest.mark.parametrize("pause", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("block", [512, 700, 16_000])
def test_no_clip_goes_from_one_recording_into_the_next(pause: float, block: int) -> None:
    samples = _sound(("silence", 1), ("speech", 3), ("silence", pause), ("speech", 3), ("silence", 1))
    joint = round((4 + pause) * SAMPLE_RATE)
    segmenter, collector = Segmenter(FILE, _is_loud), ClipCollector()
    clips = []
    for at in range(0, len(samples), block):
        if at <= joint < at + block:
            segmenter.join(joint)
        clips += collector.add(segmenter.push(samples[at : at + block]))
    first, second = clips + collector.add(segmenter.finish())
    assert first.end == pytest.approx(min(joint, (4 + PADDING) * SAMPLE_RATE), abs=WINDOW)
    assert joint - PADDING * SAMPLE_RATE - WINDOW <= second.start <= joint + WINDOW
    assert first.end <= second.start


def test_where_recordings_are_joined_in_silence_is_of_no_account() -> None:
    samples = _sound(("speech", 1), ("silence", 6), ("speech", 1), ("silence", 1))
    segmenter = Segmenter(FILE, _is_loud)
    for second in (0, 3, 3.5, 5):
        segmenter.join(round(second * SAMPLE_RATE))
    assert _times(ClipCollector().add(segmenter.push(samples) + segmenter.finish())) == _times(_cut(samples))
