"""The chat's line in a real terminal (tmux), with the built-in model: dropped files, previews, a narrow screen."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

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


SIZES = pytest.mark.parametrize(("columns", "rows"), [(40, 10), (80, 24), (200, 60)])


@SIZES
def test_thirty_pictures_are_one_label_and_the_broken_one_among_them_is_named(tmp_path, columns, rows):
    paths = [shutil.copy(picture(), tmp_path / f"{number}.png") for number in range(30)]
    (tmp_path / "broken.png").write_text("words")
    with chat(tmp_path, columns, rows) as terminal:
        terminal.paste(TERMINALS["iTerm2"]([*paths[:9], tmp_path / "broken.png", *paths[9:]]))
        screen = wait_until_visible(terminal, r"^> \[30 pictures, 7,980 tokens\]$")
        assert "broken.pngisnotapicture" in re.sub(r"\s", "", screen)
        terminal.type("BSpace")
        wait_until_visible(terminal, r"^>$")


@SIZES
def test_no_label_is_broken_where_the_line_wraps(tmp_path, folder, columns, rows):
    with chat(tmp_path, columns, rows) as terminal:
        for filling in (0, 9, columns - 14, columns - 2):
            terminal.type("-l", "x" * filling)
            terminal.paste(str(folder / "猫 の 写真.png"))
            terminal.type("-l", "and ")
            terminal.paste("line\n" * 1_400)
            terminal.type("-l", "!")
            screen = wait_until_visible(terminal, r"lines\]\s*!$")
            labels = re.findall(r"\[image 1: [^]\n]*tokens\]|\[pasted 1,400 lines\]", screen)
            assert len(labels) == 2, screen
            assert all(len(line) <= columns for line in screen.splitlines())
            terminal.type("C-c")
            wait_until_visible(terminal, r"^>$")


SHOWN = "नमस्ते हिन्दी 👨👩👧 ❤ 👍 e\u0301" + r"\s+1\s+CZ\s+日\s*本"


@SIZES
def test_tabs_joined_emoji_and_hindi_leave_the_prompt_and_the_cursor_where_they_are(tmp_path, columns, rows):
    with chat(tmp_path, columns, rows) as terminal:
        terminal.paste("a\tb नमस्ते हिन्दी 👨\u200d👩\u200d👧 ❤\ufe0f 👍🏽 e\u0301 1\ufe0f\u20e3 🇨🇿 日本 end")
        wait_until_visible(terminal, rf"^> a   b {SHOWN} e\s*n\s*d$")
        terminal.type("BSpace", "BSpace", "BSpace", "|")
        wait_until_visible(terminal, rf"^> a   b {SHOWN}\s+\|$")
        terminal.type("C-a", *["Right"] * 6, "|", "C-a", "|")
        wait_until_visible(terminal, rf"^> \|a  b {SHOWN.replace('नम', 'नम[|]')}\s+\|$")


def test_hindi_is_whole_at_every_end_of_a_row(tmp_path):
    with chat(tmp_path, 40, 10) as terminal:
        for filling in range(8):
            terminal.paste("x" * filling + "हिन्दी" * 8 + "|")
            screen = wait_until_visible(terminal, r"\|$")
            assert re.sub(r"\s", "", screen.rpartition("> ")[2]).startswith("x" * filling + "हिन्दी" * 8 + "|"), screen
            terminal.type("C-c")
            wait_until_visible(terminal, r"^>$")


@SIZES
def test_a_pasted_prompt_is_sent_as_it_stands_and_what_it_names_is_offered(tmp_path, folder, columns, rows):
    with chat(tmp_path, columns, rows) as terminal:
        terminal.paste(f"// mind {folder}/cat.png\n/help")
        wait_until_visible(terminal, r"^Ctrl-T attaches cat\.png")
        terminal.type("C-t")
        wait_until_visible(terminal, r"/help\s+\[image 1: c[^]\n]*tokens\]")
        terminal.type("BSpace", "Enter")
        assert "/undo" not in terminal.wait_for(r"/help\n\w")
        terminal.tmux("send-keys", "-l", "one\x1b[13;2utwo\x1b[27;2;13~three")
        terminal.type("C-j", "four")
        wait_until_visible(terminal, r"^> one\n  two\n  three\n  four$")


def test_a_long_log_is_pasted_at_once_and_ctrl_c_ends_what_takes_longer(tmp_path):
    noise = Image.effect_noise((4_000, 3_000), 100)
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    noise.save(paths[0], compress_level=1)
    for path in paths[1:]:
        os.link(paths[0], path)
    with chat(tmp_path) as terminal:
        terminal.wait_for("microphone off")  # the model is there, and the machine at rest
        log = "\n".join(f"/usr/bin/prog{n}: /usr/lib/gone {n}.png: not found" for n in range(1_000))
        terminal.paste(log)
        wait_until_visible(terminal, r"\[pasted 1,000 lines\]")
        terminal.type("C-c")
        terminal.paste("\n".join(map(str, paths)))
        time.sleep(0.3)
        terminal.type("C-c")
        wait_until_visible(terminal, "stopped: nothing was attached")
        terminal.type("still here")
        wait_until_visible(terminal, "^> still here$")


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
