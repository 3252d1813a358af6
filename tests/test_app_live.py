"""`transcribe --simulate`, `-` and `mic` through the real command, and the parts they are made of."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from gemma4_mlx.app.speech.live_screen import LiveScreen
from gemma4_mlx.app.speech.live_sound import OpenPipe, PlayedSound
from gemma4_mlx.app.speech.transcribe_live import LiveOptions, _transcribe
from gemma4_mlx.app.speech.transcript_formats import TranscriptWriter
from gemma4_mlx.app.terminal import shows_lines
from rich.console import Console

from command_line import COMMAND, checkpoint, environment, only_line, run, start
from demo_inputs import RECORDINGS
from gemma4_mlx.errors import HubError, InputError
from gemma4_mlx.processing.audio import load_audio
from gemma4_mlx.speech import Event
from tmux_terminal import TmuxTerminal
from virtual_microphone import IS_INSTALLED, virtual_microphone

SPEECH = Path(__file__).parent / "tiny" / "speech.flac"
# What the built-in model understands: a random one writes as long as it may.
DIGITS = RECORDINGS[0].path
DEMO = Path("demo")
RATE = 16_000


def final(text: str, start: float = 0.0, end: float = 1.0, translation: str | None = None, **more) -> Event:
    return Event("final", text, translation, start, end, certain=text, **more)


def partial(text: str, certain: str = "", translation: str | None = None) -> Event:
    return Event("partial", text, translation, 0.0, 0.5, certain=certain)


# Sound that comes by and by.


def test_a_file_is_played_at_its_speed_and_every_sample_once():
    blocks = [np.full(1_600, i, np.float32) for i in range(20)]
    began = time.monotonic()
    heard = []
    with PlayedSound(blocks, speed=10.0) as sound:
        while (samples := sound.read(0.05)) is not None:
            heard.append(samples)
    np.testing.assert_array_equal(np.concatenate(heard), np.concatenate(blocks))
    assert time.monotonic() - began > 0.19  # 2 s, ten times as fast
    assert len([samples for samples in heard if len(samples)]) > 3


def test_a_pipe_that_breaks_gives_all_that_came_before():
    def blocks():
        yield np.ones(800, np.float32)
        raise InputError("damaged")

    with PlayedSound(blocks(), speed=None) as sound:
        while not len(heard := sound.read(1.0)):
            pass
        assert len(heard) == 800
        with pytest.raises(InputError, match="damaged"):
            sound.read(5.0)


def test_a_pipe_that_says_nothing_keeps_nobody_waiting():
    silent = threading.Event()

    def blocks():
        silent.wait(10)
        yield np.ones(800, np.float32)

    with PlayedSound(blocks(), speed=None) as sound:
        assert len(sound.read(0.01)) == 0
        silent.set()
        while not len(samples := sound.read(1.0)):
            pass
        assert len(samples) == 800
        while (rest := sound.read(1.0)) is not None:
            assert len(rest) == 0


# What is written.

SAID = [
    partial("He"),
    final("Hello.", 0.5, 1.25, "Bonjour."),
    partial("x"),
    final("", 2, 3, ""),
    final("Bye.", 4, 5, ""),
]


def written(format: str, is_file: bool = False, translates: bool = True) -> str:
    stream = io.StringIO()
    writer = TranscriptWriter(stream, is_file, format, "mic", "English", translates)
    for event in SAID:
        writer.event(event)
    writer.close(6.0)
    return stream.getvalue()


def test_text_is_finals_with_their_translations_below():
    assert written("text") == "Hello.\nBonjour.\nBye.\n"


def test_jsonl_has_every_event_with_the_fields_of_the_contract():
    events = [json.loads(line) for line in written("jsonl").splitlines()]
    assert [event["kind"] for event in events] == ["partial", "final", "partial", "final", "final"]
    assert events[1] == {"kind": "final", "start": 0.5, "end": 1.25, "text": "Hello.", "translation": "Bonjour."}


@pytest.mark.parametrize("is_file", [True, False])
def test_json_is_one_object_however_often_it_was_written(is_file):
    assert json.loads(only_line(written("json", is_file))) == {
        "file": "mic",
        "language": "English",
        "duration": 6.0,
        "text": "Hello. Bye.",
        "translation": "Bonjour.",
        "segments": [
            {"start": 0.5, "end": 1.25, "text": "Hello.", "translation": "Bonjour."},
            {"start": 4, "end": 5, "text": "Bye.", "translation": ""},
        ],
    }


def test_subtitles_are_numbered_through():
    assert written("srt").split("\n\n")[1] == "2\n00:00:04,000 --> 00:00:05,000\nBye."
    assert written("vtt").startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.250\nHello.\nBonjour.\n\n")


def test_a_json_file_is_whole_after_every_final(tmp_path):
    path = tmp_path / "out.json"
    with path.open("w") as stream:
        writer = TranscriptWriter(stream, True, "json", "mic", None, False)
        for event in SAID:
            writer.event(event)
            if event.kind == "final":
                json.loads(only_line(path.read_text()))


# What is seen.


def screen(width: int = 80, height: int = 24) -> LiveScreen:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system="standard")
    return LiveScreen(console, "listening")


def drawn(screen: LiveScreen) -> list[str]:
    console = Console(file=io.StringIO(), width=screen._console.width, height=screen._console.height)
    console.print(screen.render())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 12), (20, 4)])
def test_a_long_partial_shows_its_end_and_never_fills_the_screen(width, height):
    shown = screen(width, height)
    shown.event(partial(" ".join(f"word{i}" for i in range(900)), translation="mot " * 3))
    shown.sound(np.zeros(160, np.float32), 65.0, True, ["the microphone delivers complete silence: is it muted?"])
    shown.event(partial(" ".join(f"word{i}" for i in range(900)), translation="mot " * 3))
    lines = drawn(shown)
    assert len(lines) < height
    assert all(len(line) <= width for line in lines)
    assert "speaking" in lines[-1]
    assert height < 12 or any("mot" in line for line in lines)


def test_the_level_rises_with_the_sound_and_falls_slowly():
    shown = screen()
    levels = []
    for peak in (0.0, 0.5, 0.0, 0.0, 0.0):
        shown.sound(np.full(4_000, peak, np.float32), 1.0, False, [])
        levels.append(drawn(shown)[-1].count("▮"))
    assert levels[0] == 0
    assert levels[1] > 9
    assert levels[1] > levels[2] > levels[3] > levels[4] > 0
    assert "listening" in drawn(shown)[-1]


def test_a_final_stands_above_with_its_time_and_takes_the_partial_away():
    shown = screen()
    with shown:
        shown.event(partial("Ask n", certain="Ask"))
        assert drawn(shown)[0] == "Ask n"
        shown.event(final("Ask\x1b[2J not.", 65.2, 67.0, "Ne demandez pas.", doubtful=True))
        assert len(drawn(shown)) == 1
    output = shown._console.file.getvalue()
    for text in ("1:05", "Ask[2J not.", "(?)", "Ne demandez pas."):
        assert text in output


def test_a_final_of_one_endless_word_loses_no_letter():
    shown = screen(width=40)
    with shown:
        shown.event(final("ab" * 100))
    assert shown._console.file.getvalue().count("ab") >= 95  # a pair may be cut by the end of a line
    assert "…" not in shown._console.file.getvalue()


def test_only_a_terminal_that_can_go_back_up_gets_a_screen(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert shows_lines(Terminal())
    assert not shows_lines(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not shows_lines(Terminal())


# The command.


def test_a_file_played_live_gives_events_with_times_and_keeps_its_sound(tmp_path):
    kept = tmp_path / "kept.wav"
    finished = run(
        *("transcribe", DIGITS, "--simulate", "--speed", "4", "--format", "jsonl", "--save-audio", kept),
        model=DEMO,
    )
    assert finished.returncode == 0
    events = [json.loads(line) for line in finished.stdout.splitlines()]
    assert {"kind", "start", "end", "text", "translation"} == set(events[0])
    finals = [event for event in events if event["kind"] == "final"]
    assert finals
    samples = load_audio(DIGITS)
    assert all(0 <= event["start"] < event["end"] <= len(samples) / RATE for event in finals)
    with wave.open(str(kept)) as file:
        assert (file.getframerate(), file.getnchannels()) == (RATE, 1)
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(heard, samples, atol=1e-3)


@pytest.mark.parametrize("raw", [True, False])
def test_a_pipe_is_written_down_as_text(raw):
    samples = (load_audio(SPEECH).clip(-1, 1) * 32767).astype("<i2")
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    finished = run(
        *("transcribe", "-", *(("--rate", "16000") if raw else ())),
        stdin=samples.tobytes() if raw else content.getvalue(),
        model=checkpoint(),
    )
    assert finished.returncode == 0
    assert finished.stdout.strip()


def test_a_pipe_that_is_no_sound_or_empty_is_one_line():
    for content in (b"just words", b""):
        finished = run("transcribe", "-", stdin=content, model=checkpoint())
        assert finished.returncode == 1
        assert finished.stdout == ""
        assert "error: standard input" in finished.stderr.splitlines()[-1]


def test_output_goes_to_its_file_and_duration_ends_the_listening(tmp_path):
    out = tmp_path / "out.json"
    finished = run(
        *("transcribe", SPEECH, "--simulate", "--speed", "20", "--duration", "2", "--format", "json", "--output", out),
        model=checkpoint(),
    )
    assert (finished.returncode, finished.stdout) == (0, "")
    assert json.loads(out.read_text())["duration"] == pytest.approx(2.0, abs=0.01)


def test_ctrl_c_ends_the_utterance_with_its_final(tmp_path):
    heard = tmp_path / "heard.wav"
    process = start(
        *("transcribe", DIGITS, "--simulate", "--speed", "0.5", "--format", "jsonl", "--silence", "10"),
        *("--save-audio", heard),
        model=DEMO,
    )
    first = process.stdout.readline()  # a partial: somebody is speaking
    assert json.loads(first)["kind"] == "partial"
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(rest.splitlines()[-1])["kind"] == "final"


def header_of_a_wav_without_end() -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
    endless = b"\xff\xff\xff\xff"
    head = content.getvalue()
    return head[:4] + endless + head[8:40] + endless


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("recorder_ends", [True, False])
def test_all_that_a_recorder_sent_before_ctrl_c_is_heard(tmp_path, raw, recorder_ends):
    heard = tmp_path / "heard.wav"
    voice = load_audio(DIGITS)
    options = ["--rate", str(RATE)] if raw else []
    process = start("transcribe", "-", *options, "--save-audio", heard, model=DEMO)
    process.stderr.readline()
    process.stdin.write((b"" if raw else header_of_a_wav_without_end()) + (voice * 32767).astype("<i2").tobytes())
    process.stdin.flush()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    if recorder_ends:
        process.stdin.close()
    assert process.stdout.read().decode().strip() == RECORDINGS[0].transcript
    assert process.wait(60) == 0
    with wave.open(str(heard)) as file:
        assert file.getnframes() == len(voice)


def test_an_open_pipe_without_a_sound_and_ctrl_c_end_in_order():
    process = start("transcribe", "-", model=DEMO)
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.stderr.read().decode().splitlines()[-1] == "note: no speech was heard"


def test_whoever_goes_on_sending_after_ctrl_c_keeps_nobody_waiting():
    reading, writing = os.pipe()
    pipe = OpenPipe(reading)
    pipe.end()
    sender = threading.Thread(target=lambda: [os.write(writing, bytes(1 << 16)) for _ in range(10)], daemon=True)
    sender.start()
    taken = 0
    while content := pipe.read(1 << 15):
        taken += len(content)
    assert 1 << 18 <= taken < 1 << 19


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "mic"),
        (["mic", "memo.wav"], "alone"),
        (["mic", "--output-dir", "out"], "--output"),
        (["memo.wav", "--duration", "3"], "live sound"),
        (["mic", "--save-audio", "sound.mp3"], ".wav"),
        (["mic", "--max-utterance", "40"], "28"),
        (["mic", "--vad-threshold", "0"], "0.05"),
        (["memo.wav", "-"], "alone"),
        (["mic", "--simulate"], "--simulate"),
        (["memo.wav", "--speed", "2"], "--simulate"),
        (["mic", "--rate", "16000"], "pipe"),
        (["memo.wav", "--simulate", "--device", "0"], "--device"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(arguments, words):
    finished = run("transcribe", *arguments, "--model", "no model")
    assert finished.returncode == 2
    assert words in finished.stderr


def test_what_an_output_held_stays_until_there_is_something_to_write(tmp_path):
    out = tmp_path / "out.txt"
    out.write_text("yesterday")
    new = tmp_path / "new.wav"
    outputs = ("--output", out, "--save-audio", new, "--overwrite")
    finished = run("transcribe", SPEECH, "--simulate", *outputs, "--model", tmp_path)
    assert finished.returncode == 1
    assert out.read_text() == "yesterday"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("option", ["--output", "--save-audio"])
def test_what_is_there_already_is_replaced_only_by_overwrite(tmp_path, option):
    kept = tmp_path / "kept.wav"
    kept.write_bytes(b"mine")
    finished = run("transcribe", SPEECH, "--simulate", "--speed", "50", option, kept, model=DEMO)
    assert finished.returncode == 1
    assert only_line(finished.stderr) == f"error: {kept} is there already: --overwrite replaces it"
    assert kept.read_bytes() == b"mine"
    finished = run("transcribe", SPEECH, "--simulate", "--speed", "50", option, kept, "--overwrite", model=DEMO)
    assert finished.returncode == 0
    assert kept.read_bytes() != b"mine"


@pytest.mark.parametrize("option", ["--output", "--save-audio"])
@pytest.mark.parametrize("piped", [True, False])
@pytest.mark.parametrize("link", [True, False])
def test_the_recording_itself_is_never_written_to(tmp_path, option, piped, link):
    recording, written = tmp_path / "talk.wav", tmp_path / "link.wav"
    with wave.open(str(recording), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(bytes(2 * RATE))
    content = recording.read_bytes()
    if link:
        written.symlink_to(recording)
    what = shlex.join(["-"] if piped else [str(recording), "--simulate"])
    command = f"{shlex.join(COMMAND)} transcribe {what} {option} {written if link else recording} --overwrite"
    finished = subprocess.run(
        ["sh", "-c", f"{command} < {recording}"], env=environment(DEMO), capture_output=True, text=True
    )
    assert finished.returncode == 1
    assert "is the recording itself" in only_line(finished.stderr)
    assert recording.read_bytes() == content


def test_stdin_closed_from_the_start_is_one_line():
    command = shlex.join([*COMMAND, "transcribe", "-"])
    finished = subprocess.run(["sh", "-c", f"{command} <&-"], env=environment(checkpoint()), capture_output=True)
    assert finished.returncode == 1
    assert "standard input is closed" in only_line(finished.stderr.decode())


def test_a_pipe_that_breaks_in_any_way_keeps_nobody_waiting():
    def blocks():
        yield np.ones(800, np.float32)
        raise OSError(5, "Input/output error")

    with PlayedSound(blocks(), speed=None) as sound:
        while not len(sound.read(1.0)):
            pass
        with pytest.raises(OSError, match="Input/output"):
            sound.read(5.0)


def test_an_output_that_cannot_be_written_is_known_before_the_model_is_loaded(tmp_path):
    finished = run("transcribe", SPEECH, "--simulate", "--output", tmp_path / "none" / "out.txt", "--model", "no model")
    assert finished.returncode == 1
    assert "out.txt" in only_line(finished.stderr)


needs_a_microphone = pytest.mark.skipif(not IS_INSTALLED, reason="needs PulseAudio to be a microphone")


@pytest.fixture
def microphone(tmp_path):
    with virtual_microphone(tmp_path) as made:
        yield made


def listening(microphone, *options):
    process = start("transcribe", "mic", *options, model=DEMO, more_environment=microphone.environment)
    assert b"listening to default" in process.stderr.readline()
    return process


@needs_a_microphone
def test_the_kept_sound_is_what_was_said_and_ctrl_c_ends_it_with_its_final(microphone, tmp_path):
    kept = tmp_path / "kept.wav"
    process = listening(microphone, "--format", "jsonl", "--save-audio", kept)
    microphone.play(DIGITS)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"finishing" in errors
    events = [json.loads(line) for line in output.splitlines()]
    finals = [event for event in events if event["kind"] == "final"]
    assert finals
    assert events[-1] == finals[-1]
    heard, said = load_audio(kept), load_audio(DIGITS)
    at = lag(heard, said)
    # A microphone with nothing to hear may begin to deliver only when somebody speaks, a moment late.
    assert at > -0.1 * RATE
    there = slice(max(0, -at), len(heard) - at)
    part = heard[max(0, at) :][: len(said[there])]
    assert len(part) > len(said) - 0.5 * RATE
    assert np.corrcoef(part, said[there][: len(part)])[0, 1] > 0.98
    assert at / RATE - 1 < finals[0]["start"] < finals[-1]["end"] < (at + len(said)) / RATE + 1


def lag(heard: np.ndarray, said: np.ndarray) -> int:
    """By how many samples `heard` comes later, where the two are most alike; negative: its beginning is missing."""
    size = 1 << (len(heard) + len(said)).bit_length()
    alike = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size)), size)
    at = int(np.argmax(alike))
    return at if at < len(heard) else at - size


SLOW_LOADING = """
import sys, time
import gemma4_mlx
load = gemma4_mlx.load
def slowly(*arguments, **options):
    print("loading", file=sys.stderr, flush=True)
    time.sleep(8)
    return load(*arguments, **options)
gemma4_mlx.load = slowly
"""


@needs_a_microphone
def test_ctrl_c_while_the_model_is_loading_loses_nothing_that_was_said(microphone, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SLOW_LOADING)
    environment = {**microphone.environment, "PYTHONPATH": str(tmp_path)}
    process = start("transcribe", "mic", model=DEMO, more_environment=environment)
    assert process.stderr.readline() == b"loading\n"
    microphone.play(DIGITS)
    process.send_signal(signal.SIGINT)
    assert b"Ctrl-C again" in process.stderr.readline()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.strip()


def test_nobody_is_recorded_while_a_model_is_fetched():
    """A model that is not here, and cannot be fetched: by then the microphone must not have been opened."""
    opened = []
    options = LiveOptions(None, None, False, 0.5, 1.0, 20.0, "text", None, None, False, None)
    with pytest.raises(HubError):
        _transcribe(lambda: opened.append(True), "listening", "mic", options, "/no/such/model")
    assert not opened


@needs_a_microphone
def test_a_microphone_that_is_pulled_out_ends_with_what_was_said(microphone, tmp_path):
    process = listening(microphone, "--format", "jsonl", "--silence", "10")
    microphone.play(DIGITS)
    microphone.unplug()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(output.splitlines()[-1])["kind"] == "final"
    assert "is gone" in errors.decode().splitlines()[-1]


@needs_a_microphone
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 12)])
def test_in_a_terminal_finals_stand_once_and_the_rest_is_drawn_again(microphone, columns, rows):
    with TmuxTerminal(
        *("transcribe", "mic", "--model", "demo", "--language", "English", "--translate-to", "French"),
        environment={**environment(), **microphone.environment},
        columns=columns,
        rows=rows,
    ) as terminal:
        terminal.wait_for("listening to default · Ctrl-C to finish\n")
        terminal.wait_for("○ listening  ▯")
        for recording in RECORDINGS[:2]:
            microphone.play(recording.path)
            time.sleep(1.5)  # a pause long enough to end an utterance
        terminal.type("C-c")
        lines = terminal.wait_for("exit code 0").splitlines()
    finals = [line for line in lines if re.match(r"0:\d\d \d", line)]
    assert len(finals) == 2
    assert not any("○" in line or "●" in line or "▯" in line for line in lines)
    assert sum(bool(re.match(r" {5}\w", line)) for line in lines) == 2  # the translations


@needs_a_microphone
@pytest.mark.parametrize("sizes", [[(80, 24), (40, 10), (80, 24)], [(200, 60), (40, 10)], [(40, 10), (200, 60)]])
def test_a_window_that_changes_its_size_is_left_with_no_half_sentence(microphone, sizes):
    with TmuxTerminal(
        *("transcribe", "mic", "--model", "demo", "--silence", "10"),
        environment={**environment(), **microphone.environment},
        columns=sizes[0][0],
        rows=sizes[0][1],
    ) as terminal:
        terminal.wait_for("○ listening  ▯")
        for size in sizes[1:]:
            microphone.play(DIGITS)
            terminal.wait_for(r"(?m)^\d .*\n")
            terminal.resize(*size)
            terminal.wait_for(r"(?m)^[●○] \w+  [▮▯]+")
        microphone.play(DIGITS)
        screen = terminal.screen()
        assert len(re.findall("[●○]", screen)) == 1
        assert len(re.findall(r"(?m)^\d ", screen)) == 1
        terminal.type("C-c")
        title, said, _ = (line for line in terminal.wait_for("exit code 0").splitlines() if line)
    assert title == "listening to default · Ctrl-C to finish"
    assert said.startswith("0:0")


@needs_a_microphone
@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (80, 24), (200, 60)])
def test_a_sound_server_that_dies_is_one_sentence_below_what_was_said(microphone, columns, rows):
    with TmuxTerminal(
        *("transcribe", "mic", "--model", "demo", "--silence", "10"),
        environment={**environment(), **microphone.environment},
        columns=columns,
        rows=rows,
    ) as terminal:
        terminal.wait_for("○ listening  ▯")
        microphone.play(DIGITS)
        microphone.unplug()
        title, said, *error, end = (line for line in terminal.wait_for("exit code").splitlines() if line)
    assert title == "listening to default · Ctrl-C to finish"
    assert re.match(r"0:\d\d \d", said)
    assert " ".join(error) == (
        "error: the microphone default is gone: connect it again, or choose another (`gemma4-mlx devices` lists them)"
    )
    assert end == "exit code 1"


@needs_a_microphone
def test_microphones_are_listed_and_an_unknown_one_names_them(microphone):
    for arguments in (["devices"], ["transcribe", "--list"]):
        process = start(*arguments, more_environment=microphone.environment)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "(default)" in output.decode()
    process = start("transcribe", "mic", "--device", "Blue Yeti", more_environment=microphone.environment)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "pulse" in only_line(errors.decode())
