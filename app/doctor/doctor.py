"""`gemma4-mlx doctor`: everything this program stands on, looked at in a few seconds, and what to do where it fails."""

from __future__ import annotations

import json
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TextIO

from ..exit_codes import FAILED, one_line
from ..printable import printable
from ..progress import Progress
from ..terminal import draw, say, shows_colour, shows_lines, terminal_size
from .findings import Check, Finding, Status

_MARKS: dict[Status, tuple[str, str]] = {"ok": ("✓", "32"), "warning": ("⚠", "33"), "failed": ("✗", "31")}
_PATIENCE = 3.0  # seconds for everything that waits for others
_INDENT = 14


def doctor(as_json: bool) -> None:
    """Look at everything and print what was found.

    Raises:
        SystemExit: something failed.
    """
    from .doctor_checks import CHECKS

    with Progress("looking at this machine") as progress:
        progress.show("a few seconds")
        found = examine(CHECKS, _PATIENCE)
    failures = sum(finding.status == "failed" for finding in found)
    if as_json:
        fields = {"ok": not failures, "checks": [asdict(finding) for finding in found]}
        say(json.dumps(fields, ensure_ascii=False))
    else:
        for finding in found:
            show(finding, sys.stdout)
    if failures:
        raise SystemExit(FAILED)


def examine(checks: Sequence[Check], patience: float) -> list[Finding]:
    """All findings, in the order of the checks.

    Args:
        patience: seconds after which those that wait for others are given up.
    """
    deadline = time.monotonic() + patience
    waiting = {check.name: _Background(check) for check in checks if check.waits}
    working = {check.name: _looked(check) for check in checks if not check.waits}
    return [
        finding
        for check in checks
        for finding in (waiting[check.name].result(deadline) if check.waits else working[check.name])
    ]


def _looked(check: Check) -> list[Finding]:
    """What a check finds; one that breaks has failed."""
    try:
        return check.look()
    except Exception as error:  # Whatever it is, it is what the person came to find out.
        return [Finding(check.name, "failed", f"{type(error).__name__}: {one_line(error)}")]


class _Background:
    """A check in a thread of its own, which keeps nobody from leaving: a name server may take minutes to say no."""

    def __init__(self, check: Check) -> None:
        self._found: list[Finding] | None = None
        self._check = check
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        self._found = _looked(self._check)

    def result(self, deadline: float) -> list[Finding]:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return self._found or [Finding(self._check.name, "warning", "took too long and was given up")]


def show(finding: Finding, stream: TextIO) -> None:
    """One finding on a line; in a terminal its further lines are indented."""
    mark, colour = _MARKS[finding.status]
    text = printable(finding.text)
    if shows_lines(stream):
        width = max(terminal_size(stream).columns - 1, _INDENT + 20)
        lines = textwrap.wrap(text, width - _INDENT)
        text = f"\n{' ' * _INDENT}".join(lines)
    if shows_colour(stream):
        mark = f"\x1b[{colour}m{mark}\x1b[0m"
    draw(stream, f"{mark} {finding.name:<{_INDENT - 3}} {text}\n")
