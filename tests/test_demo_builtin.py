"""The built-in model's name and folder: found from anywhere, whole or refused by file and checksum."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gemma4_mlx as g4
from command_line import environment, only_line
from gemma4_mlx.checkpoint import resolve
from gemma4_mlx.checkpoint.builtin import FOLDER, list_faults
from tools.demo_model import checksums

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    """A folder that is whole."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    checksums.write(tmp_path)
    assert list_faults(tmp_path) == []
    return tmp_path


def installation(target: Path) -> Path:
    """The package as it is installed, in `target`, with its own copy of the built-in model; gives that."""
    shutil.copytree(REPOSITORY / "gemma4_mlx", target / "gemma4_mlx")
    shutil.copytree(REPOSITORY / "app", target / "gemma4_mlx" / "app")
    return target / "gemma4_mlx" / "demo"


def run_installed(target: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = "from gemma4_mlx.app.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**environment(), "PYTHONPATH": str(target)},
        cwd=target,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_built_in_model_is_as_it_was_published():
    assert list_faults(FOLDER) == []


def test_the_built_in_model_and_all_beside_it_is_at_most_six_megabytes():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 6 * 2**20


@pytest.mark.parametrize("name", ["demo", "Demo", "DEMO"])
def test_demo_means_the_folder_in_the_package_also_where_a_folder_has_that_name(name, tmp_path, monkeypatch):
    shutil.copytree(FOLDER, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert resolve(name) == FOLDER
    assert resolve(f"./{name}") == Path(name)


def test_demo_has_no_revisions():
    with pytest.raises(ValueError, match="no revision 'main'"):
        g4.load("demo", revision="main")


def test_a_changed_bit_is_reported_by_file_and_checksum(folder):
    weights = folder / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    expected = hashlib.sha256(damaged).hexdigest()
    damaged[5000] ^= 1
    weights.write_bytes(damaged)
    found = hashlib.sha256(damaged).hexdigest()
    assert list_faults(folder) == [f"model.safetensors is damaged (SHA-256 {found[:12]}…, not {expected[:12]}…)"]


def test_a_file_cut_short_is_reported(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (fault,) = list_faults(folder)
    assert fault.startswith("model.safetensors is damaged (SHA-256 ")


def test_every_fault_is_reported(folder):
    (folder / "config.json").unlink()
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").write_text("{}")
    missing, damaged, unlisted = list_faults(folder)
    assert missing == "config.json is missing"
    assert damaged.startswith("model.safetensors is damaged")
    assert unlisted == "tokenizer.json is not in SHA256SUMS"


def test_a_folder_in_place_of_a_file_is_reported(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert list_faults(folder) == ["config.json cannot be read (Is a directory)"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"gone\n", b"0123  config.json\n"])
def test_damaged_checksums_are_reported(folder, content):
    (folder / "SHA256SUMS").write_bytes(content)
    (fault,) = list_faults(folder)
    assert fault in ("SHA256SUMS is damaged", "SHA256SUMS cannot be read")


def test_checksums_that_lost_a_line_are_reported(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join(lines[:-1]))
    assert list_faults(folder) == ["model.safetensors is not in SHA256SUMS"]


def test_hidden_files_of_the_system_do_no_harm(folder):
    (folder / ".DS_Store").write_bytes(b"\0")
    assert list_faults(folder) == []


def test_the_checksums_are_those_of_sha256sum(folder):
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)


def test_an_installed_package_finds_its_own_built_in_model(tmp_path):
    installation(tmp_path)
    finished = run_installed(tmp_path, "ask", "What is MLX?", "-m", "demo", "--temperature", "0")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.strip()


@pytest.mark.parametrize("arguments", [["demo"], ["ask", "hi", "-m", "demo"]])
def test_a_damaged_built_in_model_is_exit_code_1_and_one_line(arguments, tmp_path):
    demo = installation(tmp_path)
    (demo / "tokenizer.json").write_bytes(b"{}")
    finished = run_installed(tmp_path, *arguments)
    assert (finished.returncode, finished.stdout) == (1, "")
    line = only_line(finished.stderr)
    assert line.startswith("error: ")
    assert "tokenizer.json is damaged (SHA-256 44136fa355b3" in line
    assert "reinstall gemma4-mlx" in line
