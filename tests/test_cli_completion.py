"""The shell's tab key: in bash as a person presses it, and what the program answers to any shell."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import COMMAND
from gemma4_mlx.checkpoint.builtin import FOLDER
from gemma4_mlx.checkpoint.hub import SHORT_NAMES
from tmux_terminal import TmuxTerminal
from users import User

PROGRAM = Path(sys.executable).with_name("gemma4-mlx")
SYNTAX_CHECK = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}
CACHED = "someone/gemma-4-tiny-it"


@pytest.fixture
def user(tmp_path: Path) -> User:
    """Somebody who fetched one of the sizes, another Gemma 4, and a model of another family."""
    user = User(tmp_path)
    config = (FOLDER / "config.json").read_text(encoding="utf-8")
    for repo_id, described in (
        (SHORT_NAMES["e2b"], config),
        (CACHED, config),
        ("someone/llama", json.dumps({"model_type": "llama"})),
    ):
        snapshot = user.cache / f"models--{repo_id.replace('/', '--')}" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(described, encoding="utf-8")
    user.more = {"PATH": f"{PROGRAM.parent}:{user.environment['PATH']}"}
    return user


def completed(user: User, line: str, *python: str) -> subprocess.CompletedProcess[str]:
    """What the program answers bash for the last word of `line`; the program's own name in it is left out."""
    words = f"gemma4-mlx {line}"
    asked = {"_GEMMA4_MLX_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    # The name the shell script calls it by is part of the question.
    program = "import sys; sys.argv = ['gemma4-mlx']; " + COMMAND[-1]
    return subprocess.run(
        [sys.executable, *python, "-c", program],
        env={**user.environment, **asked},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def candidates(user: User, line: str) -> list[str]:
    return completed(user, line).stdout.split()


def script(user: User, shell: str) -> str:
    """What `--show-completion` prints; the variable makes it take the shell's name instead of looking for it."""
    user.more["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    return subprocess.run(
        [PROGRAM, "--show-completion", shell], env=user.environment, capture_output=True, text=True, check=True
    ).stdout


def test_commands_complete(user):
    assert candidates(user, "tr") == ["transcribe"]
    assert candidates(user, "mod") == ["models"]
    assert candidates(user, "models p") == ["pull"]


def test_model_names_complete_with_what_was_fetched_before(user):
    everything = ["e2b", "e4b", "12b", "26b", "31b", "demo", SHORT_NAMES["e2b"], CACHED]
    assert candidates(user, "ask --model ") == everything
    assert candidates(user, "chat -m e") == ["e2b", "e4b"]
    assert candidates(user, "models pull d") == ["demo"]
    assert candidates(user, "bench --model someone/") == [CACHED]


def test_only_what_is_here_completes_for_removal(user):
    assert candidates(user, "models rm ") == ["e2b", SHORT_NAMES["e2b"], CACHED]


def test_completing_loads_nothing_slow(user):
    finished = completed(user, "ask --model ", "-X", "importtime")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"mlx", "mlx_lm", "numpy", "transformers", "httpx", "requests", "PIL", "av", "prompt_toolkit"}


@pytest.mark.skipif(shutil.which("bash") is None or not PROGRAM.exists(), reason="bash or the program is not installed")
def test_in_bash_the_tab_key_completes_a_command_and_a_model(user):
    setup = user.home / "bashrc"
    setup.write_text(f"PS1='$ '\n{script(user, 'bash')}\n", encoding="utf-8")
    bash = ["bash", "--noprofile", "--rcfile", str(setup), "-i"]
    with TmuxTerminal(environment=user.environment, cwd=user.home, program=bash) as terminal:
        terminal.wait_for(r"^\$")
        terminal.type("gemma4-mlx tr", "Tab")
        terminal.wait_for("gemma4-mlx transcribe")
        terminal.type("memo.m4a --model e4", "Tab")
        terminal.wait_for("transcribe memo.m4a --model e4b")


@pytest.mark.parametrize("shell", SYNTAX_CHECK)
def test_the_script_for_each_shell_is_one_that_it_takes(user, shell):
    if shutil.which(shell) is None or not PROGRAM.exists():
        pytest.skip(f"{shell} or the program is not installed")
    file = user.home / "script"
    file.write_text(script(user, shell), encoding="utf-8")
    assert "gemma4-mlx" in file.read_text(encoding="utf-8")
    subprocess.run([*SYNTAX_CHECK[shell], str(file)], check=True, capture_output=True)
