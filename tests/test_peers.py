"""Checkpoints that mlx-vlm and mlx-lm write are read here, and give the logits they give there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from checkpoints import build_checkpoint
from gemma4_mlx.checkpoint import load_model, read_config
from gemma4_mlx.checkpoint.builtin import FOLDER
from gemma4_mlx.conversion.convert import convert
from tiny_tokenizer import SPECIAL_IDS

TOLERANCE = 1e-2  # of the peer logits' standard deviation

# A process of their own: importing them takes seconds and changes MLX's global settings.
LOGITS = {
    "mlx_vlm": """
import sys, mlx.core as mx, numpy as np
from pathlib import Path
from mlx_vlm.utils import load_model
logits = load_model(Path(sys.argv[1]))(mx.array(np.load(sys.argv[2]))).logits
np.save(sys.argv[3], np.array(logits.astype(mx.float32)))
""",
    "mlx_lm": """
import sys, mlx.core as mx, numpy as np
from pathlib import Path
from mlx_lm.utils import load_model
logits = load_model(Path(sys.argv[1]))[0](mx.array(np.load(sys.argv[2])))
np.save(sys.argv[3], np.array(logits.astype(mx.float32)))
""",
}

PEERS = sorted(LOGITS)
CONVERSIONS = [
    ("mlx_vlm", "e2b", ["--q-bits", "4"]),
    ("mlx_vlm", "e2b", ["--quant-predicate", "mixed_4_8", "--q-group-size", "32"]),
    ("mlx_vlm", "moe", ["--q-bits", "8"]),
    ("mlx_vlm", "unified", ["--q-bits", "8"]),
    ("mlx_vlm", "unified", ["--quant-predicate", "mixed_4_8", "--q-group-size", "32"]),
    ("mlx_lm", "e4b", ["--q-bits", "4", "--q-group-size", "32"]),
    ("mlx_lm", "moe", ["--q-bits", "4"]),
    ("mlx_lm", "dense", ["--q-bits", "8"]),
    ("mlx_lm", "dense", ["--quant-predicate", "mixed_3_6"]),
]


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(("peer", "variant", "options"), CONVERSIONS)
def test_what_a_peer_converts_gives_its_own_logits_here(
    peer: str, variant: str, options: list[str], tmp_path: Path
) -> None:
    build_checkpoint(tmp_path / "hf", variant, seed=6)
    folder = tmp_path / "converted"
    run("-m", peer, "convert", "--hf-path", str(tmp_path / "hf"), "--mlx-path", str(folder), "-q", *options)
    ids = np.random.default_rng(6).integers(len(SPECIAL_IDS), 512, (1, 80))
    np.save(tmp_path / "ids.npy", ids)
    run("-c", LOGITS[peer], str(folder), str(tmp_path / "ids.npy"), str(tmp_path / "logits.npy"))
    theirs = np.load(tmp_path / "logits.npy")
    ours = np.array(load_model(folder, read_config(folder))(mx.array(ids)))
    assert np.abs(ours - theirs).max() < TOLERANCE * theirs.std()


@pytest.mark.parametrize("peer", PEERS)
def test_the_built_in_model_gives_its_logits_in_a_peer_too(peer: str, tmp_path: Path) -> None:
    folder = convert(FOLDER, tmp_path / "float32", recipe="bf16", dtype="float32")
    ids = np.random.default_rng(6).integers(30, 900, (1, 80))
    np.save(tmp_path / "ids.npy", ids)
    run("-c", LOGITS[peer], str(folder), str(tmp_path / "ids.npy"), str(tmp_path / "logits.npy"))
    theirs = np.load(tmp_path / "logits.npy")
    ours = np.array(load_model(folder, read_config(folder))(mx.array(ids)))
    assert np.abs(ours - theirs).max() < TOLERANCE * theirs.std()
