"""A real terminal (tmux) with the real command in it, for tests that type and look.

Not a test itself.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from command_line import COMMAND, scratch


class TmuxTerminal:
    """A context manager. When the command has ended, the screen says "exit code" and the code.

    Args:
        arguments: of `gemma4-mlx`, or of `program`.
        environment: of the command; TERM is tmux's.
        columns, rows: of the screen.
        cwd: where the command starts.
        program: what to run instead of `gemma4-mlx`.
    """

    def __init__(
        self,
        *arguments: str | Path,
        environment: Mapping[str, str],
        columns: int = 80,
        rows: int = 24,
        cwd: Path | None = None,
        program: Sequence[str] = COMMAND,
    ) -> None:
        if shutil.which("tmux") is None:
            pytest.skip("tmux is not installed")
        self.socket = f"gemma4-mlx-{uuid.uuid4().hex[:8]}"
        variables = [f"{name}={value}" for name, value in environment.items() if name != "TERM"]
        # Whoever started the tests may have put another terminal's size into the environment.
        command = ["env", "-u", "COLUMNS", "-u", "LINES", *variables, *program, *map(str, arguments)]
        line = f"{shlex.join(command)}; echo exit code $?; exec sleep 1000"
        size = ["-x", str(columns), "-y", str(rows)]
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(cwd or scratch()), line)

    def __enter__(self) -> TmuxTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.tmux("kill-server")

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self.socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def process(self) -> int:
        """The command's own, which must have no other beside it."""
        shell = self.tmux("list-panes", "-F", "#{pane_pid}").strip()
        return int(subprocess.run(["pgrep", "-P", shell], capture_output=True, text=True, check=True).stdout)

    def type(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""
        self.tmux("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Let the terminal paste, bracketed, as it does when a file is dropped on it."""
        subprocess.run(["tmux", "-L", self.socket, "load-buffer", "-"], input=text, text=True, check=True, timeout=60)
        self.tmux("paste-buffer", "-p", "-r")

    def resize(self, columns: int, rows: int) -> None:
        """Make the terminal another size; tmux wraps what is on it anew."""
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self) -> str:
        """All that has been shown, scrolled-off lines included."""
        return self.tmux("capture-pane", "-p", "-S", "-1000")

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """The screen, once the regular expression `pattern` is on it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            screen = self.screen()
            if re.search(pattern, screen):
                return screen
            time.sleep(0.05)
        pytest.fail(f"{pattern!r} never came:\n{screen}")
