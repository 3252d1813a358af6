"""Terminals that do not know their size, or do not say where the cursor is; and what C libraries print."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from command_line import environment
from raw_terminal import RawTerminal
from tmux_terminal import TmuxTerminal
from users import User

QUESTION, ANSWER = "Does my data leave this Mac?", "No. Everything runs on this Mac; nothing is sent anywhere."


@pytest.mark.parametrize("size", [(0, 0), (0, 24), (80, 0), (1, 1)])
def test_a_terminal_of_no_size_gets_answers(size):
    with RawTerminal("ask", QUESTION, "-m", "demo", environment=environment(), size=size) as terminal:
        assert terminal.ended() == 0
    shown = re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\s", "", terminal.written)
    assert ANSWER.replace(" ", "")[-10:] in shown


@pytest.mark.parametrize("command", ["demo", "doctor", "models"])
def test_a_terminal_of_no_size_gets_every_other_command(command):
    with RawTerminal(command, environment=environment(), size=(0, 0)) as terminal:
        assert terminal.ended() in (0, 1)
    assert "Error" not in terminal.written


def test_a_chat_in_a_terminal_that_tells_neither_its_size_nor_where_its_cursor_is(tmp_path):
    user = User(tmp_path)
    options = ("chat", "-m", "demo", "--temperature", "0")
    with RawTerminal(*options, environment=user.environment, size=(0, 0)) as terminal:
        terminal.wait_for("Ctrl-D leaves")
        terminal.type(f"{QUESTION}\r")
        terminal.wait_for("sent anywhere")
        # prompt_toolkit waits two seconds for an answer, and says then that none came.
        with pytest.raises(AssertionError, match="never came"):
            terminal.wait_for("WARNING|CPR", seconds=2.5)
        terminal.type("\x04")
        assert terminal.ended() == 0


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (80, 24)])
def test_what_is_wrong_with_a_long_message_stands_beneath_it_in_sight(tmp_path, columns, rows):
    user = User(tmp_path)
    with TmuxTerminal(
        "chat", "-m", "demo", environment=user.environment, columns=columns, rows=rows, cwd=user.home
    ) as terminal:
        terminal.wait_for(r"(?m)^> *$")
        terminal.paste("word " * 9_000)
        terminal.wait_for("pasted 45,000 characters")
        terminal.type("Enter")
        terminal.wait_for(r"(?s)error: .*\(not\s+sent\)\n.*> \[pasted")
        screen = terminal.tmux("capture-pane", "-p")
    assert screen.index("pasted") < screen.index("error:") < screen.rindex("pasted")
    assert "not" in screen


PRINTING = """
import os, sys
from gemma4_mlx.app.c_output import c_libraries_silent, separate_stderr
from gemma4_mlx.app.terminal import note
separate_stderr()
os.write(2, b"C before\\n")
with c_libraries_silent():
    with c_libraries_silent():
        os.write(2, b"ALSA lib pcm.c: underrun\\n")
        note("ours within")
    os.write(2, b"Expression 'ret' failed\\n")
os.write(2, b"C after\\n")
note("ours after")
"""


def test_c_libraries_are_silent_for_a_while_and_our_own_notes_are_not():
    finished = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, check=True)
    assert finished.stderr.splitlines() == ["C before", "ours within", "C after", "ours after"]
