"""Ctrl-C at random moments of a chat in a real terminal. Not a test itself; `bench/ctrl_c.py` does it many times."""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tmux_terminal import TmuxTerminal

PROGRAM = [sys.executable, str(Path(__file__).with_name("slow_chat.py"))]
RECORDING = Path(__file__).with_name("demo_recordings") / "awb-1-1-4.flac"
GREETING, QUESTION = "Hello!", "Does my data leave this Mac?"
MESSAGES = {
    "load": GREETING,
    "prompt": "Tell me about the sea and the hills. " * 40,
    "answer": "What can you do?",
    "tool call": "call it",
    "transcription": "Transcribe the following speech segment in English into English text.",
}
# What stands on the screen when Ctrl-C was answered. The last one: the answer was over already.
ANSWERED = r"stopped; what was written|your message was taken back|Ctrl-C again leaves"
TOOLS = '''
import time

def wait() -> str:
    """Wait for a while."""
    time.sleep(1)
    return "waited"
'''


def disturbed_chats(
    rounds: int, seed: int, folder: Path, environment: Mapping[str, str], say: Callable[[str], None] = lambda _: None
) -> None:
    """In each of so many rounds Ctrl-C falls once, somewhere into one of `MESSAGES`.

    Raises:
        AssertionError: the chat did not live, or its next answer is not that of a chat that nobody disturbed.
        pytest.fail.Exception: the same.
    """
    chance = random.Random(seed)
    (folder / "tools.py").write_text(TOOLS)
    kinds = [list(MESSAGES)[number % len(MESSAGES)] for number in range(rounds)]
    with _chat(folder, environment, load_seconds=0) as terminal:
        greeting = _answer(terminal, GREETING)
        undisturbed = _answer(terminal, QUESTION)
        assert "No. Everything runs on this Mac" in undisturbed
        _command(terminal, "/undo", "taken back: Does")
        for number, kind in enumerate(kinds):
            if kind != "load":
                seconds = chance.uniform(0, 2)
                _forget_screen(terminal)
                if kind == "transcription":
                    terminal.type("-l", f"/audio {RECORDING}")
                    terminal.type("Enter")
                    terminal.wait_for(r"(?m)^> \[audio 1: ")
                outcome = _disturb(terminal, MESSAGES[kind], seconds)
                say(f"{number:4} {kind:13} {seconds:.2f} s  {outcome}")
                _same(_answer(terminal, QUESTION), undisturbed, f"after {kind} at {seconds} s", terminal)
                _command(terminal, "/undo", "taken back: Does")
        terminal.type("C-d")
        terminal.wait_for("exit code 0")
    for number, kind in enumerate(kinds):
        if kind == "load":
            with _chat(folder, environment, load_seconds=1) as terminal:
                seconds = chance.uniform(0, 2)
                _forget_screen(terminal)
                outcome = _disturb(terminal, GREETING, seconds)
                say(f"{number:4} {kind:13} {seconds:.2f} s  {outcome}")
                when = f"after {kind} at {seconds} s: {outcome}"
                _same(_answer(terminal, GREETING), greeting, when, terminal)
                _same(_answer(terminal, QUESTION), undisturbed, when, terminal)


def _same(answer: str, undisturbed: str, when: str, terminal: TmuxTerminal) -> None:
    assert answer == undisturbed, f"{when}\n{answer!r}\n{undisturbed!r}\n{terminal.screen()}"


def _chat(folder: Path, environment: Mapping[str, str], load_seconds: float) -> TmuxTerminal:
    options = ("--model", "demo", "--temperature", "0", "--tools", folder / "tools.py", "--yes")
    terminal = TmuxTerminal(
        *(str(load_seconds), "chat", *options),
        environment=environment,
        columns=100,
        rows=40,
        cwd=folder,
        program=PROGRAM,
    )
    terminal.wait_for(r"(?m)^> *$")
    return terminal


def _disturb(terminal: TmuxTerminal, message: str, seconds: float) -> str:
    """Send a message, press Ctrl-C, and take back what has come of it; what the chat said."""
    terminal.type("-l", message)
    terminal.type("Enter")
    time.sleep(seconds)
    terminal.type("C-c")
    terminal.wait_for(ANSWERED)
    outcome = re.findall(ANSWERED, terminal.screen())[-1]
    if outcome == "your message was taken back":
        terminal.wait_for(r"taken back\n+> \S")  # it is back in the line
        terminal.type("C-c")  # clears it
    else:
        _command(terminal, "/undo", f"taken back: {re.escape(message[:20])}")
    return outcome


def _command(terminal: TmuxTerminal, command: str, told: str) -> None:
    _forget_screen(terminal)
    terminal.type("-l", command)
    terminal.type("Enter")
    terminal.wait_for(told)


def _answer(terminal: TmuxTerminal, message: str) -> str:
    """What stands between a message and the prompt after it."""
    _forget_screen(terminal)
    terminal.type("-l", message)
    terminal.type("Enter")
    screen = terminal.wait_for(rf"(?s)> {re.escape(message)}\n.*\n> *\n")
    return screen.rpartition(f"> {message}\n")[2].partition("\n>")[0].strip()


def _forget_screen(terminal: TmuxTerminal) -> None:
    """What has been shown so far goes out of sight, so that what is waited for is new."""
    terminal.wait_for(r"(?m)^> *$")
    terminal.type("C-l")
    end = time.monotonic() + 20
    while terminal.tmux("capture-pane", "-p").partition("\n")[0].strip() != ">" and time.monotonic() < end:
        time.sleep(0.05)
    terminal.tmux("clear-history")
