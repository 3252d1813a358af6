"""The chat's line in a real terminal (tmux), with the built-in model: dropped files, previews, a narrow screen."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import COMMAND, environment, picture
from dropped_spellings import NAMES, TERMINALS
from gemma4_mlx.checkpoint.builtin import FOLDER
from tmux_terminal import TmuxTerminal

READY = r"Ctrl-D leaves\.\n>"
TOKEN = r"\[image 1: .*120×90 → 266\s+tokens\]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "My Pictures"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(picture(), folder / name)
    return folder


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[TmuxTerminal]:
    with chat(tmp_path) as terminal:
        yield terminal


def chat(home: Path, columns: int = 80, rows: int = 24, **variables: str) -> TmuxTerminal:
    settings = {**environment(), "HOME": str(home), **variables}
    arguments = ["chat", "--model", "demo", "--max-tokens", "20", "--temperature", "0"]
    terminal = TmuxTerminal(*arguments, environment=settings, columns=columns, rows=rows)
    terminal.wait_for(READY)
    return terminal


def visible(terminal: TmuxTerminal, *options: str) -> str:
    return terminal.tmux("capture-pane", "-p", *options)


def wait_until_visible(terminal: TmuxTerminal, pattern: str, there: bool = True) -> str:
    for _ in range(2000):
        screen = visible(terminal)
        if bool(re.search(pattern, screen, re.MULTILINE)) is there:
            return screen
        time.sleep(0.025)
    pytest.fail(f"{pattern!r} {'never came' if there else 'stayed'}:\n{screen}")


@pytest.mark.parametrize("name", TERMINALS)
def test_every_terminals_drop_becomes_a_token(terminal, folder, name):
    for file in NAMES:
        terminal.paste(TERMINALS[name]([folder / file]))
        wait_until_visible(terminal, TOKEN)
        terminal.type("C-c")
        wait_until_visible(terminal, TOKEN, there=False)
    assert "error" not in terminal.screen()


def test_a_drop_without_bracketed_paste_goes_with_the_message(terminal, folder):
    terminal.type("-l", TERMINALS["Ghostty"]([folder / "it's a cat.png"]) + " What is in this picture?")
    terminal.type("Enter")
    screen = terminal.wait_for(r"\[image 1: it's a cat.png [^]]*\]\s+What is in this picture\?\n\w")
    assert "error" not in screen


def test_a_dropped_picture_is_asked_about_and_a_backspace_takes_the_second_one_away(terminal, folder):
    terminal.paste(f"{folder}/cat.png\n{folder}/two cats.png")
    wait_until_visible(terminal, r"\[image 1: cat\.png [^]]*\]\s+\[image 2: two\s+cats\.png")
    terminal.type("BSpace")
    wait_until_visible(terminal, "two", there=False)
    terminal.type("What is in this picture?", "Enter")
    terminal.wait_for(r"> \[image 1: cat\.png [^]]*\] What is in this picture\?\n\w.*\n>")
    terminal.type("C-d")
    assert "exit code 0" in terminal.wait_for("exit code")


def test_what_cannot_be_attached_is_named_above_the_line_which_stays(terminal, folder, tmp_path):
    terminal.type("hello ")
    (tmp_path / "fake.jpg").write_text("words")
    terminal.paste(str(tmp_path / "fake.jpg"))
    wait_until_visible(terminal, r"(?s)not attached: .*not a\s+picture.*^> hello$")
    terminal.paste(f"{tmp_path}/gone.png ")
    screen = wait_until_visible(
        terminal, r"(?s)not attached: .*does not\s+exist.*^> hello /"
    )  # it may have been meant as words
    terminal.type("C-c")
    terminal.paste(str(folder))
    screen = wait_until_visible(terminal, r"(?s)is a\s+folder.*^> /")
    assert screen.count("not attached: ") == 3


def test_forty_columns_hold_the_token_and_the_most_important_of_the_footer(tmp_path, folder):
    with chat(tmp_path, columns=40, rows=10) as terminal:
        terminal.paste(str(folder / "cat.png"))
        screen = wait_until_visible(terminal, r"demo")
        wait_until_visible(terminal, TOKEN.replace("tokens", "tok\\s*ens"))
        terminal.type(" What is in it?", "Enter")
        screen = wait_until_visible(terminal, r"demo · [\d,]+ of [\d,]+ tokens")
        assert all(len(line) <= 40 for line in screen.splitlines())


def test_a_preview_is_drawn_in_half_blocks_where_there_are_colours_and_nowhere_else(tmp_path, folder):
    for variables, drawn in (
        ({"COLORTERM": "truecolor"}, 6),
        ({}, 0),
        ({"COLORTERM": "truecolor", "NO_COLOR": "1"}, 0),
    ):
        with chat(tmp_path, **variables) as terminal:
            terminal.paste(str(folder / "cat.png"))
            screen = wait_until_visible(terminal, TOKEN)
            assert sum("▀▀▀" in line for line in screen.splitlines()) == drawn
            if "NO_COLOR" in variables:
                assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", visible(terminal, "-e"))


def test_a_dumb_terminal_gets_plain_lines(tmp_path, folder):
    program = ["env", "TERM=dumb", *COMMAND]
    arguments = ["chat", "--model", "demo", "--max-tokens", "60", "--temperature", "0"]
    settings = {**environment(), "HOME": str(tmp_path)}
    with TmuxTerminal(*arguments, environment=settings, program=program) as terminal:
        terminal.wait_for(READY)
        terminal.type("Does my data leave this Mac?", "Enter")
        screen = terminal.wait_for(r"this Mac\?\n\w[^\n]*\n>")
        assert "\x1b" not in visible(terminal, "-e")
        assert "tok/s" not in screen
        terminal.type("C-d")
        assert "exit code 0" in terminal.wait_for("exit code")


def test_keys_are_taken_before_the_model_is_there(tmp_path):
    model = tmp_path / "never-there"
    shutil.copytree(FOLDER, model)
    (model / "tokenizer.json").unlink()
    os.mkfifo(model / "tokenizer.json")  # opening it takes until somebody writes
    settings = {**environment(), "HOME": str(tmp_path)}
    with TmuxTerminal("chat", "--model", "./never-there", environment=settings, cwd=tmp_path) as terminal:
        terminal.wait_for(READY)
        terminal.type("hello")
        terminal.wait_for(r"> hello\n[\s\S]*is being loaded")
