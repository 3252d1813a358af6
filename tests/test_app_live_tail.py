"""What is drawn again and again leaves nothing behind, whatever size the terminal takes meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from gemma4_mlx.app.live_tail import Line, LiveTail
from gemma4_mlx.app.progress import Progress
from gemma4_mlx.app.speech.file_progress import FileProgress
from gemma4_mlx.app.speech.live_screen import LiveScreen
from gemma4_mlx.app.terminal import console, note

from gemma4_mlx.speech import Event
from reflowing_terminal import ReflowingTerminal

SIZES = [(200, 60), (40, 10), (80, 24), (20, 6), (200, 60), (60, 10), (120, 5), (40, 10)]


class Clock:
    """Every look at it is a second later: all that may be drawn is."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def terminal(monkeypatch) -> Iterator[ReflowingTerminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    made = ReflowingTerminal(*SIZES[0])
    yield made
    made.close()


def words(terminal: ReflowingTerminal) -> list[str]:
    return [line for line in terminal.lines if line]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((200, 60), (40, 10)),
        ((200, 60), (100, 30)),
        ((40, 10), (200, 60)),
        ((40, 10), (20, 5)),
        ((80, 24), (40, 10)),
        ((120, 16), (60, 8)),
        ((20, 6), (10, 3)),
    ],
)
@pytest.mark.parametrize("cells", [0, 1, 39, 160])
def test_every_live_line_can_be_erased_in_a_terminal_half_as_large_or_small(terminal, before, after, cells):
    terminal.resize(*before)
    tail = LiveTail(terminal, Clock())
    width = min(cells, before[0])
    tail.replace([Line("stands", 6)] * 70, [Line("x" * width, width)] * 40)
    assert width == 0 or "x" in words(terminal)[-1]
    terminal.resize(*after)
    tail.replace([], [])
    assert words(terminal) == ["stands"] * 70


def test_how_far_work_is_stands_on_one_line_and_is_gone_at_the_end(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("fetching a model with a rather long name, 写真の中, into the cache of the Hub") as progress:
        for number, size in enumerate(SIZES):
            terminal.resize(*size)
            progress.show(f"{number}.0 of 5.5 GB, 24 MB/s, 3 min left")
            assert len(words(terminal)) <= 1
            note("something else")
    assert words(terminal) == ["something else"] * len(SIZES)


def test_what_comes_after_the_end_is_not_shown(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("fetching") as progress:
        progress.show("1 GB")
    progress.show("2 GB")
    assert words(terminal) == []


def test_the_bar_of_a_recording_leaves_nothing(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    with FileProgress("a talk with a rather long name.m4a", begun_at=0.0, now=Clock()) as progress:
        for number, size in enumerate(SIZES):
            terminal.resize(*size)
            progress.show(60.0 * number, 6_000.0)
            assert len(words(terminal)) <= 1
            note("something else")
    assert words(terminal) == ["something else"] * len(SIZES)


def test_what_is_being_said_leaves_no_half_sentence(terminal):
    text = " ".join(f"word{number}" for number in range(60))
    screen = LiveScreen(console(terminal), "listening", Clock())
    with screen:
        for number, size in enumerate(SIZES):
            terminal.resize(*size)
            for length in (40, 200, 400):
                screen.event(Event("partial", text[:length], text[:length], 0.0, 1.0, certain=text[: length // 2]))
                screen.sound(np.ones(160, np.float32), 1.0, True, ["the microphone delivers complete silence"])
            screen.event(Event("final", f"final {number}", f"fin {number}", 0.0, 1.0, certain=""))
    shown = [word for line in words(terminal)[1:] for word in line.split() if word != "0:00"]
    assert shown == [word for number in range(len(SIZES)) for word in ("final", str(number), "fin", str(number))]
