"""``python -m tools.screenshot``: the chat as it looks, for the README: typed into a terminal (tmux), drawn as SVG.

A picture of two shapes, drawn anew, is dropped on the built-in model. Needs tmux.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gemma4_mlx.app.demo.demo_picture import draw_two_shapes, random_things
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

OUTPUT = Path(__file__).parents[1] / "docs" / "chat.svg"
COLUMNS, ROWS = 76, 18
SEED = 7
PATIENCE = 60.0  # seconds
# What a terminal's sixteen colours look like is its own affair; this is a dark one.
THEME = TerminalTheme(
    (24, 26, 31), (216, 220, 228),
    [(40, 44, 52), (224, 108, 117), (152, 195, 121), (229, 192, 123),
     (97, 175, 239), (198, 120, 221), (86, 182, 194), (216, 220, 228)],
)  # fmt: skip


def tmux(*arguments: str, text: str | None = None) -> str:
    """Call tmux on a server of our own; returns what it prints."""
    command = ["tmux", "-L", "screenshot", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def wait_for(pattern: str) -> None:
    """Until the screen shows it."""
    end = time.monotonic() + PATIENCE
    while not re.search(pattern, tmux("capture-pane", "-p")):
        if time.monotonic() > end:
            raise SystemExit(f"{pattern!r} never came:\n{tmux('capture-pane', '-p')}")
        time.sleep(0.05)


def ask(words: str, answer: str) -> None:
    """Type a message and wait until the answer has ended and the next prompt is there."""
    tmux("send-keys", "-l", words)
    tmux("send-keys", "Enter")
    wait_for(rf"(?s){re.escape(words)}.*{answer}.*\n> *\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        picture = Path(home, "two shapes.png")
        draw_two_shapes(random_things(random.Random(SEED)), random.Random(SEED)).image.save(picture)
        chat = [str(Path(sys.executable).with_name("gemma4-mlx")), "chat", "--model", "demo", "--temperature", "0"]
        environment = [f"HOME={home}", "HF_HUB_OFFLINE=1", "COLORTERM=truecolor", f"PATH={os.environ['PATH']}"]
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        tmux("-f", "/dev/null", "new-session", "-d", *size, shlex.join(["env", *environment, *chat]))
        try:
            wait_for(r"(?m)^> *$")
            tmux("load-buffer", "-", text=shlex.quote(str(picture)))
            tmux("paste-buffer", "-p")
            wait_for("image 1")
            ask("What is in this picture?", r"\w")
            ask("Does my data leave this Mac?", r"\.")
            time.sleep(1.5)  # the footer is drawn once a second
            screen = tmux("capture-pane", "-p", "-e")
        finally:
            tmux("kill-server")
    with Path(os.devnull).open("w") as nowhere:
        console = Console(file=nowhere, record=True, width=COLUMNS, force_terminal=True)
        console.print(Text.from_ansi(screen), soft_wrap=True)
    svg = console.export_svg(title="gemma4-mlx chat", theme=THEME)
    OUTPUT.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
