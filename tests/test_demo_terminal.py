"""`gemma4-mlx demo` in a real terminal (tmux): each part is left on the screen once, whole, and in order."""

from __future__ import annotations

import re

import pytest

from command_line import environment
from tmux_terminal import TmuxTerminal


def screen_after(columns: int, rows: int, **variables: str) -> str:
    """Everything a terminal of this size shows, scrolled-off lines included, once the demonstration is over."""
    settings = {**environment(), **variables}
    with TmuxTerminal("demo", environment=settings, columns=columns, rows=rows) as terminal:
        return terminal.wait_for(r"exit code \d", seconds=180)


@pytest.mark.parametrize(("columns", "rows", "picture"), [(80, 24, 6), (40, 12, 6), (120, 40, 10)])
def test_each_part_is_left_once_and_in_order(columns, rows, picture):
    lines = screen_after(columns, rows).splitlines()
    titles = ["gemma4-mlx demo", "Looks at", "Listens to", "Translates", "Answers a", "It knows little more"]
    found = [number for title in titles for number, line in enumerate(lines) if title in line]
    assert len(found) == len(titles)
    assert found == sorted(found)
    assert sum(line.startswith("▀" * 3 * picture) for line in lines) == picture
    assert len([line for line in lines if re.search(r"\d\.\d\d s$", line)]) >= 4
    assert re.search(r"gemma4-mlx chat --model [e\d]", "\n".join(lines))
    assert "exit code 0" in lines


@pytest.mark.parametrize(
    "sizes", [[(120, 40), (40, 12), (30, 10)], [(40, 10), (200, 60)], [(80, 24), (60, 24), (24, 8)]]
)
def test_each_part_is_left_once_and_in_order_in_a_window_that_changes_its_size(sizes):
    first, *others = sizes
    with TmuxTerminal("demo", environment=environment(), columns=first[0], rows=first[1]) as terminal:
        for number, size in enumerate(others):
            terminal.wait_for(["Looks at", "Listens to"][number])
            terminal.resize(*size)
        screen = " ".join(terminal.wait_for(r"exit code \d", seconds=180).split())
    for words in (
        "gemma4-mlx demo",
        "Looks at a",
        "Listens to",
        "Translates what",
        "Answers a",
        "It knows little more",
    ):
        assert screen.count(words) == 1, words
    assert not re.search(r" … ", screen)
    assert "exit code 0" in screen


def test_no_color_in_a_terminal_gives_plain_text():
    screen = screen_after(80, 24, NO_COLOR="1")
    assert "▀" not in screen
    assert "Looks at a picture drawn just now\n  What is in this picture?\n" in screen
