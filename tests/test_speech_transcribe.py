"""Recordings to text: what each clip is asked, how the answers are put together, and what damage leaves behind.

Most tests bring their own detector (loud is speech) and their own answers, so that what should come out is known; the
last ones run a small random model on a real voice.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from checkpoints import build_checkpoint
from demo_inputs import RECORDINGS
from gemma4_mlx import load
from gemma4_mlx.errors import InputError, MediaWarning
from gemma4_mlx.processing.audio import load_audio
from gemma4_mlx.speech import Segment, TranscriptionError, segmenter, transcribe
from gemma4_mlx.speech.clip_transcriber import Answer
from gemma4_mlx.speech.prompts import read_answer, speech_prompt
from gemma4_mlx.speech.subtitles import to_srt, to_vtt
from media_files import Track, file_of

SPEECH = Path(__file__).parent / "tiny" / "speech.flac"
RATE = 16_000


@pytest.fixture
def answers(monkeypatch):
    """What is said in the clips, in order; `answers.clips` are those that were asked about, `answers.told` how.

    `answers.together` is how many were asked about at a time.
    """
    module = sys.modules["gemma4_mlx.speech.transcribe"]
    script = SimpleNamespace(texts=[], clips=[], told=None, together=[])

    class Scripted:
        def __init__(self, model, processor, language, translate_to, should_stop, words):
            script.told = speech_prompt(language, translate_to, words)
            self.translate_to = translate_to

        def new_clip(self):
            heard = []
            return SimpleNamespace(feed=heard.append, end=lambda length: np.concatenate(heard)[:length])

        def answer_all(self, clips):
            script.together.append(len(clips))
            for clip, seconds in clips:
                assert seconds == len(clip) / RATE
                script.clips.append(clip)
                text = script.texts[len(script.clips) - 1]
                yield Answer(*read_answer(text, self.translate_to), doubtful="?" in text)

    monkeypatch.setattr(module, "ClipTranscriber", Scripted)
    monkeypatch.setattr(segmenter, "silero", lambda: lambda window: float(np.abs(window).mean() > 0.1))
    return script


MODEL = SimpleNamespace(config=SimpleNamespace(audio=object()))


def _sound(*runs: tuple[float, float]) -> np.ndarray:
    """(level, seconds) runs."""
    return np.concatenate([np.full(round(seconds * RATE), level, np.float32) for level, seconds in runs])


THREE = _sound((0, 1), (0.5, 3), (0, 4), (0.5, 6), (0, 3), (0.5, 2))


def _flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return file.getvalue()


def test_each_stretch_of_speech_is_asked_about_once_and_silence_is_not(answers):
    answers.texts = ["one", "two?", "three"]
    result = transcribe(MODEL, None, THREE, language="English")
    assert answers.told.startswith("Transcribe the following speech segment in English into English text.")
    assert len(answers.clips) == 3
    for clip, segment in zip(answers.clips, result.segments, strict=True):
        assert np.abs(clip).max() == 0.5
        np.testing.assert_array_equal(clip, THREE[round(segment.start * RATE) : round(segment.end * RATE)])
    assert [segment.doubtful for segment in result.segments] == [False, True, False]


def test_an_interrupted_run_goes_on_behind_its_last_segment(answers):
    answers.texts = ["one", "two", "three"]
    whole = transcribe(MODEL, None, THREE)
    for done in (1, 2, 3):
        answers.clips.clear()
        answers.texts = ["one", "two", "three"][done:]
        assert transcribe(MODEL, None, THREE, after=whole.segments[:done]) == whole
        assert len(answers.clips) == 3 - done


def test_segments_carry_their_times_and_the_text_is_all_of_them(answers):
    answers.texts = [" Ask not\n", "what your country", "can do"]
    result = transcribe(MODEL, None, THREE)
    assert result.text == "Ask not what your country can do"
    assert result.translation is None
    assert result.language is None
    assert result.duration == 19
    spans = [(1, 4), (8, 14), (17, 19)]
    assert len(result.segments) == len(spans)
    for segment, (start, end) in zip(result.segments, spans, strict=True):
        assert start - 0.45 <= segment.start <= start
        assert end <= segment.end <= end + 0.45
    assert result.segments[-1].end == 19


def test_translations_are_told_apart_from_what_was_said(answers):
    answers.texts = ["Hello.\nFrench: Bonjour.", "no translation here", "Bye.\nFrench: Au revoir."]
    result = transcribe(MODEL, None, THREE, language="en", translate_to="fr")
    assert "in English, then translate it into French" in answers.told
    assert [segment.text for segment in result.segments] == ["Hello.", "no translation here", "Bye."]
    assert [segment.translation for segment in result.segments] == ["Bonjour.", "", "Au revoir."]
    assert result.translation == "Bonjour. Au revoir."
    assert result.language == "en"


def test_a_result_goes_into_json_as_it_is(answers):
    answers.texts = ["one", "two", "three"]
    written = json.loads(json.dumps(dataclasses.asdict(transcribe(MODEL, None, THREE, "English"))))
    assert list(written) == ["text", "segments", "language", "duration", "translation", "stopped"]
    assert list(written["segments"][0]) == ["start", "end", "text", "translation", "doubtful"]


def test_a_result_gives_its_own_subtitles(answers):
    answers.texts = ["one", "two", "three"]
    result = transcribe(MODEL, None, THREE)
    assert result.srt() == to_srt(result.segments)
    assert result.vtt() == to_vtt(result.segments)
    assert result.srt().startswith("1\n00:00:00,")


def test_clips_that_the_model_hears_nothing_in_leave_no_segment(answers):
    answers.texts = ["one", " \n", "three"]
    assert [segment.text for segment in transcribe(MODEL, None, THREE).segments] == ["one", "three"]


@pytest.mark.parametrize("source", [_sound((0, 40)), np.zeros(161, np.float32), (np.zeros(80_000), 44_100)])
def test_silence_is_not_put_to_the_model(source, answers):
    result = transcribe(MODEL, None, source)
    assert (result.text, result.segments, answers.clips) == ("", (), [])


def test_progress_tells_seconds_and_segments_in_order_and_ends_at_the_end(answers):
    answers.texts = ["one", "two", "three"]
    calls: list[tuple[float, float | None, Segment | None]] = []
    result = transcribe(MODEL, None, THREE, on_progress=lambda *call: calls.append(call))
    assert {total for _, total, _ in calls} == {19}
    assert all(before[0] <= after[0] for before, after in itertools.pairwise(calls))
    assert calls[-1] == (19, 19, None)
    assert tuple(segment for _, _, segment in calls if segment) == result.segments
    assert [done for done, _, segment in calls if segment] == [segment.end for segment in result.segments]


def test_segments_are_written_down_one_then_two_then_four_at_a_time_and_in_order(answers):
    answers.texts = list("abcdefghijklm")
    calls: list[tuple[float, float | None, Segment | None]] = []
    sound = _sound(*([(0.5, 3), (0, 4)] * 13))
    result = transcribe(MODEL, None, sound, on_progress=lambda *call: calls.append(call))
    assert answers.together == [1, 2, 4, 4, 2]
    assert result.text == "a b c d e f g h i j k l m"
    assert all(before[0] <= after[0] for before, after in itertools.pairwise(calls))
    # While segments wait, no more is said to be done than what stands before them.
    first, second = (next(i for i, call in enumerate(calls) if call[2] == result.segments[n]) for n in (0, 1))
    assert max(done for done, _, _ in calls[first:second]) <= result.segments[1].start


def test_an_interrupt_loses_only_the_segments_that_wait(answers):
    answers.texts = list("abcdefgh")
    sound = _sound(*([(0.5, 3), (0, 4)] * 8))
    told: list[Segment] = []
    blocks = itertools.count(1)

    def interrupted(seconds: float, total: float | None, segment: Segment | None) -> None:
        if segment is not None:
            told.append(segment)
        elif next(blocks) == 35:  # seconds: two more segments have been heard by now
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transcribe(MODEL, None, sound, on_progress=interrupted)
    assert [segment.text for segment in told] == ["a", "b", "c"]
    answers.clips.clear()
    answers.texts = list("defgh")
    assert transcribe(MODEL, None, sound, after=told).text == "a b c d e f g h"


@pytest.mark.parametrize("translate_to", [None, "French"])
def test_a_recording_is_written_down_as_it_is_one_segment_at_a_time(translate_to, monkeypatch):
    model, processor = load("demo")
    pause = np.zeros(round(2.5 * RATE), np.float32)
    sound = np.concatenate([part for recording in RECORDINGS for part in (load_audio(recording.path), pause)])
    together = transcribe(model, processor, sound, "English", translate_to)
    monkeypatch.setattr(sys.modules["gemma4_mlx.speech.transcribe"], "_TOGETHER", 1)
    assert together == transcribe(model, processor, sound, "English", translate_to)
    assert len(together.segments) == len(RECORDINGS)
    assert len({segment.text for segment in together.segments}) == len(RECORDINGS)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_times_are_seconds_whatever_the_rate(rate, answers):
    answers.texts = ["one"]
    samples = np.concatenate([np.zeros(3 * rate), np.full(2 * rate, 0.5), np.zeros(3 * rate)])
    (segment,) = transcribe(MODEL, None, (samples, rate)).segments
    assert segment.start == pytest.approx(2.6, abs=0.1)
    assert segment.end == pytest.approx(5.4, abs=0.1)


def test_a_file_says_how_long_it_is_and_gives_what_its_samples_give(answers, tmp_path):
    answers.texts = ["one", "two", "three"] * 3
    (tmp_path / "memo.flac").write_bytes(_flac(THREE))
    totals = set()
    from_path = transcribe(MODEL, None, tmp_path / "memo.flac", on_progress=lambda _, total, __: totals.add(total))
    from_bytes = transcribe(MODEL, None, (tmp_path / "memo.flac").read_bytes())
    assert totals == {19}
    assert from_path == from_bytes == transcribe(MODEL, None, THREE)


def test_damage_half_way_keeps_what_came_before_it(answers, tmp_path):
    answers.texts = ["one", "two", "three"]
    noise = 0.02 * np.random.default_rng(0).standard_normal(2 * len(THREE), np.float32)
    content = _flac(np.concatenate([THREE, THREE]) + noise)
    kept = len(content) * 6 // 10
    (tmp_path / "memo.flac").write_bytes(content[:kept] + b"\x00" * (len(content) - kept))
    with pytest.raises(
        TranscriptionError, match=r"memo\.flac is damaged .*\(the first 2\d\.\d s were transcribed\)"
    ) as caught:
        transcribe(MODEL, None, tmp_path / "memo.flac")
    assert "\n" not in str(caught.value)
    partial = caught.value.partial
    assert [segment.text for segment in partial.segments] == ["one", "two", "three"]
    assert partial.text == "one two three"
    assert 19 < partial.duration < 25


@pytest.mark.parametrize("content", [b"", b"not a sound at all", b"fLaC\x00\x00"])
def test_a_file_that_is_no_sound_is_refused_as_such(content, answers, tmp_path):
    (tmp_path / "memo.flac").write_bytes(content)
    with pytest.raises(InputError, match=r"memo\.flac") as caught:
        transcribe(MODEL, None, tmp_path / "memo.flac")
    assert not isinstance(caught.value, TranscriptionError)


@pytest.mark.parametrize("source", [np.zeros(0, np.float32), np.zeros(160, np.float32), (np.zeros(400), 44_100)])
def test_a_sound_too_short_for_one_token_is_refused(source, answers):
    with pytest.raises(InputError, match=r"the sound is too short .*\d+ samples"):
        transcribe(MODEL, None, source)


@pytest.mark.parametrize("source", [(THREE,), (THREE, "fast"), (THREE, 0), np.zeros((2, 2, 2), np.float32), ["a"]])
def test_what_is_no_sound_at_all_is_refused(source, answers):
    with pytest.raises(InputError, match="the sound"):
        transcribe(MODEL, None, source)


def test_a_missing_file_is_named(answers):
    with pytest.raises(InputError, match=r"no-such\.m4a"):
        transcribe(MODEL, None, "no-such.m4a")


def test_samples_that_are_not_numbers_are_refused(answers):
    with pytest.raises(InputError, match="NaN"):
        transcribe(MODEL, None, np.full(32_000, np.nan, np.float32))


@pytest.mark.parametrize(("language", "translate_to"), [("", None), ("en", " "), ("a\nb", None)])
def test_what_is_no_language_is_refused_before_the_source_is_opened(language, translate_to, answers):
    with pytest.raises(ValueError, match="not the name of a language"):
        transcribe(MODEL, None, "no-such.m4a", language, translate_to)


def test_a_model_that_does_not_hear_names_those_that_do():
    no_audio = SimpleNamespace(config=SimpleNamespace(audio=None))
    with pytest.raises(InputError, match="e2b, e4b or 12b"):
        transcribe(no_audio, None, THREE)


@pytest.fixture(scope="session")
def hearing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech-e2b")
    build_checkpoint(folder, "e2b")
    return load(folder)


def test_a_real_voice_goes_through_the_whole_model(hearing):
    model, processor = hearing
    calls = []
    result = transcribe(model, processor, SPEECH, "English", "French", on_progress=lambda *call: calls.append(call))
    assert calls[-1][0] == pytest.approx(result.duration)
    assert len(result.segments) == 1
    for segment in result.segments:
        assert 0 <= segment.start < segment.end <= result.duration
    json.dumps(dataclasses.asdict(result))


@pytest.mark.parametrize("level", [1.0, 0.05, 0.003])
def test_a_real_voice_is_found_at_any_level_and_silence_around_it_left_out(level):
    voice = load_audio(SPEECH)
    quiet = np.zeros(5 * RATE, np.float32)
    sound = level * np.concatenate([quiet, voice, quiet, voice, quiet])
    clips = list(segmenter.cut([sound]))
    first, second = 5 * RATE, 10 * RATE + len(voice)
    for start in (first, second):
        inside = [clip for clip in clips if start - RATE < clip.start and clip.end < start + len(voice) + RATE]
        assert sum(clip.end - clip.start for clip in inside) > 0.6 * len(voice)
    assert sum(clip.end - clip.start for clip in clips) < 2 * len(voice) + 2 * RATE


@pytest.mark.parametrize("level", [1e-4, 1e-2, 0.3])
def test_noise_and_hum_are_no_voice(level):
    time = np.arange(8 * RATE) / RATE
    noise = np.random.default_rng(0).standard_normal(len(time))
    hum = np.sin(2 * np.pi * 50 * time) + 0.3 * np.sin(2 * np.pi * 150 * time)
    for sound in (noise, hum, hum + 0.1 * noise):
        assert list(segmenter.cut([(level * sound).astype(np.float32)])) == []


@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("ogg", "flac"), ("mpegts", "aac")])
def test_of_two_files_joined_both_are_written_down(container, codec):
    model, processor = load("demo")
    recording = RECORDINGS[0]
    content = file_of(container, Track(load_audio(recording.path), RATE, codec))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MediaWarning)
        result = transcribe(model, processor, content * 2)
    assert result.text == f"{recording.transcript} {recording.transcript}"
    assert len(result.segments) == 2


@pytest.mark.parametrize("questions", range(0, 120, 13))
def test_a_stopped_transcription_is_what_came_until_then_and_can_be_gone_on_with(answers, questions):
    answers.texts = ["one", "two", "three"] * 2
    asked = itertools.count()
    first = transcribe(MODEL, None, THREE, should_stop=lambda: next(asked) >= questions)
    assert first.segments == transcribe_all(answers).segments[: len(first.segments)]
    assert first.stopped == (len(first.segments) < 3)
    if first.stopped:
        assert first.duration == (first.segments[-1].end if first.segments else 0.0)
    answers.clips.clear()
    answers.texts = ["one", "two", "three"][len(first.segments) :]
    assert transcribe(MODEL, None, THREE, after=first.segments).text == "one two three"


def transcribe_all(answers):
    answers.clips.clear()
    return transcribe(MODEL, None, THREE)
