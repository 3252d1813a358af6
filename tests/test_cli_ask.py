"""`gemma4-mlx ask` through the real command, on a small model whose weights are random."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from command_line import COMMAND, checkpoint, environment, only_line, picture, run, scratch, start

SPEECH = Path(__file__).parent / "tiny" / "speech.flac"
GREEDY = ("--temperature", "0", "--max-tokens", "6")


def ask(*arguments, variant="e2b", **options):
    return run("ask", *arguments, model=checkpoint(variant), **options)


def test_the_answer_is_alone_on_stdout_and_a_cut_is_said_on_stderr():
    finished = ask("hello", *GREEDY)
    assert finished.returncode == 0
    assert finished.stdout.endswith("\n")
    assert only_line(finished.stderr) == "note: cut after 6 tokens; --max-tokens allows more"
    answer = json.loads(ask("hello", *GREEDY, "--json").stdout)
    assert finished.stdout.rstrip("\n") == answer["text"].rstrip("\n")


def test_json_is_one_object_with_what_generate_gives():
    finished = ask("hello", *GREEDY, "--json")
    answer = json.loads(only_line(finished.stdout))
    assert answer["finish_reason"] == "length"
    assert answer["stats"]["generation_tokens"] == 6
    assert set(answer) == {"text", "thought", "tool_calls", "finish_reason", "stats"}
    assert finished.stderr.splitlines() == ["note: cut after 6 tokens; --max-tokens allows more"]


def prompt_tokens(*arguments, **options) -> int:
    return json.loads(ask(*arguments, *GREEDY, "--json", **options).stdout)["stats"]["prompt_tokens"]


def test_a_picture_and_a_sound_reach_the_model():
    words = prompt_tokens("what?")
    with_picture = prompt_tokens("what?", "--image", picture())
    with_both = prompt_tokens("what?", "-i", picture(), "-a", SPEECH)
    assert words + 100 < with_picture  # a 120×90 picture is scaled up to its budget
    assert with_picture < with_both


def test_piped_text_is_appended_to_the_question():
    assert prompt_tokens("say", stdin="hello\n") == prompt_tokens("say\n\nhello")


def test_piped_text_alone_is_a_question():
    assert prompt_tokens(stdin="hello") == prompt_tokens("hello")


def test_empty_stdin_changes_nothing():
    assert prompt_tokens("say", stdin="") == prompt_tokens("say")


def test_the_same_seed_draws_the_same_answer():
    first, again, other = (ask("hi", "--seed", seed, "--max-tokens", "12").stdout for seed in ("1", "1", "2"))
    assert first == again
    assert first != other


def test_instructions_come_before_the_question():
    assert prompt_tokens("hi", "--system", "be kind") > prompt_tokens("hi") + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "none.jpg"], "none.jpg does not exist"),
        (["-i", "."], "is a folder"),
        (["-i", "text.jpg"], "text.jpg is not a picture"),
        (["-i", "broken.png"], "broken.png"),
        (["-i", "narrow.png"], "narrow.png is too narrow"),
        (["-a", "none.wav"], "none.wav does not exist"),
        (["-a", "empty.wav"], "empty.wav is empty"),
        (["-a", "text.wav"], "text.wav"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_that_names_it(arguments, message, tmp_path):
    from PIL import Image

    for name in ("text.jpg", "text.wav"):
        (tmp_path / name).write_text("just words")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "broken.png").write_bytes(picture().read_bytes()[:200])
    Image.new("RGB", (1, 5000)).save(tmp_path / "narrow.png")
    finished = ask("what?", *arguments, cwd=tmp_path)
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert only_line(finished.stderr).startswith("error: ")
    assert message in finished.stderr


def test_sound_for_a_model_without_ears_is_one_line():
    finished = ask("what?", "-a", SPEECH, variant="dense")
    assert finished.returncode == 1
    assert "e2b, e4b or 12b" in only_line(finished.stderr)


def test_a_prompt_longer_than_the_context_is_one_line():
    finished = ask(stdin="word " * 20_000)
    assert finished.returncode == 1
    assert "context" in only_line(finished.stderr)


def test_a_picture_piped_in_as_if_it_were_text_is_refused():
    finished = ask("what?", stdin=picture().read_bytes())
    assert finished.returncode == 1
    assert "--image" in only_line(finished.stderr)


def test_a_folder_that_holds_no_model_is_one_line(tmp_path):
    finished = run("ask", "hi", "-m", tmp_path)
    assert finished.returncode == 1
    assert str(tmp_path) in only_line(finished.stderr)


def test_the_list_that_a_loop_is_reading_is_left_to_it(tmp_path):
    listed = tmp_path / "list"
    listed.write_text("one\ntwo\nthree\n")
    loop = f'while read -r f; do {shlex.join(COMMAND)} ask "say $f" >&2 || exit; echo "$f"; done < {listed}'
    finished = subprocess.run(["bash", "-c", loop], env=environment(Path("demo")), capture_output=True, text=True)
    assert finished.stdout.split() == ["one", "two", "three"]


def test_a_file_that_was_begun_is_read_when_there_is_no_other_question(tmp_path):
    notes = tmp_path / "notes"
    notes.write_text("heading\nHello\n")
    command = f"(read -r f; {shlex.join(COMMAND)} ask) < {notes}"
    finished = subprocess.run(["bash", "-c", command], env=environment(Path("demo")), capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_who_waits_for_a_pipe_is_told_what_for():
    process = start("ask", "hi", model=Path("demo"))
    assert b"waiting for the end of the text that is piped in" in process.stderr.readline()
    process.stdin.write(b"more")
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, b"")


def test_a_pipe_without_end_is_one_line():
    command = f"yes | {shlex.join(COMMAND)} ask hi"
    finished = subprocess.run(["bash", "-c", command], env=environment(Path("demo")), capture_output=True, text=True)
    assert finished.returncode == 1
    assert "give a part of it" in only_line(finished.stderr)


def test_ctrl_c_while_waiting_for_stdin_is_130_without_a_word():
    process = start("ask", "hi")
    process.stdin.write(b"the beginning")
    process.stdin.flush()
    _wait_until_it_reads(process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, b"", b"")


def test_ctrl_c_in_an_answer_keeps_what_was_written_and_is_130():
    process = start("ask", "hi", "--max-tokens", "3000", "--seed", "1", model=checkpoint())
    process.stdin.close()
    process.stdin = None
    first = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (first + stdout).endswith(b"\n")
    assert b"Traceback" not in stderr


def test_a_reader_that_leaves_early_is_no_cause_for_complaint():
    process = start("ask", "hi", "--max-tokens", "3000", "--seed", "1", model=checkpoint())
    process.stdin.close()
    process.stdin = None
    process.stdout.read(1)
    process.stdout.close()
    process.stdout = None
    _, stderr = process.communicate(timeout=60)
    assert stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_stdout_is_one_line():
    with open("/dev/full", "wb") as full:
        finished = subprocess.run(
            [*COMMAND, "ask", "hi", *GREEDY],
            env=environment(checkpoint()),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=scratch(),
        )
    assert finished.returncode == 1
    assert "No space left" in only_line(finished.stderr)


def _wait_until_it_reads(process: subprocess.Popen[bytes]) -> None:
    """Until the pipe is empty: then Python is up and inside the command."""
    import array
    import fcntl
    import termios
    import time

    waiting = array.array("i", [1])
    while waiting[0] and process.poll() is None:
        time.sleep(0.02)
        fcntl.ioctl(process.stdin.fileno(), termios.FIONREAD, waiting)


def test_a_schema_that_never_ends_is_one_line():
    refused = ask("hello", "--schema", "/dev/zero")
    assert refused.returncode == 1
    assert only_line(refused.stderr) == "error: /dev/zero is larger than 16 MB: give the right file, or a part of it"
