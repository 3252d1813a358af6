"""`gemma4-mlx doctor --self-test`: whether this machine computes rightly, a line for each thing that was computed."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma4_mlx.errors import InputError

from ..exit_codes import FAILED
from ..gpu import this_gpu
from ..machine import this_machine
from ..progress import Progress
from ..terminal import note, say
from ..whole_file import write_whole
from .doctor import show
from .findings import Finding, Status

if TYPE_CHECKING:
    from gemma4_mlx.self_test import Check


def run_self_test(as_json: bool, file: Path | None) -> None:
    """Compute everything and print what came out, or write it as JSON, to `file` where there is one.

    Raises:
        InputError: `file` is there already.
        OSError: `file` cannot be written.
        SystemExit: something was computed wrongly.
    """
    if file is not None and os.path.lexists(file):
        raise InputError(f"{file} is there already: name another file")
    from gemma4_mlx.self_test import SCHEMA_VERSION, self_test

    if as_json:
        with Progress("computing everything twice") as progress:
            checks = []
            for check in self_test():
                checks.append(check)
                progress.show(f"{len(checks)}, {check.group}: {check.name}")
    else:
        note("computing everything twice: a minute on a Mac, several where there is no GPU")
        checks = []
        for check in self_test():
            checks.append(check)
            show(finding(check), sys.stdout)
    failures = sum(check.passed is False for check in checks)
    if as_json:
        report = json.dumps(
            {
                "schema": SCHEMA_VERSION,
                "ok": not failures,
                "machine": machine_facts(),
                "checks": [asdict(check) for check in checks],
            },
            ensure_ascii=False,
            allow_nan=False,
            indent=1,
        )
        if file is None:
            say(report)
        else:
            write_whole(file, report + "\n")
            note(f"written to {file}: attach it to a report")
    if failures:
        note(f"{failures} of {len(checks)} went wrong: please report it, with `doctor --self-test --json FILE`")
        raise SystemExit(FAILED)


def finding(check: Check) -> Finding:
    """One check as one line."""
    status: Status = "ok" if check.passed or check.passed is None else "failed"
    if check.value is None:
        text = f"{check.name}: {check.note}"
    elif check.unit == "fused":
        text = f"{check.name}: {'fused' if check.value else f'not fused ({check.note})'}"
    else:
        limit = "" if check.bound is None else f" (at most {check.bound:g})"
        told = f"; {check.note}" if check.note else ""
        text = f"{check.name}: {check.value:.2g} {check.unit}{limit}{told}"
    return Finding(check.group, status, text)


def machine_facts() -> dict[str, Any]:
    """What a reader of a report has to know of the machine; None where it cannot be found out."""
    packages = {name: version(name) for name in ("gemma4-mlx", "mlx", "numpy")}
    return asdict(this_machine()) | {"gpu": asdict(this_gpu()), "python": platform.python_version()} | packages
