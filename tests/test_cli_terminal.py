"""What reaches a terminal and what does not, and how a command ends when something goes wrong."""

from __future__ import annotations

import io

import pytest
from gemma4_mlx.app.exit_codes import exit_codes, one_line
from gemma4_mlx.app.progress import Progress
from gemma4_mlx.app.terminal import write

from gemma4_mlx.errors import InputError


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_models_words_cannot_steer_the_terminal():
    screen = Screen()
    write(screen, "one\x1b[2Jtwo\r\x07\x9bthree\n\tfour")
    assert screen.getvalue() == "one[2Jtwothree\n\tfour"


def test_a_pipe_gets_every_character():
    pipe = io.StringIO()
    write(pipe, "one\x1b[2J\r\n", dim=True)
    assert pipe.getvalue() == "one\x1b[2J\r\n"


def test_thoughts_are_dim_unless_the_terminal_or_the_user_says_no(monkeypatch):
    screen = Screen()
    write(screen, "hm", dim=True)
    assert screen.getvalue() == "\x1b[2mhm\x1b[0m"
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            screen = Screen()
            write(screen, "hm", dim=True)
            assert screen.getvalue() == "hm"


def test_progress_is_silent_where_there_is_no_terminal(capsys):
    with Progress("memo.m4a") as progress:
        progress.show("0:10 of 1:00")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("cat.png is\nnot a picture"), "error: cat.png is not a picture"),
        (ValueError("max_tokens must be positive"), "error: max_tokens must be positive"),
        (PermissionError(13, "Permission denied", "out"), "error: out: Permission denied"),
        (ZeroDivisionError("boom"), "error: ZeroDivisionError: boom (a bug here; --debug shows where)"),
    ],
)
def test_whatever_is_raised_is_one_line_and_exit_code_1(error, line, capsys):
    with pytest.raises(SystemExit) as ended, exit_codes(debug=False):
        raise error
    assert ended.value.code == 1
    assert capsys.readouterr().err == line + "\n"


def test_debug_lets_an_error_through():
    with pytest.raises(ZeroDivisionError), exit_codes(debug=True):
        raise ZeroDivisionError("boom")


def test_an_error_without_a_message_is_called_by_its_name():
    assert one_line(MemoryError()) == "MemoryError"
