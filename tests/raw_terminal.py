"""The real command behind a pty of any size, of which every byte that it writes is kept. Not a test itself."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from command_line import COMMAND, scratch

# Runs a program whose terminal stdin is; see `command_line.run` for why not with `preexec_fn`.
CONTROLLED = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class RawTerminal:
    """A context manager; it answers no question that a program asks a terminal.

    Args:
        arguments: of `gemma4-mlx`, or of `program`.
        size: columns and rows.
        piped: of "stdout" and "stderr", those that are no terminal.
    """

    def __init__(
        self,
        *arguments: str | Path,
        environment: Mapping[str, str],
        size: tuple[int, int] = (80, 24),
        piped: Sequence[str] = (),
        cwd: Path | None = None,
        program: Sequence[str] = COMMAND,
    ) -> None:
        self._master, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLED, *program, *map(str, arguments)],
            stdin=terminal,
            stdout=subprocess.PIPE if "stdout" in piped else terminal,
            stderr=subprocess.PIPE if "stderr" in piped else terminal,
            env=dict(environment),
            cwd=cwd or scratch(),
            start_new_session=True,
        )
        os.close(terminal)
        self.written = ""

    def __enter__(self) -> RawTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        os.close(self._master)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """All that was written, once the regular expression is in it."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.written):
            assert time.monotonic() < end, f"{pattern!r} never came: {self.written!r}"
            self._read(0.1)
        return self.written

    def ended(self, seconds: float = 60) -> int:
        """The exit code, once all is written."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it goes on: {self.written!r}"
            self._read(0.1)
        while self._read(0.0):
            pass
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux: the last one on the other side has left
            return False
        self.written += data.decode("utf-8", "replace")
        return bool(data)
