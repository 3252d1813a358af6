"""The file behind a per-layer table left on disk: opened once, closed once, and only if it was opened."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from gemma4_mlx.checkpoint.headers import read_header
from gemma4_mlx.checkpoint.per_layer_table import PerLayerTable
from gemma4_mlx.checkpoint.sources import StoredTensor


def header(folder: Path) -> StoredTensor:
    path = folder / "table.safetensors"
    mx.save_safetensors(str(path), {"table": mx.arange(12, dtype=mx.float32).reshape(4, 3)})
    return StoredTensor("table", read_header(path)["table"])


def open_files() -> set[str]:
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    return {entry.name for entry in folder.iterdir()}


def test_a_table_whose_file_is_gone_is_an_error_and_leaves_nothing_to_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, ignored = header(tmp_path), []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    os.unlink(gone.header.file)
    with pytest.raises(FileNotFoundError):
        PerLayerTable(gone, None, None, None, mx.float32)
    assert ignored == []


def test_a_table_closes_its_file_when_it_goes(tmp_path: Path) -> None:
    there = header(tmp_path)
    before = open_files()
    table = PerLayerTable(there, None, None, None, mx.float32)
    assert np.array(table(mx.array([[3, 0]]))).tolist() == [[[9, 10, 11], [0, 1, 2]]]
    assert len(open_files()) == len(before) + 1
    del table
    assert len(open_files()) == len(before)
