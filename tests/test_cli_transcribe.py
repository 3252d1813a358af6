"""`gemma4-mlx transcribe` through the real command, on a real voice and a small model whose weights are random."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import time
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from gemma4_mlx.app.speech.file_progress import FileProgress
from gemma4_mlx.app.speech.transcribe_files import as_json, as_text
from gemma4_mlx.app.speech.unfinished_transcript import UnfinishedTranscript
from gemma4_mlx.app.whole_file import write_whole

from command_line import checkpoint, only_line, picture, run, start
from demo_inputs import RECORDINGS
from gemma4_mlx.processing.audio import load_audio
from gemma4_mlx.shown import clock
from gemma4_mlx.speech import Segment, Transcription
from media_files import Track, broken, file_of

SPEECH = Path(__file__).parent / "tiny" / "speech.flac"
RESULT = Transcription(
    "Hallo. Ja.", (Segment(0.5, 1.25, "Hallo.", None), Segment(2.0, 3.0, "Ja.", None)), "de", 3.5, None
)


def transcribe(*arguments, variant="e2b", **options):
    finished = run("transcribe", *arguments, model=checkpoint(variant), **options)
    # A random model makes up all it writes, and the command notices.
    lines = finished.stderr.splitlines(keepends=True)
    finished.stderr = "".join(line for line in lines if "may have made up" not in line)
    return finished


def test_json_has_the_fields_of_the_contract():
    assert json.loads(only_line(as_json("memo.m4a", RESULT))) == {
        "file": "memo.m4a",
        "language": "de",
        "duration": 3.5,
        "text": "Hallo. Ja.",
        "translation": None,
        "segments": [
            {"start": 0.5, "end": 1.25, "text": "Hallo.", "translation": None},
            {"start": 2.0, "end": 3.0, "text": "Ja.", "translation": None},
        ],
    }


def test_text_is_one_line_and_a_translation_another():
    assert as_text(RESULT) == "Hallo. Ja.\n"
    assert as_text(Transcription("Hallo.", (), "de", 1.0, "Hello.")) == "Hallo.\nHello.\n"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (754, "12:34"), (3723, "1:02:03")])
def test_times_are_written_as_clocks_show_them(seconds, text):
    assert clock(seconds) == text


def test_a_recording_becomes_one_json_object_alone_on_stdout():
    finished = transcribe(SPEECH, "--format", "json", "--language", "English")
    result = json.loads(only_line(finished.stdout))
    assert result["file"] == str(SPEECH)
    assert result["language"] == "English"
    assert result["translation"] is None
    assert all(0 <= segment["start"] < segment["end"] <= result["duration"] for segment in result["segments"])
    assert result["segments"]
    assert finished.stderr == ""
    assert finished.returncode == 0


def test_several_files_come_in_order_and_a_bad_one_does_not_stop_the_others(tmp_path):
    second = tmp_path / "second.flac"
    shutil.copy(SPEECH, second)
    (tmp_path / "words.wav").write_text("just words")
    finished = transcribe(SPEECH, tmp_path / "words.wav", "none.wav", second, "--format", "json")
    assert finished.returncode == 1
    assert [json.loads(line)["file"] for line in finished.stdout.splitlines()] == [str(SPEECH), str(second)]
    assert len(finished.stderr.splitlines()) == 2
    assert "none.wav" in finished.stderr
    assert "words.wav" in finished.stderr


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles_of_several_files_do_not_go_into_one_stream(format):
    finished = run("transcribe", SPEECH, SPEECH, "--format", format, "--model", "no model")
    assert finished.returncode == 2
    assert "--output-dir" in finished.stderr


@pytest.mark.parametrize("format", ["text", "jsonl"])
def test_of_several_files_on_stdout_every_line_says_whose_it_is(tmp_path, format):
    recordings = [recording.path for recording in RECORDINGS[:2]]
    finished = run("transcribe", *recordings, "--format", format, "--language", "English", model=Path("demo"))
    if format == "text":
        said = [f"{recording.path}: {recording.transcript}" for recording in RECORDINGS[:2]]
        assert finished.stdout.splitlines() == said
    else:
        assert [json.loads(line)["file"] for line in finished.stdout.splitlines()] == [*map(str, recordings)]


def test_nothing_is_loaded_when_no_file_is_there():
    finished = run("transcribe", "none.wav", "--model", "no model")
    assert finished.returncode == 1
    assert "none.wav does not exist" in only_line(finished.stderr)


def test_output_dir_gets_one_file_each_and_stdout_nothing(tmp_path):
    folder = tmp_path / "new" / "folder"
    finished = transcribe(SPEECH, "--output-dir", folder)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    assert [path.name for path in folder.iterdir()] == ["speech.txt"]
    assert (folder / "speech.txt").read_text().strip()


def test_two_results_of_the_same_name_are_refused_before_any_work(tmp_path):
    finished = run("transcribe", "a/memo.wav", "b/memo.m4a", "--output-dir", tmp_path / "out", "--model", "no model")
    assert finished.returncode == 2
    assert "memo.txt" in finished.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_in_the_way_of_a_result_is_known_before_any_work(tmp_path):
    in_the_way = tmp_path / "speech.txt"
    in_the_way.mkdir()
    finished = run("transcribe", SPEECH, "--output-dir", tmp_path, "--overwrite", "--model", "no model")
    assert finished.returncode == 1
    assert "speech.txt is a folder" in only_line(finished.stderr)
    assert list(tmp_path.iterdir()) == [in_the_way]


def test_a_result_replaces_nothing_but_with_overwrite(tmp_path):
    memo = tmp_path / "speech.txt"
    memo.write_text("written by hand\n")
    (tmp_path / "second.flac").write_bytes(SPEECH.read_bytes())
    finished = transcribe(SPEECH, tmp_path / "second.flac", "--output-dir", tmp_path)
    assert finished.returncode == 1
    assert only_line(finished.stderr) == f"error: {memo} is there already: --overwrite replaces it"
    assert memo.read_text() == "written by hand\n"
    assert (tmp_path / "second.txt").exists()  # the others are done
    assert transcribe(SPEECH, "--output-dir", tmp_path, "--overwrite").returncode == 0
    assert memo.read_text() != "written by hand\n"


def test_a_recording_is_never_replaced_by_its_transcript(tmp_path):
    recording = tmp_path / "talk.txt"
    recording.write_bytes(SPEECH.read_bytes())
    finished = run("transcribe", recording, "--output-dir", tmp_path, "--overwrite", "--model", "no model")
    assert "is the recording itself" in only_line(finished.stderr)
    assert recording.read_bytes() == SPEECH.read_bytes()


@pytest.mark.parametrize("touched", [False, True])
def test_what_ctrl_c_left_is_gone_on_with_unless_somebody_changed_it(tmp_path, touched):
    target = tmp_path / "speech.txt"
    about = {"file": str(SPEECH.resolve()), "size": SPEECH.stat().st_size, "changed": SPEECH.stat().st_mtime_ns}
    settings = {"settings": [None, None, 0.5, 2.0, 28.0, None, None, str(checkpoint())]}
    earlier = UnfinishedTranscript(target, {**about, **settings})
    earlier.segments()
    earlier.add(Segment(0.0, 0.5, "Heard before.", None))
    target.write_text("Heard before, and put right.\n" if touched else "Heard before.\n")
    finished = transcribe(SPEECH, "--output-dir", tmp_path)
    assert finished.returncode == touched
    assert ("is there already" if touched else "going on at 0:00") in only_line(finished.stderr)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "memo.txt"
    target.write_text("old")
    (tmp_path / "elsewhere").write_text("not mine")
    (tmp_path / f".memo.txt.{os.getpid()}").symlink_to(tmp_path / "elsewhere")  # a name that could be guessed
    with pytest.raises(AttributeError):
        write_whole(target, 3)
    assert target.read_text() == "old"
    write_whole(target, "new")
    assert target.read_text() == "new"
    assert (tmp_path / "elsewhere").read_text() == "not mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_what_was_heard_before_the_damage_is_kept(tmp_path):
    damaged = tmp_path / "damaged.flac"
    content = SPEECH.read_bytes()
    half = len(content) // 2
    damaged.write_bytes(content[:half] + bytes(len(content) - half))
    finished = transcribe(damaged, "--format", "json")
    assert finished.returncode == 1
    assert json.loads(only_line(finished.stdout))["duration"] > 0
    assert "damaged.flac" in only_line(finished.stderr)


def test_subtitles_and_lines_of_json_are_written_as_well(tmp_path):
    for format in ("srt", "vtt", "jsonl"):
        assert transcribe(SPEECH, "--format", format, "--output-dir", tmp_path).returncode == 0
    assert " --> " in (tmp_path / "speech.srt").read_text().splitlines()[1]
    assert (tmp_path / "speech.vtt").read_text().startswith("WEBVTT\n\n00:")
    events = [json.loads(line) for line in (tmp_path / "speech.jsonl").read_text().splitlines()]
    assert all(list(event) == ["kind", "start", "end", "text", "translation"] for event in events)
    assert events


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    target = tmp_path / "speech.json"
    about = {"file": str(SPEECH.resolve()), "size": SPEECH.stat().st_size, "changed": SPEECH.stat().st_mtime_ns}
    settings = {"settings": [None, None, 0.5, 2.0, 28.0, None, None, str(checkpoint())]}
    earlier = UnfinishedTranscript(target, {**about, **settings})
    earlier.segments()
    earlier.add(Segment(0.0, 0.5, "Heard before.", None))
    finished = transcribe(SPEECH, "--format", "json", "--output-dir", tmp_path)
    assert finished.returncode == 0
    assert "going on at 0:00" in only_line(finished.stderr)
    first, second, *_ = json.loads(target.read_text())["segments"]
    assert first["text"] == "Heard before."
    assert second["start"] >= 0.5
    assert list(tmp_path.iterdir()) == [target]


def test_what_another_recording_or_half_a_crash_left_is_not_gone_on_with(tmp_path):
    segments = [Segment(0.0, 1.0, "one", None), Segment(1.0, 2.0, "two", None, doubtful=True)]
    mine = UnfinishedTranscript(tmp_path / "a.txt", {"file": "a"})
    assert mine.segments() == []
    for segment in segments:
        mine.add(segment)
    assert UnfinishedTranscript(tmp_path / "a.txt", {"file": "a"}).segments() == segments
    (left,) = tmp_path.iterdir()
    left.write_text(left.read_text()[:-10])
    assert UnfinishedTranscript(tmp_path / "a.txt", {"file": "a"}).segments() == segments[:1]
    assert UnfinishedTranscript(tmp_path / "a.txt", {"file": "b"}).segments() == []
    left.write_text("nonsense\n")
    assert UnfinishedTranscript(tmp_path / "a.txt", {"file": "b"}).segments() == []
    mine.forget()
    assert list(tmp_path.iterdir()) == []


def test_a_link_planted_where_an_unfinished_transcript_goes_is_never_written_through(tmp_path):
    precious = tmp_path / "zshrc"
    precious.write_text("mine\n")
    planted = tmp_path / ".a.txt.unfinished"
    for before_the_first_segment in (True, False):
        planted.unlink(missing_ok=True)
        unfinished = UnfinishedTranscript(tmp_path / "a.txt", {"file": "a"})
        unfinished.segments()
        if before_the_first_segment:
            planted.symlink_to(precious)
            unfinished.add(Segment(0.0, 1.0, "one", None))
        else:
            unfinished.add(Segment(0.0, 1.0, "one", None))
            planted.unlink()
            planted.symlink_to(precious)
            with pytest.raises(OSError, match=r"\.a\.txt\.unfinished"):
                unfinished.add(Segment(1.0, 2.0, "two", None))
        assert precious.read_text() == "mine\n"


def test_silence_is_no_text_and_says_so(tmp_path):
    import wave

    silence = tmp_path / "silence.wav"
    with wave.open(str(silence), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16_000))
    finished = transcribe(silence)
    assert (finished.returncode, finished.stdout) == (0, "\n")
    assert "no speech" in only_line(finished.stderr)


def test_a_file_that_is_cut_off_is_told_and_its_text_kept(tmp_path):
    voice = np.concatenate([load_audio(recording.path) for recording in RECORDINGS])
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray((voice * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = 16_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for file, words in ((whole, None), (cut, "cut off")):
        finished = run("transcribe", file, "--language", "English", "--silence", "0.3", model=Path("demo"))
        assert finished.returncode == 0
        assert finished.stdout.strip()
        notes = [line for line in finished.stderr.splitlines() if "it holds" in line]
        assert words in only_line("\n".join(notes)) if words else not notes


def test_subtitles_keep_the_film_s_clock_and_what_is_broken_is_one_note(tmp_path):
    voice = load_audio(RECORDINGS[0].path)
    hole = np.zeros(2 * 16_000, np.float32)
    sound = np.concatenate([voice, hole, voice])
    late = 5.0
    # After the first sentence the recorder saved nothing for ten seconds.
    begun = len(voice) / 16_000 + 1
    track = Track(sound, 16_000, "aac", late=late, moved=lambda second: second + 10 * (second > begun))
    (tmp_path / "film.mp4").write_bytes(file_of("mp4", track, video_seconds=1))
    finished = run("transcribe", tmp_path / "film.mp4", "--format", "json", model=Path("demo"))
    assert (finished.returncode, finished.stderr) == (0, "")
    spoken = json.loads(finished.stdout)
    assert spoken["text"] == f"{RECORDINGS[0].transcript} {RECORDINGS[0].transcript}"
    first, second = spoken["segments"]
    assert late - 0.45 <= first["start"] <= late + 0.3
    again = late + 10 + len(voice) / 16_000 + 2
    assert again - 0.45 <= second["start"] <= again + 0.3
    assert spoken["duration"] == pytest.approx(again + len(voice) / 16_000, abs=0.2)

    content = file_of("mp4", Track(np.concatenate([voice, hole]), 16_000, "aac"))
    (tmp_path / "broken.mp4").write_bytes(broken(content, len(voice) / 16_000 + 0.5, len(voice) / 16_000 + 0.7))
    finished = run("transcribe", tmp_path / "broken.mp4", model=Path("demo"))
    assert (finished.returncode, finished.stdout) == (0, f"{RECORDINGS[0].transcript}\n")
    assert "broken.mp4 is damaged: 0." in only_line(finished.stderr)
    assert finished.stderr.startswith("note: ")


def test_pauses_and_lengths_cut_files_as_they_cut_live_sound(tmp_path):
    def segments(*options) -> list[dict]:
        finished = run("transcribe", RECORDINGS[0].path, "--format", "jsonl", *options, model=Path("demo"))
        assert finished.returncode == 0
        return [json.loads(line) for line in finished.stdout.splitlines()]

    (whole,) = segments()
    parts = segments("--max-utterance", "1", "--silence", "0.1")
    assert len(parts) > 1
    assert all(part["end"] - part["start"] <= 1.05 for part in parts)
    assert whole["end"] - whole["start"] > 1.05


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_shows_how_far_it_is_and_how_fast_and_is_gone_at_the_end(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    now = iter([0.0, 2.0, 2.0, 2.05, 4.0, 4.0]).__next__
    monkeypatch.setattr(sys, "stderr", Screen())
    with FileProgress("memo\x1b[2J.m4a", begun_at=10.0, now=now) as progress:
        progress.show(30.0, 60.0)
        progress.show(40.0, 60.0)  # too soon to be drawn
        progress.show(50.0, None)
    drawn = sys.stderr.getvalue()
    assert "memo[2J.m4a" in drawn
    assert "━" in drawn
    assert "0:30 of 1:00, 10.0 × real time" in drawn
    assert "0:40" not in drawn
    assert "0:50, 10.0 × real time" in drawn
    assert drawn.rstrip().endswith("\x1b[2K")


@pytest.mark.parametrize("stream", [io.StringIO, Screen])
def test_there_is_no_bar_where_it_cannot_be_drawn(stream, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", stream())
    with FileProgress("memo.m4a", begun_at=0.0) as progress:
        progress.show(30.0, 60.0)
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("file", [SPEECH, "picture"])
def test_a_model_without_ears_or_a_file_without_sound_is_one_line(file):
    path = picture() if file == "picture" else file
    finished = transcribe(path, variant="e2b" if file == "picture" else "dense")
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert only_line(finished.stderr).startswith("error: ")


@pytest.mark.parametrize("limit", [0, 100, 300])
def test_a_full_disk_leaves_nothing_behind_and_the_text_on_stdout(tmp_path, limit):
    finished = transcribe(SPEECH, "--format", "json", "--output-dir", tmp_path, largest_file=limit)
    assert finished.returncode == 1
    assert json.loads(only_line(finished.stdout))["segments"]
    *_, last = finished.stderr.splitlines()
    assert f"{tmp_path}/speech.json: File too large" in last
    assert "make room" in last
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_kept_is_given_up_and_the_recording_goes_on(tmp_path):
    unfinished = UnfinishedTranscript(tmp_path / "gone" / "a.txt", {"file": "a"})
    assert unfinished.segments() == []
    with pytest.raises(FileNotFoundError):
        unfinished.add(Segment(0.0, 1.0, "one", None))
    unfinished.add(Segment(1.0, 2.0, "two", None))
    unfinished.forget()


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3, 0.6, 1.0])
def test_ctrl_c_anywhere_in_a_recording_keeps_whole_segments_and_the_next_run_goes_on(tmp_path, seconds):
    long = tmp_path / "long.wav"
    write_wav(long, [load_audio(recording.path) for recording in RECORDINGS[:6]])
    whole = json.loads(transcribe_demo(long, "--format", "json"))["segments"]
    assert len(whole) == 6
    arguments = ("transcribe", long, "--silence", "0.5", "--format", "json", "--output-dir", tmp_path)
    process = start(*arguments, model="demo")
    while not any(file.name.startswith(".") for file in tmp_path.iterdir()) and process.poll() is None:
        time.sleep(0.01)  # the first segment
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert b"Traceback" not in stderr
    kept = json.loads((tmp_path / "long.json").read_text())["segments"]
    assert kept == whole[: len(kept)]
    if process.returncode == 130 and len(kept) < 6:
        assert b"were transcribed" in stderr
        again = start(*arguments, model="demo")
        again.communicate(timeout=60)
        went_on = json.loads((tmp_path / "long.json").read_text())["segments"]
        assert [segment["text"] for segment in went_on] == [segment["text"] for segment in whole]
        # The detector of speech begins anew where the last segment ended: a window (32 ms) sooner or later.
        assert [segment["start"] for segment in went_on] == pytest.approx([s["start"] for s in whole], abs=0.1)


def transcribe_demo(file: Path, *options: str) -> str:
    finished = run("transcribe", file, "--silence", "0.5", *options, model="demo")
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def write_wav(path: Path, sounds: list[np.ndarray]) -> None:
    gap = np.zeros(16_000, np.float32)
    samples = np.concatenate([part for sound in sounds for part in (sound, gap)])
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
