"""`gemma4-mlx bench` as a person types it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
from gemma4_mlx.app.bench.report import LABELS, report_dict

from bench_results import check_report, check_row, result
from command_line import checkpoint, environment, only_line, run, scratch, start
from tmux_terminal import TmuxTerminal

SHORT = ("-p", "24", "-g", "4", "-r", "2", "--text-only")


@cache
def earlier() -> Path:
    """The file of a result."""
    done = run("bench", "-m", checkpoint(), *SHORT, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    path = scratch() / "earlier.json"
    path.write_text(done.stdout)
    return path


def test_json_is_one_line_that_the_schema_describes() -> None:
    text = earlier().read_text()
    report = json.loads(only_line(text))
    check_report(report)
    (only,) = report["results"]
    assert only["plan"] == {"prompts": [24], "generations": [4], "depths": [0], "repetitions": 2}
    assert only["software"]["engine"] == "gemma4-mlx"


def test_lists_and_depths_are_all_measured() -> None:
    lists = ("-p", "8,16", "-g", "2", "-d", "0,40", "-r", "1", "--text-only", "--per-layer", "disk")
    done = run("bench", "-m", checkpoint(), *lists, "--format", "jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        check_row(row)
    names = {row["name"] for row in rows if row["kind"] in ("pp", "tg")}
    assert names == {"pp8", "pp16", "tg2", "pp8@40", "pp16@40", "tg2@40"}
    assert {row["per_layer"] for row in rows} == {"disk"}


@pytest.mark.parametrize("form", ["text", "md", "csv"])
def test_tables_for_people_and_spreadsheets(form: str) -> None:
    done = run("bench", "-m", checkpoint("moe"), *SHORT, "-p", "0", "--format", form)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    if form == "csv":
        assert "tg4" in [row["name"] for row in csv.DictReader(io.StringIO(done.stdout))]
    else:
        assert "generation of 4" in done.stdout
        assert "prompt of" not in done.stdout


def test_an_earlier_result_stands_beside_the_new_one() -> None:
    done = run("bench", "-m", checkpoint(), *SHORT, "--compare", earlier(), "--format", "json")
    report = json.loads(only_line(done.stdout))
    check_report(report)
    assert report["results"][1] == json.loads(earlier().read_text())["results"][0]
    assert "pp24" in [pair["name"] for pair in report["comparison"]]


def test_two_earlier_results_are_compared_without_a_model(tmp_path: Path) -> None:
    for name, faster in (("fast", 2.0), ("slow", 1.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(report_dict([result(faster=faster)])))
    done = run("bench", "-m", "/nowhere", "--compare", tmp_path / "fast.json", "--compare", tmp_path / "slow.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2480.0 ± 20.0  1240.0 ± 10.0  tok/s   2.00" in done.stdout


@pytest.mark.parametrize("peer", ["mlx-lm", "mlx-vlm"])
def test_a_peer_runs_the_same_checkpoint_and_says_the_same(peer: str) -> None:
    done = run("bench", "-m", checkpoint(), *SHORT, "-d", "0,60", "--against", peer, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(only_line(done.stdout))
    check_report(report)
    ours, theirs = report["results"]
    assert (ours["software"]["engine"], theirs["software"]["engine"]) == ("gemma4-mlx", peer)
    assert ours["first_tokens"] == theirs["first_tokens"]
    assert {"load", "pp24", "tg4", "pp24@60", "tg4@60", "memory_text"} <= {p["name"] for p in report["comparison"]}


def test_when_the_peer_fails_our_own_result_is_shown_first() -> None:
    # Its tokenizer has a class that only transformers would look for.
    folder = scratch() / "ours-alone"
    if not folder.exists():
        shutil.copytree(checkpoint(), folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": ["no", "class"]}))
    done = run("bench", "-m", folder, *SHORT, "--against", "mlx-lm", "--format", "json")
    assert done.returncode == 1
    assert [r["software"]["engine"] for r in json.loads(only_line(done.stdout))["results"]] == ["gemma4-mlx"]
    assert only_line(done.stderr).startswith(f"error: mlx-lm cannot run {folder}: ")


def run_program(before: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a Python in which `before` has been executed."""
    program = f"{before}\nfrom gemma4_mlx.app.cli import main\nmain()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, cwd=scratch())


def test_a_peer_that_is_not_installed_is_one_line_before_any_work() -> None:
    hidden = """
import importlib.metadata as metadata
found = metadata.Distribution.from_name
def from_name(name):
    if name == "mlx-vlm":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.Distribution.from_name = from_name
"""
    done = run_program(hidden, "bench", "-m", checkpoint(), *SHORT, "--against", "mlx-vlm")
    assert (done.returncode, done.stdout) == (1, "")
    assert only_line(done.stderr) == "error: mlx-vlm is not installed: run `pip install mlx-vlm` in this environment"


def test_a_plot_without_matplotlib_is_one_line_before_any_work() -> None:
    hidden = "import sys; sys.modules['matplotlib'] = None"
    done = run_program(hidden, "bench", "-m", "/nowhere", *SHORT, "--plot", scratch() / "speed.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert only_line(done.stderr) == "error: --plot needs matplotlib: run `pip install 'gemma4-mlx[bench]'`"


def test_a_plot_is_drawn_over_depths_of_its_own(tmp_path: Path) -> None:
    plot = tmp_path / "speed.png"
    # The context of the small model holds no more than 4096 tokens: the default depths need more.
    done = run("bench", "-m", checkpoint(), *SHORT, "--plot", plot)
    assert done.returncode == 1
    assert "need 4122 tokens, but the context holds 4096" in only_line(done.stderr)
    assert not plot.exists()
    done = run("bench", "-m", checkpoint(), *SHORT, "-d", "0,30", "--plot", plot, "--format", "json")
    assert (done.returncode, only_line(done.stderr)) == (0, f"drawn: {plot}")
    assert plot.read_bytes().startswith(b"\x89PNG")
    check_report(json.loads(only_line(done.stdout)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-p", "many"], "'many' is not a list of numbers"),
        (["-p", "12,,3"], "is not a list of numbers"),
        (["-g", "-5"], "is not a list of numbers"),
        (["-d", "1.5"], "is not a list of numbers"),
        (["-p", "0", "-g", "0"], "nothing to measure"),
        (["-r", "0"], "-r"),
        (["--format", "xml"], "'xml' is not one of"),
        (["--against", "llama.cpp"], "'llama.cpp' is not one of"),
        (["--per-layer", "tape"], "'tape' is not one of"),
        (["--plot", "speed.jpg"], "is none of .png, .svg, .pdf"),
        (["--plot", "/nowhere/speed.png"], "there is no folder /nowhere"),
        (["--compare", "a", "--against", "mlx-lm"], "compare with one file or with one engine"),
        (["--compare", "a", "--compare", "b", "--compare", "c"], "or two files with each other"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_leaves_stdout_empty(arguments: list[str], told: str) -> None:
    done = run("bench", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-m", "/nowhere"], "'/nowhere' is not a model"),
        (["--compare", "nothing.json"], "nothing.json: No such file or directory"),
        (["--compare", __file__], "is not JSON"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(arguments: list[str], told: str) -> None:
    done = run("bench", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in only_line(done.stderr)


def test_ctrl_c_is_exit_code_130_and_leaves_nothing_running() -> None:
    running = start("bench", "-m", checkpoint(), "-p", "512", "-g", "512", "-r", "500", "--text-only")
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    deadline = time.monotonic() + 60
    measuring: list[str] = []
    while not measuring and time.monotonic() < deadline:
        time.sleep(0.1)
        if not children.exists():
            running.kill()
            pytest.skip("this system does not list a process's children")
        commands = {child: Path(f"/proc/{child}/cmdline") for child in children.read_text().split()}
        measuring = [child for child, path in commands.items() if b"spawn_main" in path.read_bytes()]
    assert measuring
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, b"", b"")
    assert not any(os.path.exists(f"/proc/{child}") for child in measuring)


DOCS = (Path(__file__).parents[1] / "docs" / "bench.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", re.findall(r"^gemma4-mlx bench.*$", DOCS, flags=re.MULTILINE))
def test_every_command_in_the_docs_has_options_that_exist(command: str) -> None:
    arguments = shlex.split(command.partition(">")[0], comments=True)[1:]
    assert run(*arguments, "--help").returncode == 0


def test_the_docs_explain_every_kind_of_measurement() -> None:
    explained = {name.rstrip("0123456789") for name in re.findall(r"`([a-z_]+\d*)`", DOCS)}
    assert explained >= LABELS.keys()


def test_help_loads_nothing_heavy() -> None:
    watched = """
import atexit, sys
heavy = {"mlx", "mlx_lm", "matplotlib", "numpy", "rich"}
atexit.register(lambda: print(sorted(heavy & set(sys.modules))))
"""
    done = run_program(watched, "bench", "--help")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_table_fits_a_terminal_of_80_by_24() -> None:
    arguments = ["bench", "-m", checkpoint(), "-p", "16", "-g", "2", "-r", "1"]
    with TmuxTerminal(*arguments, environment=environment()) as terminal:
        terminal.wait_for("exit code")
        screen = terminal.tmux("capture-pane", "-p")  # what has scrolled off is not there
    lines = screen.splitlines()
    assert lines[0].startswith("/"), screen
    assert "exit code 0" in lines
    assert "measuring" not in screen
    for label in ("import and load", "prompt of 16", "generation of 2", "picture of 256: encode", "peak memory, all"):
        assert sum(line.startswith(label) for line in lines) == 1, screen
