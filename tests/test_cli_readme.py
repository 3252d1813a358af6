"""What the README shows must run: its commands are accepted and its Python works, on a small random model."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from command_line import checkpoint, picture, run

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^gemma4-mlx .+$", README, flags=re.MULTILINE)


def test_the_readme_shows_commands():
    assert len(COMMANDS) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_the_readme_has_options_that_exist(command):
    arguments = shlex.split(command.partition("<")[0], comments=True)[1:]
    assert run(*arguments, "--help").returncode == 0


def test_the_python_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    (program,) = re.findall(r"^```python\n(.+?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    picture("photo.jpg").rename(tmp_path / "photo.jpg")
    shutil.copy(Path(__file__).parent / "tiny" / "speech.flac", tmp_path / "memo.m4a")
    monkeypatch.chdir(tmp_path)
    program = program.replace('"e2b"', repr(str(checkpoint()))).replace("messages)", "messages, max_tokens=8)")
    exec(program, {})
    assert capsys.readouterr().out.strip()
