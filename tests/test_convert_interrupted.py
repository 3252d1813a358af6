"""A conversion that is killed, runs out of disk, or meets another one: the target is whole or not there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gemma4_mlx as g4
from checkpoints import build_checkpoint
from gemma4_mlx.checkpoint import load_model, read_config
from gemma4_mlx.conversion import conversion_plan
from gemma4_mlx.errors import CheckpointError, Gemma4Error

SHARD_BYTES = 150_000

# A process that converts and dies, by SIGKILL, at a named moment.
DYING = f"""
import os, signal, sys
from pathlib import Path
import gemma4_mlx as g4
from gemma4_mlx.conversion import conversion_plan, convert as _, partial_output
conversion_plan.SHARD_BYTES = {SHARD_BYTES}
source, target, moment = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def after(share):
    def report(done, total):
        if done >= share * total:
            die()
    return report

progress = None
if moment.endswith("%"):
    progress = after(float(moment[:-1]) / 100)
elif moment == "recording a file":
    real = Path.replace
    count = []
    def replace(self, other):
        count.append(1)
        die() if len(count) == 4 else real(self, other)
    Path.replace = replace
elif moment == "before the last rename":
    Path.rename = die
elif moment == "after the last rename":
    real_rename = Path.rename
    Path.rename = lambda self, other: (real_rename(self, other), die())
g4.convert(source, target, bits=4, on_progress=progress)
"""
MOMENTS = ("0%", "12.5%", "60%", "100%", "recording a file", "before the last rename", "after the last rename")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "e2b"
    build_checkpoint(folder, "e2b", seed=4)
    return folder


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion_plan, "SHARD_BYTES", SHARD_BYTES)


@pytest.fixture(scope="module")
def uninterrupted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion_plan, "SHARD_BYTES", SHARD_BYTES)
        return files(g4.convert(source, tmp_path_factory.mktemp("whole") / "out", bits=4))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def die_while_converting(source: Path, target: Path, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", DYING, source, target, moment], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_run_again_the_output_is_that_of_an_uninterrupted_run(
    source: Path, uninterrupted: dict[str, bytes], moment: str, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    die_while_converting(source, target, moment)
    assert target.exists() == (moment == "after the last rename")
    assert g4.convert(source, target, bits=4) == target
    assert files(target) == uninterrupted
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_run_leaves_cannot_be_taken_for_a_model(source: Path, tmp_path: Path) -> None:
    die_while_converting(source, tmp_path / "out", "60%")
    left = tmp_path / "out.partial"
    assert list(tmp_path.iterdir()) == [left]
    for folder in (left, left / "model"):
        with pytest.raises(Gemma4Error):
            load_model(folder, read_config(folder))


def test_finished_files_are_kept_and_the_rest_is_made_again(source: Path, tmp_path: Path) -> None:
    die_while_converting(source, tmp_path / "out", "60%")
    left = tmp_path / "out.partial" / "model"
    kept = {path.name: path.stat().st_mtime_ns for path in left.iterdir()}
    told: list[int] = []
    g4.convert(source, tmp_path / "out", bits=4, on_progress=lambda done, total: told.append(done))
    again = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in kept}
    changed = [name for name in sorted(kept) if again[name] != kept[name]]
    assert len(kept) > 3
    assert changed == [max(kept)]  # the one that was being written
    assert told[0] > 0


def test_a_finished_file_that_was_damaged_since_is_made_again(
    source: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    die_while_converting(source, tmp_path / "out", "60%")
    first = min((tmp_path / "out.partial" / "model").iterdir())
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    assert files(g4.convert(source, tmp_path / "out", bits=4)) == uninterrupted


def test_work_on_another_recipe_or_source_is_begun_again(
    source: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    die_while_converting(source, tmp_path / "out", "60%")
    eight = files(g4.convert(source, tmp_path / "out", bits=8))
    assert eight.keys() != uninterrupted.keys() or eight != uninterrupted
    other = tmp_path / "other"
    shutil.copytree(source, other)
    die_while_converting(other, tmp_path / "again", "60%")
    build_checkpoint(other, "e2b", seed=5)
    changed = files(g4.convert(other, tmp_path / "again", bits=4))
    assert changed == files(g4.convert(other, tmp_path / "straight", bits=4))


def test_a_damaged_record_of_progress_is_told(source: Path, tmp_path: Path) -> None:
    die_while_converting(source, tmp_path / "out", "60%")
    (tmp_path / "out.partial" / "progress.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"progress.json is damaged: remove"):
        g4.convert(source, tmp_path / "out", bits=4)


def test_two_conversions_to_one_folder_do_not_mix(source: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def try_a_second(done: int, total: int) -> None:
        if not told:
            with pytest.raises(CheckpointError, match="being written by another conversion: wait for it") as refusal:
                g4.convert(source, tmp_path / "out", bits=4)
            told.append(str(refusal.value))

    assert g4.convert(source, tmp_path / "out", bits=4, on_progress=try_a_second).is_dir()
    assert told


def test_a_target_that_appears_meanwhile_is_not_replaced(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"

    def somebody_else(done: int, total: int) -> None:
        target.mkdir(exist_ok=True)
        (target / "theirs").touch()

    with pytest.raises(CheckpointError, match="has appeared meanwhile"):
        g4.convert(source, target, bits=4, on_progress=somebody_else)
    assert [path.name for path in target.iterdir()] == ["theirs"]


# A limit on the size of files is the full disk that needs no disk: writes stop half-way with an error.
FULL = f"""
import resource, sys
from gemma4_mlx.app.cli import main
from gemma4_mlx.conversion import conversion_plan
conversion_plan.SHARD_BYTES = {SHARD_BYTES}
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
main()
"""


# The first lets some files through and stops a later one, the second stops already the record of progress.
@pytest.mark.parametrize("limit", [SHARD_BYTES - 20_000, 10])
def test_a_disk_that_fills_is_one_line_and_the_next_run_goes_on(
    source: Path, uninterrupted: dict[str, bytes], limit: int, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(limit), "convert", source, target], capture_output=True, text=True
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the disk filled up while writing {target}: make room and run the same again")
    assert not target.exists()
    assert files(g4.convert(source, target, bits=4)) == uninterrupted


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(CheckpointError, match=r"needs \d+(\.\d)? MB and its disk has \d+(\.\d)? MB free: make room"):
        g4.convert(source, tmp_path / "out", bits=4)


def test_ctrl_c_leaves_what_a_kill_leaves(source: Path, uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        g4.convert(source, tmp_path / "out", bits=4, on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    assert files(g4.convert(source, tmp_path / "out", bits=4)) == uninterrupted


@pytest.mark.parametrize("planted", ["partial", "model", "progress.json", "progress.json.new", "file", "folder"])
def test_a_partial_folder_with_links_in_it_is_refused_and_nothing_behind_them_changes(
    planted: str, source: Path, tmp_path: Path
) -> None:
    documents = tmp_path / "Documents"
    documents.mkdir()
    (documents / "thesis.txt").write_text("years of work")
    (documents / "progress.json").write_text('{"fingerprint": "x", "files": {}}')
    partial = tmp_path / "out.partial"
    if planted == "partial":
        partial.symlink_to(documents)
    else:
        (partial / "model").mkdir(parents=True)
        (partial / "progress.json").write_text('{"fingerprint": "x", "files": {}}')
        if planted == "model":
            (partial / "model").rmdir()
            (partial / "model").symlink_to(documents)
        elif planted == "file":
            (partial / "model" / "LICENSE").symlink_to(documents / "thesis.txt")
        elif planted == "folder":
            (partial / "model" / "LICENSE").mkdir()
        else:
            (partial / planted).unlink(missing_ok=True)
            (partial / planted).symlink_to(documents / "thesis.txt")
    before = {path.name: path.read_text() for path in documents.iterdir()}
    with pytest.raises(CheckpointError, match=r"out\.partial is in the way and not an interrupted .*: remove it"):
        g4.convert(source, tmp_path / "out", bits=4)
    assert {path.name: path.read_text() for path in documents.iterdir()} == before
    assert not (tmp_path / "out").exists()
