"""The command line before any work: help, version, wrong usage. Through the real command."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from command_line import COMMAND, environment, run

HEAVY = {
    "mlx",
    "mlx_lm",
    "numpy",
    "av",
    "PIL",
    "soxr",
    "rich",
    "huggingface_hub",
    "tokenizers",
    "transformers",
    "torch",
}


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["chat", "--help"], ["transcribe", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    program = f"import sys; sys.argv = ['gemma4-mlx', *{arguments}]; from gemma4_mlx.app.cli import main; main()"
    finished = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0
    assert "Usage: gemma4-mlx" in finished.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & HEAVY


def test_importing_the_package_loads_nothing_heavy():
    program = f"import gemma4_mlx, sys; print(sorted({HEAVY} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_the_version_is_the_packages():
    import gemma4_mlx

    assert run("--version").stdout == f"gemma4-mlx {gemma4_mlx.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ask"],
        ["ask", "hi", "--no-such-option"],
        ["ask", "hi", "--max-tokens", "0"],
        ["ask", "hi", "--max-tokens", "-3"],
        ["ask", "hi", "--temperature", "-1"],
        ["transcribe"],
        ["transcribe", "memo.m4a", "--format", "docx"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_leaves_stdout_empty(arguments):
    finished = run(*arguments)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert "Error: " in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "closed"),
    [("chat -m demo", "<&-"), ("ask hi -m demo", "2>&- <&-"), ("--version", ">&-"), ("models", ">&-")],
)
def test_a_stream_that_is_closed_is_as_one_that_leads_nowhere(arguments, closed):
    line = f"{shlex.join(COMMAND)} {arguments} {closed}"
    finished = subprocess.run(line, shell=True, env=environment(), capture_output=True, text=True)
    assert finished.returncode == 0
    assert "rror" not in finished.stderr
