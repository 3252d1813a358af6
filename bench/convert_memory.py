"""Converting a large checkpoint: peak memory against the bound, and ten kills that change nothing.

    python bench/convert_memory.py [--vocabulary 262144] [--recipe 4bit] [--kills 10]

Writes a checkpoint of E2B's decoder (9.3 GB in bfloat16 at the full vocabulary, 3.9 GB at 5,000 entries), converts it
in a process of its own and reports that process's peak resident memory, which must stay below the largest file it
writes plus 1 GB. Then converts again, killed with SIGKILL at random moments and started again each time, and compares
every byte. Needs twice the checkpoint's size on disk; `--folder` says where.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from gemma4_mlx.config import Config
from gemma4_mlx.conversion.conversion_plan import plan_conversion
from gemma4_mlx.conversion.recipes import RECIPES
from gemma4_mlx.conversion.shard_file import ShardFile

CONVERT = """
import resource, sys
import gemma4_mlx as g4
g4.convert(sys.argv[1], sys.argv[2], recipe=sys.argv[3])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak if sys.platform == "darwin" else peak * 1024)
"""


def e2b(vocabulary: int) -> dict[str, Any]:
    """E2B's `config.json` with a vocabulary of another length."""
    text = {
        "model_type": "gemma4_text",
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_hidden_layers": 35,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "vocab_size": vocabulary,
        "vocab_size_per_layer_input": vocabulary,
        "hidden_size_per_layer_input": 256,
        "final_logit_softcapping": 30.0,
        "num_kv_shared_layers": 20,
        "use_double_wide_mlp": True,
    }
    return {"model_type": "gemma4", "text_config": text}


def write_checkpoint(folder: Path, raw_config: dict[str, Any]) -> int:
    """Write random bfloat16 weights, a block at a time; returns their bytes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw_config))
    plan = plan_conversion(Config.from_dict(raw_config), RECIPES["bf16"], "bfloat16")
    noise = mx.random.normal((1 << 24,)).astype(mx.bfloat16)
    for shard in plan.shards:
        with ShardFile(folder / shard.file, list(shard.tensors)) as file:
            for tensor in shard.tensors:
                rest = int(np.prod(tensor.shape))
                while rest:
                    step = min(rest, noise.size)
                    file.append(tensor.name, noise[:step])
                    rest -= step
    return plan.nbytes


def digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            found[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=262_144)
    parser.add_argument("--recipe", default="4bit", choices=RECIPES)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where to work; default: the system's temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, whole, killed = (Path(folder) / name for name in ("source", "whole", "killed"))
        nbytes = write_checkpoint(source, e2b(arguments.vocabulary))
        command = [sys.executable, "-c", CONVERT, str(source)]
        start = time.perf_counter()
        done = subprocess.run([*command, str(whole), arguments.recipe], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        peak = int(done.stdout)
        largest = max(path.stat().st_size for path in whole.glob("*.safetensors"))
        size = sum(path.stat().st_size for path in whole.glob("*.safetensors"))
        verdict = "within" if peak < largest + 1e9 else "OVER"
        print(
            f"{nbytes / 1e9:.2f} GB to {size / 1e9:.2f} GB ({arguments.recipe}) in {seconds:.0f} s: "
            f"peak {peak / 1e9:.2f} GB, {verdict} the bound of {(largest + 1e9) / 1e9:.2f} GB",
            flush=True,
        )
        expected = digests(whole)
        rng = random.Random(0)
        moments = []
        for _ in range(arguments.kills):
            process = subprocess.Popen([*command, str(killed), arguments.recipe], stdout=subprocess.DEVNULL)
            moments.append(rng.uniform(0.3, max(0.6, seconds / 3)))
            try:
                process.wait(moments[-1])
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if killed.exists():
                break
        if not killed.exists():
            subprocess.run([*command, str(killed), arguments.recipe], check=True, stdout=subprocess.DEVNULL)
        same = digests(killed) == expected
        print(
            f"killed after {', '.join(f'{moment:.1f}' for moment in moments)} s: the output is "
            f"{'identical' if same else 'DIFFERENT'}"
        )
        if not same or verdict == "OVER":
            sys.exit(1)


if __name__ == "__main__":
    main()
