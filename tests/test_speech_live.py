"""`LiveTranscriber`: which events come, when, and with what times.

The model is small and its weights are random; some of the ids it likes end an answer, so that answers are short and end
by themselves. The detector is the tests' own (loud is speech) except where it is the question.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gemma4_mlx as g4
from checkpoints import build_checkpoint
from gemma4_mlx.processing.audio import stream_audio
from gemma4_mlx.speech.live import Event, LiveTranscriber
from gemma4_mlx.speech.prompts import is_suspect

SPEECH = Path(__file__).parent / "tiny" / "speech.flac"
RATE = 16_000


def is_loud(window: np.ndarray) -> float:
    return 1.0 if np.abs(window).mean() > 0.05 else 0.0


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("e2b")
    build_checkpoint(folder, "e2b")
    model, processor = g4.load(folder)
    processor.generation_config["eos_token_id"] = [188, 242, 432, 433, 455]
    return model, processor


def noise(seconds: float, level: float = 0.2, seed: int = 0) -> np.ndarray:
    """What the tests' detector takes for speech."""
    return (np.random.default_rng(seed).normal(size=round(seconds * RATE)) * level).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def listen(live: LiveTranscriber, samples: np.ndarray, block: int = 1_600) -> list[tuple[float, Event]]:
    """Events, each with the second of sound at which it came."""
    events: list[tuple[float, Event]] = []
    for at in range(0, len(samples), block):
        new = live.feed(samples[at : at + block])
        events += [(min(at + block, len(samples)) / RATE, event) for event in new]
    return events + [(len(samples) / RATE, event) for event in live.finish()]


def live(loaded, **options) -> LiveTranscriber:
    return LiveTranscriber(*loaded, **{"voice": is_loud, **options})


TWO = np.concatenate([silence(1), noise(3), silence(2), noise(4, seed=1), silence(2)])


def test_each_utterance_has_partials_and_then_one_final_with_its_times(loaded):
    events = listen(live(loaded), TWO)
    finals = [(at, event) for at, event in events if event.kind == "final"]
    for (at, event), (start, end) in zip(finals, [(1, 4), (6, 10)], strict=True):
        assert start - 0.55 < event.start < start
        assert end < event.end < end + 0.45
        assert end + 0.69 <= at <= end + 0.85, "a final comes with the call that completes the silence"
    partials = [event for _, event in events if event.kind == "partial"]
    for event in partials:
        assert any(final.start == event.start and event.end <= final.end for _, final in finals)
        assert event.text.startswith(event.certain)
        assert event.translation is None
    assert len(partials) >= 4


def test_finals_are_what_the_whole_clip_would_be_asked_for_at_once(loaded):
    model, processor = loaded
    for partial_every in (None, 0.5):
        for _, event in listen(live(loaded, partial_every=partial_every, language="English"), TWO):
            if event.kind == "final" and not event.doubtful:
                clip = TWO[round(event.start * RATE) : round(event.end * RATE)]
                content = [
                    {"type": "text", "text": g4.speech.prompts.speech_prompt("English")},
                    {"type": "audio", "audio": clip},
                ]
                whole = g4.generate(model, processor, [{"role": "user", "content": content}], temperature=0.0)
                text, _ = g4.speech.prompts.read_answer(whole.text)
                assert event.text == text or is_suspect(whole.text)


def test_without_partials_there_are_finals_only(loaded):
    kinds = [event.kind for _, event in listen(live(loaded, partial_every=None), TWO)]
    assert kinds == ["final", "final"]


@given(st.lists(st.integers(100, 40_000), min_size=1, max_size=6))
@settings(max_examples=3)
def test_finals_do_not_depend_on_how_the_sound_is_cut_into_calls(loaded, blocks):
    expected = [event for _, event in listen(live(loaded, partial_every=None), TWO)]
    session = live(loaded)
    events, at = [], 0
    for block in itertools.cycle(blocks):
        if at >= len(TWO):
            break
        events += session.feed(TWO[at : at + block])
        at += block
    events += session.finish()
    assert [event for event in events if event.kind == "final"] == expected


def test_long_speech_is_cut_without_a_gap(loaded):
    sound = np.concatenate([noise(9.0), noise(0.2, level=0.06), noise(7.0, seed=2), silence(1)])
    finals = [event for _, event in listen(live(loaded, partial_every=None, max_utterance=12.0), sound)]
    assert len(finals) == 2
    assert finals[0].end == finals[1].start
    assert 9.0 <= finals[0].end <= 9.2
    assert finals[1].end == pytest.approx(16.6, abs=0.1)


def test_finish_ends_what_is_being_said_and_times_go_on_after_it(loaded):
    session = live(loaded, partial_every=None)
    session.feed(noise(2))
    assert session.speaking
    (first,) = session.finish()
    assert not session.speaking
    assert (first.start, first.end) == (0, pytest.approx(2.0, abs=0.04))
    assert session.finish() == []
    session.feed(silence(1))
    session.feed(noise(2, seed=1))
    (second,) = session.finish()
    assert 2.4 < second.start < 3.0
    assert session.seconds == 5.0


def test_after_finish_what_is_said_is_read_to_the_last_sample(loaded):
    # 1,300 samples are two windows and a rest, which the detector gets filled up with silence.
    session = live(loaded, partial_every=None, language="English")
    session.feed(noise(2)[:31_300])
    session.finish()
    second = np.concatenate([noise(3, seed=1), silence(2)])
    fresh = live(loaded, partial_every=None, language="English")
    (expected,), (event,) = ([event for _, event in listen(one, second)] for one in (fresh, session))
    assert event.text == expected.text
    assert event.start == pytest.approx(expected.start + 31_300 / RATE)
    assert event.end == pytest.approx(expected.end + 31_300 / RATE)


@pytest.mark.parametrize(
    ("kind", "scale", "middle"), [(np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.uint8, 128, 128)]
)
def test_samples_of_any_usual_kind_are_heard(loaded, kind, scale, middle):
    sound = np.clip(TWO, -0.99, 0.99).astype(np.float64)
    events = listen(live(loaded, partial_every=None), (sound * scale + middle).astype(kind))
    expected = listen(live(loaded, partial_every=None), sound)
    assert [(event.kind, event.start, event.end) for _, event in events] == [
        (event.kind, event.start, event.end) for _, event in expected
    ]
    assert len(events) == 2


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
def test_another_rate_gives_the_same_times(loaded, rate):
    sound = (
        np.repeat(TWO, 3)[:: 48_000 // rate]
        if 48_000 % rate == 0
        else np.interp(np.arange(0, len(TWO), RATE / rate), np.arange(len(TWO)), TWO)
    )
    session = live(loaded, partial_every=None, rate=rate)
    finals = [event for at in range(0, len(sound), 4_000) for event in session.feed(sound[at : at + 4_000])]
    finals += session.finish()
    expected = [event for _, event in listen(live(loaded, partial_every=None), TWO)]
    assert [event.start for event in finals] == pytest.approx([event.start for event in expected], abs=0.07)
    assert [event.end for event in finals] == pytest.approx([event.end for event in expected], abs=0.07)
    assert session.seconds == pytest.approx(len(TWO) / RATE, abs=0.001)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), "16k", None])
def test_what_is_no_rate_is_refused(loaded, rate):
    with pytest.raises(g4.InputError, match="rate"):
        live(loaded, rate=rate)


@pytest.mark.parametrize(
    ("samples", "why"), [(np.zeros((16, 2), np.float32), "mix"), (np.zeros(4, np.int64), "int64"), (["a"], "float")]
)
def test_what_cannot_be_taken_is_refused_by_name(loaded, samples, why):
    with pytest.raises(ValueError, match=why):
        live(loaded).feed(samples)


def test_a_partial_gives_way_to_waiting_sound_and_finals_do_not(loaded):
    waiting = 0.0
    session = live(loaded, backlog=lambda: waiting)
    waiting = 1.0
    assert [event.kind for _, event in listen(session, TWO)] == ["final", "final"]


def test_an_interrupted_partial_goes_on_where_it_stopped(loaded):
    calls = itertools.count()
    # Every fourth question is answered "sound is waiting": in the middle of most partials.
    session = live(loaded, backlog=lambda: float(next(calls) % 4 == 3))
    events = listen(session, TWO)
    assert any(event.kind == "partial" for _, event in events)
    plain = [event for _, event in listen(live(loaded, partial_every=None), TWO)]
    assert [event for _, event in events if event.kind == "final"] == plain


def test_a_translation_is_told_apart_and_never_missing(loaded):
    for _, event in listen(live(loaded, language="en", translate_to="fr"), TWO):
        assert event.translation is not None


def test_a_click_is_no_event_and_a_minute_of_silence_or_noise_neither(loaded):
    assert listen(live(loaded), np.concatenate([silence(1), noise(0.1), silence(2)])) == []
    for level in (0.0, 0.05):
        session = LiveTranscriber(*loaded)  # with the real detector
        assert listen(session, noise(60, level=level), block=RATE) == []


def test_a_real_voice_is_heard_by_the_real_detector(loaded):
    samples = np.concatenate([silence(1), *stream_audio(SPEECH), silence(2)])
    finals = [event for _, event in listen(LiveTranscriber(*loaded, partial_every=None), samples)]
    assert finals
    assert 0.5 < finals[0].start < 2.0
    assert finals[-1].end < len(samples) / RATE - 1


@pytest.mark.parametrize("samples", [np.zeros((2, 10)), [float("nan")], [float("-inf")]])
def test_what_is_not_one_channel_of_numbers_is_refused(loaded, samples):
    with pytest.raises(ValueError, match="samples"):
        live(loaded).feed(samples)


@pytest.mark.parametrize(
    "options",
    [{"language": ""}, {"partial_every": 0.0}, {"threshold": 2.0}, {"silence": -1.0}, {"max_utterance": 31.0}],
)
def test_settings_that_make_no_sense_are_refused(loaded, options):
    with pytest.raises(ValueError, match=r"not|above"):
        live(loaded, **options)


def test_a_model_that_takes_no_sound_is_refused(tmp_path):
    build_checkpoint(tmp_path, "dense")
    with pytest.raises(g4.InputError, match="does not hear"):
        g4.LiveTranscriber(*g4.load(tmp_path))


@pytest.mark.parametrize(
    ("answer", "translate_to", "suspect"),
    [
        ("Ask not what your country can do for you.", None, False),
        ("Hello.\nFrench: Bonjour.", "French", False),
        ("Hello.\n\nFrench: Bonjour.", "French", False),
        ("Hello.\nFrench: Bonjour.\nDo you need anything else?", "French", True),
        ("The speaker says:\nHello.", None, True),
        ("**Answer:** Paris", None, True),
        ("- one thing", None, True),
        ("<|channel>thought\nhm<channel|>Hello.", None, True),
        ("Minus 3 - or 4 - degrees, #1", None, False),
    ],
)
def test_an_answer_to_the_speech_looks_different_from_its_words(answer, translate_to, suspect):
    assert is_suspect(answer, translate_to) is suspect


@pytest.mark.parametrize("questions", [0, 5, 60, 130, 200, 400])
def test_once_stopped_nothing_more_is_written_down(loaded, questions):
    everything = listen(live(loaded), TWO)
    asked = itertools.count()
    stopped = listen(live(loaded, should_stop=lambda: next(asked) >= questions), TWO)
    assert stopped == everything[: len(stopped)]
    assert len(stopped) < len(everything)
