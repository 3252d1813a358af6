"""A chat's start, beside its peers': seconds until it takes a key, and until it answers the first question.

    python bench/chat_start.py [--rounds 3]

Each chat is the real command in a pseudo-terminal, in turn, with the built-in model. The larger a model, the longer the
peers' prompts take; this one's does not wait for it.
"""

from __future__ import annotations

import argparse
import os
import pty
import select
import shutil
import signal
import statistics
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

from gemma4_mlx.checkpoint.builtin import FOLDER

QUESTION, ANSWER = "Does my data leave this Mac?", "Everything runs"
PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class Chat:
    """A command, and what its prompt looks like."""

    command: list[str]
    prompt: str


def chats() -> dict[str, Chat]:
    """Those that are installed."""
    here = Path(sys.executable).parent
    found = {"gemma4-mlx chat": Chat([str(here / "gemma4-mlx"), "chat", "--model", "demo", "--temperature", "0"], "m>")}
    peers = {
        "mlx_lm.chat": Chat([str(here / "mlx_lm.chat"), "--model", str(FOLDER)], "›"),
        "mlx_vlm.chat": Chat([str(here / "mlx_vlm.chat"), "--model", str(FOLDER), "--temperature", "0"], "You"),
    }
    return found | {name: chat for name, chat in peers.items() if shutil.which(chat.command[0])}


class Terminal:
    """A command in a pseudo-terminal; answers what prompt_toolkit asks one for."""

    def __init__(self, command: list[str]) -> None:
        self.started = time.monotonic()
        self.process, self.keyboard = pty.fork()
        if self.process == 0:
            os.execve(command[0], command, {**os.environ, "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1"})
        termios.tcsetwinsize(self.keyboard, (24, 80))
        self.screen = b""

    def seconds_until(self, text: str, after: int = 0) -> float:
        """Seconds from the start until `text` has been shown behind the first `after` bytes."""
        while text.encode() not in self.screen[after:]:
            left = self.started + PATIENCE - time.monotonic()
            if not select.select([self.keyboard], [], [], max(left, 0))[0]:
                raise SystemExit(f"{text!r} never came:\n{self.screen.decode(errors='replace')[-2000:]}")
            try:
                shown = os.read(self.keyboard, 65536)
            except OSError:  # Linux's way of saying that the command has ended
                shown = b""
            if not shown:
                raise SystemExit(f"it ended:\n{self.screen.decode(errors='replace')[-2000:]}")
            self.screen += shown
            if b"\x1b[6n" in shown:  # where is the cursor?
                os.write(self.keyboard, b"\x1b[1;1R")
        return time.monotonic() - self.started

    def type(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode())

    def close(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.keyboard)


def run(chat: Chat) -> tuple[float, float]:
    """Seconds to the echo of the first key, and to the answer."""
    terminal = Terminal(chat.command)
    try:
        terminal.seconds_until(chat.prompt)
        before = len(terminal.screen)
        terminal.type(QUESTION[0])
        key = terminal.seconds_until(QUESTION[0], before)
        terminal.type(QUESTION[1:] + "\r")
        return key, terminal.seconds_until(ANSWER, before)
    finally:
        terminal.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found = chats()
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for turn in range(rounds):
        for name in found if turn % 2 else reversed(found):
            results[name].append(run(found[name]))
    print(f"{'':18} first key  first answer")
    for name, runs in results.items():
        key, answer = (statistics.median(row) for row in zip(*runs, strict=True))
        print(f"{name:18} {key:7.2f} s {answer:11.2f} s")


if __name__ == "__main__":
    main()
