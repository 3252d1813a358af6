"""Long jobs keep a Mac awake: a script stands for `caffeinate`, which Linux has not."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from gemma4_mlx.app.awake import kept_awake

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has a caffeinate of its own, and no /proc")

CAFFEINATE = """\
#!/bin/sh
echo "$@" > {folder}/asked
exec {sleep} 60
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which it is written down what was asked for."""
    sleep = "/bin/sleep"
    (tmp_path / "caffeinate").write_text(CAFFEINATE.format(folder=tmp_path, sleep=sleep))
    (tmp_path / "caffeinate").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "asked"


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_the_machine_is_kept_awake_as_long_as_the_job_takes(asked):
    before = children()
    with kept_awake():
        deadline = time.monotonic() + 10
        while not asked.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(children() - before) == 1
    assert asked.read_text().split() == ["-i", "-w", str(os.getpid())]
    assert children() == before


def test_a_job_that_fails_lets_it_sleep_again(asked):
    before = children()
    with pytest.raises(ZeroDivisionError), kept_awake():
        raise ZeroDivisionError
    assert children() == before


def test_without_the_command_or_with_one_that_cannot_be_run_the_job_is_done(asked, tmp_path, monkeypatch):
    (tmp_path / "caffeinate").write_text("no script")
    with kept_awake():
        pass
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with kept_awake():
        pass
