"""An answer on the screen: Markdown in a real terminal (tmux), every line of it once; plain text anywhere else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import environment
from tmux_terminal import TmuxTerminal

PROGRAM = [sys.executable, str(Path(__file__).with_name("slow_answer.py"))]
END = "That is all."


def long_answer(lines: int) -> str:
    """Every kind of block, with numbered lines of which each must be seen once."""
    blocks: list[str] = []
    number = 0

    def line(words: str = "alpha beta gamma delta") -> str:
        nonlocal number
        number += 1
        return f"line {number:03} {words}"

    while number < lines:
        blocks.append(f"## {line()}")
        blocks.append(" ".join(line() for _ in range(6)))
        blocks.append("\n".join(f"- {line()}" for _ in range(5)))
        blocks.append("\n".join(["```python", *(f"x = '{line()}'" for _ in range(14)), "```"]))
        blocks.append("\n".join(["| a | b |", "|---|---|", *(f"| {line()} | x |" for _ in range(4))]))
        blocks.append("\n".join(f"1. {line()}" for _ in range(5)))
    return "\n\n".join(blocks)


def seen(screen: str) -> Counter[int]:
    """How often each numbered line is on the screen, wherever the terminal broke it."""
    return Counter(int(number) for number in re.findall(r"line(\d{3})", unspaced(screen)))


def unspaced(text: str) -> str:
    return re.sub(r"\s+", "", text)


def reached(number: int) -> str:
    """A pattern for the screen once a numbered line is on it; the next ones do too, if that is broken at an edge."""
    return "line (" + "|".join(f"{number + more:03}" for more in range(5)) + ")"


# Between two pieces of an answer that must not end before a busy machine has come to change the terminal's size.
RESIZED = 0.008


def long_paragraph(lines: int) -> str:
    """Three numbered lines in a row of 80."""
    return " ".join(f"line {number:03} alpha beta gamma" for number in range(1, lines + 1))


def terminal(
    answer: str, folder: Path, *options: str, columns: int = 80, rows: int = 24, pause: float = 0.0, **variables: str
):
    file = folder / "answer.md"
    file.write_text(answer)
    settings = {**environment(), **variables}
    return TmuxTerminal(file, str(pause), *options, environment=settings, columns=columns, rows=rows, program=PROGRAM)


@pytest.mark.parametrize(("columns", "rows"), [(80, 10), (40, 10), (120, 5)])
def test_two_hundred_lines_in_a_small_terminal_are_each_seen_once(tmp_path, columns, rows):
    answer = long_answer(200)
    with terminal(answer, tmp_path, columns=columns, rows=rows, pause=0.0005) as shown:
        screen = shown.wait_for(END)
    assert seen(screen) == seen(answer)


@contextlib.contextmanager
def at_rest(shown: TmuxTerminal) -> Iterator[None]:
    """In the body the program stands still.

    Rows that are on their way to a terminal that wraps its lines anew are counted as they were, by any program; that
    such a race loses nothing is a test of its own.
    """
    os.kill(shown.process(), signal.SIGSTOP)
    time.sleep(0.2)
    yield
    time.sleep(0.4)  # tmux tells of sizes at intervals of a quarter of a second
    os.kill(shown.process(), signal.SIGCONT)


@pytest.mark.parametrize(("columns", "rows"), [(40, 24), (60, 15), (120, 30)])
def test_no_line_is_lost_or_doubled_when_the_terminal_changes_its_size_in_an_answer(tmp_path, columns, rows):
    answer = long_answer(70)
    with terminal(answer, tmp_path, pause=RESIZED) as shown:
        for number in range(3):
            shown.wait_for(reached(10 + 20 * number))
            with at_rest(shown):
                shown.resize(columns, rows)
            with at_rest(shown):
                shown.resize(80, 24)
        screen = shown.wait_for(END)
    assert seen(screen) == seen(answer)


@pytest.mark.parametrize(("columns", "rows"), [(40, 24), (60, 24), (30, 24), (80, 10), (40, 10), (120, 24), (120, 40)])
def test_no_line_of_a_long_paragraph_is_lost_or_doubled_when_the_terminal_changes_its_size_in_it(
    tmp_path, columns, rows
):
    answer = long_paragraph(90)
    with terminal(answer, tmp_path, pause=RESIZED) as shown:
        for number, size in [(20, (columns, rows)), (40, (80, 24)), (60, (columns, rows))]:
            shown.wait_for(reached(number))
            with at_rest(shown):
                shown.resize(*size)
        screen = shown.wait_for(END)
    assert seen(screen) == seen(answer)


@pytest.mark.parametrize("answer", [long_paragraph(120), long_answer(70)], ids=["paragraph", "blocks"])
def test_no_line_is_lost_when_the_size_changes_faster_than_the_program_is_told(tmp_path, answer):
    with terminal(answer, tmp_path, pause=0.004) as shown:
        for number in (10, 30):
            shown.wait_for(reached(number))
            for size in [(120, 40), (30, 8), (80, 24)]:
                shown.resize(*size)
                time.sleep(0.15)
        screen = shown.wait_for(END)
    assert set(seen(screen)) == set(seen(answer))
    # What was live at the first resize may be there twice, and never more than that.
    assert (seen(screen) - seen(answer)).total() <= 2 * 7


def test_rows_of_a_paragraph_are_in_the_scrollback_before_it_ends(tmp_path):
    answer = long_paragraph(90)
    with terminal(answer, tmp_path, rows=10, pause=0.005) as shown:
        screen = shown.wait_for(reached(60))
    assert END not in screen
    counts = seen(screen)
    # Three numbered lines are a row, and two rows and the one being written may still change.
    assert all(counts[number] == 1 for number in range(1, 51))


def styled(coloured: str) -> list[tuple[str, frozenset[str]]]:
    """Each character but spaces, with the codes that are on at it."""
    codes: frozenset[str] = frozenset()
    characters = []
    for code, character in re.findall(r"\x1b\[([\d;]*)m|(\S)", coloured):
        if character:
            characters.append((character, codes))
        for part in [] if character else (code or "0").split(";"):
            codes = frozenset() if part == "0" else codes | {part}
    return characters


def test_words_keep_their_style_though_the_rows_of_a_paragraph_come_one_by_one(tmp_path):
    passage = (
        "Plain words to begin with and then **some that are bold, so many that they take more than two rows of this "
        "narrow terminal, until here**, `code_with_underscores`, 2 * 3, snake_case, [a link](https://example.org/a_b) "
        "with *slanted words, and **bold ones** in them*, and ~~struck out~~ ones, about ~10. "
    )
    answer = passage * 3
    with terminal(answer, tmp_path, columns=40, pause=0.004) as shown:
        shown.wait_for("exit code 0")
        one_by_one = styled(shown.tmux("capture-pane", "-p", "-e", "-S", "-500"))
    with terminal(answer, tmp_path, columns=40) as shown:
        shown.wait_for("exit code 0")
        at_once = styled(shown.tmux("capture-pane", "-p", "-e", "-S", "-500"))
    assert one_by_one == at_once
    text = "".join(character for character, _ in at_once)
    for words, code in [("untilhere", "1"), ("code_with_underscores", "36"), ("boldones", "3"), ("struckout", "9")]:
        for found in re.finditer(words, text):
            assert all(code in codes for _, codes in at_once[found.start() : found.end()])


def test_ctrl_c_in_the_middle_of_a_paragraph_loses_and_doubles_nothing_of_it(tmp_path):
    answer = long_paragraph(200)
    with terminal(answer, tmp_path, pause=0.005) as shown:
        shown.wait_for(reached(40))
        shown.type("C-c")
        screen = shown.wait_for("stopped after")
    told, _, written = unspaced(screen).partition("/thinkshow")[2].partition("stoppedafter")
    length = int(re.match(r"\d+", written)[0])
    assert 40 * 20 < length < len(answer)
    assert told.removesuffix("^C") == unspaced(answer[:length])


def test_what_is_left_is_whole_markdown_with_code_that_can_be_copied(tmp_path):
    code = ["def f():", "    return 'a long line, longer than this terminal is wide, and not broken'", "", "f()"]
    answer = "\n".join(["# Title", "Some *words* and `code`.", "```python", *code, "```", "1. one", "2. two"])
    with terminal(answer, tmp_path, columns=40) as shown:
        shown.wait_for("exit code 0")
        copied = shown.tmux("capture-pane", "-p", "-J", "-S", "-200")
    lines = [line.rstrip() for line in copied.splitlines()]
    assert lines[:2] == ["thought for 0.0 s, /think show", ""]
    start = lines.index(code[0])
    assert lines[start : start + 4] == code
    assert lines[2:start] == ["Title", "", "Some words and code.", ""]
    rest = "\n".join(lines[start + 4 :])
    assert re.search(r"\n *1 one\n *2 two\n\n→ weather\(city=\"Plzeň\", days=3\)\n  {\"hours\": \[0, 1, 2,", rest)


@pytest.mark.parametrize("columns", [30, 80])
def test_of_a_tools_result_eight_rows_are_shown_and_how_much_more_there_is(tmp_path, columns):
    with terminal("", tmp_path, columns=columns) as shown:
        screen = shown.wait_for("exit code 0")
    beneath_the_call = re.split(r"days ?= ?3\)?\n", screen)[1]
    rows = [line.rstrip() for line in beneath_the_call.partition("\n\n")[0].split("\n")]
    assert len(rows) == 9
    assert all(row.startswith("  ") and len(row) <= columns for row in rows)
    shown_of_it = " ".join(row.strip() for row in rows[:8])
    result = json.dumps({"hours": list(range(1000))})
    assert result.startswith(shown_of_it)
    assert rows[8] == f"  … {len(result) - len(shown_of_it) - 1:,} more characters"  # the rest begins behind a space


def test_thoughts_are_shown_dim_when_they_are_wanted(tmp_path):
    with terminal("Yes.", tmp_path, "think", columns=40) as shown:
        shown.wait_for("exit code 0")
        coloured = shown.tmux("capture-pane", "-p", "-e").splitlines()
    assert [line.replace("\x1b[0m", "") for line in coloured[:4]] == [
        "\x1b[2mWhat is asked?",
        "A list, perhaps.",
        "",
        coloured[3].replace("\x1b[0m", ""),
    ]
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured[3]) == "Yes."


def test_a_line_the_model_ends_ends_on_the_screen(tmp_path):
    with terminal("call 4 2\nFrench: appelle *quatre* deux\n\n- one\n  and its end", tmp_path) as shown:
        screen = shown.wait_for("exit code 0")
    assert "call 4 2\nFrench: appelle quatre deux\n\n • one\n   and its end" in screen


def test_a_models_words_cannot_move_the_cursor(tmp_path):
    with terminal("one\x1b[2J\x1b[H\x07\r two\x9b3D three\n\n```\n\x1b]0;title\x07code\n```", tmp_path) as shown:
        screen = shown.wait_for("exit code 0")
    assert "one[2J[H\ntwo3D three" in screen
    assert "]0;titlecode" in screen


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}])
def test_without_colour_the_text_goes_out_as_it_comes(tmp_path, variables):
    with terminal("# Title\n\n**bold** text", tmp_path, **variables) as shown:
        screen = shown.wait_for("exit code 0")
        assert "\x1b" not in shown.tmux("capture-pane", "-p", "-e")
    assert screen.startswith("# Title\n\n**bold** text\ncalls weather(")


def test_only_the_sixteen_colours_of_the_palette_are_used(tmp_path):
    answer = long_answer(60) + "\n\n```diff\n- a\n+ b\n```\n\n> quote `x` [link](https://example.org)\n\n---\n"
    with terminal(answer, tmp_path, COLORTERM="truecolor") as shown:
        shown.wait_for("exit code 0")
        codes = set(re.findall(r"\x1b\[([0-9;]*)m", shown.tmux("capture-pane", "-p", "-e", "-S", "-500")))
    attributes = {part for code in codes for part in code.split(";")}
    # Bold, dim, italic, underlined and their ends; red, green, magenta, cyan; the terminal's own colours.
    assert attributes <= {"", "0", "1", "2", "3", "4", "22", "23", "24", "31", "32", "35", "36", "39", "49"}


def test_a_pipe_gets_the_answer_alone(tmp_path):
    file = tmp_path / "answer.md"
    file.write_text("# Title\n\n\x1b[2J **bold**")
    finished = subprocess.run(
        [*PROGRAM, file, "0", "think"], capture_output=True, text=True, check=True, env=environment()
    )
    assert finished.stdout == "# Title\n\n\x1b[2J **bold**\nThat is **all**.\n"
    assert finished.stderr.startswith(
        'What is asked?\nA list, perhaps.\ncalls weather(city="Plzeň", days=3)\nweather: {"hours": [0, 1,'
    )
