"""`gemma4-mlx chat` in a real terminal (tmux): stopped, killed, resized. What is dropped: test_app_line_terminal."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from command_line import COMMAND, checkpoint, scratch
from tiny_tokenizer import SPECIAL_IDS
from tmux_terminal import TmuxTerminal
from users import User

READY = r"(?m)^> *$"
STOPPED = "stopped; what was written stays in the conversation"
QUESTION, ANSWER = "Does my data leave this Mac?", "No. Everything runs on this Mac; nothing is sent anywhere."
LONG = ("--max-tokens", "3000", "--seed", "4")  # seconds


@cache
def talkative() -> Path:
    """A small random model that never ends its answer by itself."""
    folder = scratch() / "talkative"
    shutil.copytree(checkpoint(), folder)
    weights = mx.load(str(folder / "model.safetensors"))
    rows = weights["model.language_model.embed_tokens.weight"]
    rows[mx.array(list(SPECIAL_IDS.values()))] = 0
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    return folder


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def chat(user: User, *options: str | Path, model: str | Path = "demo", **terminal: Any) -> TmuxTerminal:
    return TmuxTerminal("chat", "--model", model, *options, environment=user.environment, cwd=user.home, **terminal)


def is_answering(terminal: TmuxTerminal, message: str) -> None:
    """Wait until an answer, whatever it begins with, and not only the sign of one, stands below a message."""
    terminal.wait_for(rf"(?s)> {message}\n(?!.*is being loaded)(?:\s*[^\s…]){{12}}")


@contextmanager
def answering(user: User, **size: int) -> Iterator[TmuxTerminal]:
    """A chat in the middle of a long answer to "hello"."""
    with chat(user, *LONG, model=talkative(), **size) as terminal:
        terminal.wait_for(READY)
        terminal.type("hello", "Enter")
        is_answering(terminal, "hello")
        yield terminal


def kill(terminal: TmuxTerminal) -> None:
    """What a crash of the machine does to the command."""
    os.kill(terminal.process(), signal.SIGKILL)
    terminal.wait_for("exit code 137")


def test_ctrl_c_stops_an_answer_keeps_what_there_is_of_it_and_the_conversation_goes_on(user):
    with chat(user, *LONG, model=talkative()) as terminal:
        terminal.wait_for(READY)
        for message in ("hello", "again"):
            terminal.type(message, "Enter")
            is_answering(terminal, message)
            terminal.type("C-c")
            terminal.wait_for(rf"(?s)> {message}\n.*{STOPPED}.*\n> *\n")
        terminal.type("/context", "Enter")
        terminal.wait_for(r"\d  hello\n *\d+  again\n")
        terminal.type("C-d")
        assert "exit code 0" in terminal.wait_for("exit code")


def test_what_is_typed_during_an_answer_waits_for_the_prompt_and_leaves_the_answer_alone(user):
    with answering(user, columns=120) as terminal:
        terminal.type("/system Be brief.", "Enter", "C-d")
        terminal.type("C-c")
        screen = terminal.wait_for("exit code")
    assert "exit code 0" in screen
    answer, _, after = screen.partition(STOPPED)
    assert "system" not in answer
    assert "> /system Be brief." in after


def test_a_paste_during_an_answer_is_one_message(user):
    with answering(user) as terminal:
        terminal.paste("first line\nsecond line\nthird line\n")
        terminal.type("C-c")
        terminal.wait_for(r"> first line\n +second line\n +third line\n")
        assert "stopped" not in terminal.screen().rpartition("third line")[2]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system limits no program that runs")
def test_a_disk_that_fills_up_during_an_answer_is_said_behind_it(user):
    with answering(user) as terminal:
        resource.prlimit(terminal.process(), resource.RLIMIT_FSIZE, (1, 1))
        time.sleep(1)
        terminal.type("C-c")
        screen = terminal.wait_for(STOPPED)
        assert screen.count("this chat cannot be saved") == 1
        terminal.type("/save mine", "Enter")
        assert "kept as mine" not in terminal.wait_for("error: this chat cannot be saved")


def test_the_terminal_is_as_it_was_when_the_command_is_told_to_end(user):
    with answering(user) as terminal:
        tty = terminal.tmux("list-panes", "-F", "#{pane_tty}").strip()
        os.kill(terminal.process(), signal.SIGTERM)
        terminal.wait_for("exit code 143")
        with open(tty) as stdin:
            modes = subprocess.run(["stty", "-a"], stdin=stdin, capture_output=True, text=True, check=True).stdout
    assert re.search(r"(?<!-)icanon", modes)
    assert re.search(r"(?<!-)\becho\b", modes)


@pytest.mark.parametrize(
    ("typed", "shown"), [("help", "/undo +take back"), ("?", "/undo +take back"), ("exit", "exit code 0")]
)
def test_words_for_help_and_the_way_out_are_understood(user, typed, shown):
    with chat(user) as terminal:
        terminal.wait_for(READY)
        terminal.type(typed, "Enter")
        terminal.wait_for(shown)


def test_help_fits_a_narrow_terminal_without_breaking_words(user):
    with chat(user, columns=60) as terminal:
        terminal.wait_for(READY)
        terminal.type("/hepl", "Enter")
        terminal.wait_for(r"did you mean /help\?")
        terminal.type("/help", "Enter")
        screen = terminal.wait_for(r"/quit +leave")
    told = " ".join(screen.split())
    assert "Tab completes commands and paths." in told
    assert "/translate LANGUAGE translate the sound attached, or what you said last, or say now" in told


def test_a_chat_that_is_gone_on_with_shows_where_it_stood(user):
    with chat(user, "--temperature", "0") as terminal:
        terminal.wait_for(READY)
        terminal.type(QUESTION, "Enter")
        terminal.wait_for(rf"{re.escape(ANSWER)}\n+> *\n")
        with chat(user, "--resume") as second:
            second.wait_for("is open in another chat: close it there first")
        terminal.type("C-d")
        terminal.wait_for("exit code 0")
    with chat(user, "--resume") as terminal:
        terminal.wait_for(rf"1 message\n> {re.escape(QUESTION)}\n{re.escape(ANSWER)}\n")


def test_ctrl_c_after_an_answer_leaves_only_when_it_is_pressed_again_and_the_way_back_is_told(user):
    with chat(user, "--temperature", "0") as terminal:
        terminal.wait_for(READY)
        terminal.type(QUESTION, "Enter")
        terminal.wait_for(rf"{re.escape(ANSWER)}\n+> *\n")
        terminal.type("C-c")
        terminal.wait_for(r"Ctrl-C again leaves; so does Ctrl-D\n> *\n")
        terminal.type("/save 'my trip", "Enter")
        terminal.wait_for("cannot be called")
        terminal.type("/save my trip", "Enter")
        terminal.wait_for("kept as my trip")
        terminal.type("C-c")  # the first one is long ago
        terminal.wait_for(r"(?s)Ctrl-C again.*Ctrl-C again leaves; so does Ctrl-D\n> *\n")
        terminal.type("C-c")
        screen = terminal.wait_for("exit code 130")
    assert "gemma4-mlx chat --resume 'my trip' goes on with this chat" in screen


def test_listening_that_led_to_nothing_leaves_no_line(user):
    with chat(user) as terminal:
        terminal.wait_for(READY)
        terminal.type("/detail 70", "Enter")
        terminal.wait_for("up to 70 tokens")
        for number, keys in enumerate((("C-r",), ("/listen", "Enter"), ("half", "C-r")), 1):
            terminal.type(*keys)
            # Without a microphone, or with one that hears nothing.
            if "○ ▯" in terminal.wait_for(rf"(?s)(error: .*){{{number}}}\n>|○ ▯"):
                terminal.type("Escape")
                terminal.wait_for(r"(?s)^(?!.*○ ▯)")
        terminal.type(" a thought")
        screen = terminal.wait_for("> half a thought")
    assert "> /detail 70" in screen
    assert "listen\n" not in screen
    assert "> half\n" not in screen


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (80, 24), (200, 60)])
def test_the_chat_to_go_on_with_is_chosen_by_its_first_words_and_stands_there_whole(user, columns, rows):
    long = "Say " + " ".join(f"word{number}" for number in range(60))
    piped = {"env": {**os.environ, **user.environment}, "cwd": user.home, "check": True, "capture_output": True}
    for question in (long, QUESTION):
        subprocess.run([*COMMAND, "chat", "-m", "demo", "--temperature", "0"], input=question.encode(), **piped)
    with chat(user, "--resume", columns=columns, rows=rows) as terminal:
        screen = terminal.wait_for("which chat")
        assert re.search(r"(?m)^ 1  today \d\d:\d\d   Does my data", screen)
        assert re.search(r"(?m)^ 2  today \d\d:\d\d   Say word0", screen)
        terminal.type("7", "Enter")
        terminal.wait_for("there is no 7")
        terminal.type("2", "Enter")
        terminal.wait_for(READY)
        assert "word59" in terminal.screen()
        terminal.type("C-d")
        terminal.wait_for("exit code 0")


def test_no_turn_is_lost_when_the_command_is_killed_in_an_answer(user):
    with answering(user) as terminal:
        terminal.type("C-c")
        terminal.wait_for(rf"(?s){STOPPED}.*\n> *\n")
        terminal.type("again", "Enter")
        is_answering(terminal, "again")
        kill(terminal)
    with chat(user, *LONG, "--resume", model=talkative()) as terminal:
        terminal.wait_for(r"going on with [\w-]+: 2 messages")
        terminal.wait_for(READY)
        terminal.type("/context", "Enter")
        terminal.wait_for(r"\d  hello\n *\d+  again\n")
        terminal.type("/regen", "Enter")
        is_answering(terminal, "/regen")
        terminal.type("C-c")
        terminal.wait_for(STOPPED)


def test_what_was_answered_before_a_kill_is_told_again_to_the_model(user):
    with chat(user, "--temperature", "0") as terminal:
        terminal.wait_for(READY)
        terminal.type(QUESTION, "Enter")
        terminal.wait_for(re.escape(ANSWER))
        terminal.wait_for(rf"{re.escape(ANSWER)}\n+> *\n")
        kill(terminal)
    with chat(user, "--temperature", "0", "--resume") as terminal:
        terminal.wait_for(r"going on with [\w-]+: 1 message\n")
        terminal.type("/export talk.md", "Enter")
        terminal.wait_for(r"talk\.md")
        terminal.type("C-d")
        terminal.wait_for("exit code 0")
    told = (user.home / "talk.md").read_text()
    assert QUESTION in told
    assert ANSWER in told


@pytest.mark.parametrize(("columns", "rows"), [(40, 12), (120, 40)])
def test_a_terminal_of_another_size_goes_on_with_the_line_that_was_being_typed(user, columns, rows):
    with chat(user, "--temperature", "0") as terminal:
        terminal.wait_for(READY)
        first, second = QUESTION[:15], QUESTION[15:]
        terminal.type("-l", first)
        terminal.wait_for(f"> {first}")
        terminal.resize(columns, rows)
        time.sleep(0.6)  # tmux tells of sizes at intervals; a line drawn meanwhile may be left above (prompt_toolkit)
        terminal.type("-l", second)
        terminal.type("Enter")
        terminal.wait_for("No. Everything")
        terminal.wait_for(r"anywhere\.\n+> *\n")
        assert terminal.screen().count(QUESTION) == 1


def test_ctrl_z_sets_the_chat_aside_and_the_line_that_was_being_typed_comes_back_with_it(user):
    shell = ("bash", "-c", 'set -m; "$@"; echo set aside; read; fg', "bash", *COMMAND)
    with chat(user, "--temperature", "0", program=shell) as terminal:
        terminal.wait_for(READY)
        first, second = QUESTION[:15], QUESTION[15:]
        terminal.type("-l", first)
        terminal.wait_for(f"> {first}")
        terminal.type("C-z")
        assert first not in terminal.wait_for("set aside\n")
        terminal.type("Enter")
        terminal.wait_for(f"> {first}")
        terminal.type("-l", second)
        terminal.type("Enter")
        terminal.wait_for(re.escape(ANSWER))


def test_ctrl_d_half_way_through_a_line_leaves_nothing_out_and_at_an_empty_one_leaves(user):
    with chat(user, "--temperature", "0") as terminal:
        terminal.wait_for(READY)
        terminal.type("-l", QUESTION)
        terminal.type("C-d", "Enter")
        terminal.wait_for(re.escape(ANSWER))
        terminal.wait_for(rf"{re.escape(ANSWER)}\n+> *\n")
        terminal.type("C-d")
        terminal.wait_for("exit code 0")
