"""Ready and small: time from a cold process to the first token, and peak memory, beside mlx-vlm and mlx-lm.

    python bench/ready.py [--rounds 5]

A 4-bit checkpoint with E2B's 35 layers, vocabulary of 262,144 and per-layer tables (width small, so that it fits any
machine) is written, and each engine gets a process of its own, in turn: import, load, a prompt of 256 tokens, 16 new
tokens. Peak anonymous memory is what the process itself holds (RssAnon), sampled by the parent; Linux only. The file
stays in the page cache for everyone alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from random_checkpoint import packed_e2b_like, write_packed_checkpoint

PRELUDE = """
import sys, time, json
start = time.perf_counter()
folder, prompt, new = sys.argv[1], list(range(100, 356)), 16
"""

OURS = """
from pathlib import Path
from gemma4_mlx.checkpoint import load_model, read_config
model = load_model(Path(folder), read_config(Path(folder)), per_layer={per_layer!r})
loaded = time.perf_counter()
from gemma4_mlx.generation import generate_tokens
tokens = generate_tokens(model, prompt, max_tokens=new)
"""

MLX_LM = """
from pathlib import Path
from mlx_lm.utils import load_model
model, _ = load_model(Path(folder))
loaded = time.perf_counter()
import mlx.core as mx
from mlx_lm.generate import generate_step
tokens = (int(t) for t, _ in generate_step(mx.array(prompt), model, max_tokens=new))
"""

MLX_VLM = """
from pathlib import Path
from mlx_vlm.utils import load_model
model = load_model(Path(folder))
loaded = time.perf_counter()
import mlx.core as mx
from mlx_vlm.generate import generate_step
tokens = (int(t) for t, _ in generate_step(mx.array([prompt]), model, None, None, max_tokens=new))
"""

CODA = """
out = [next(tokens)]
first = time.perf_counter()
out += list(tokens)
print(json.dumps({"load": loaded - start, "first": first - start, "tokens": out}))
"""

ENGINES = {
    "gemma4-mlx, table on disk": OURS.format(per_layer="disk"),
    "gemma4-mlx, table in memory": OURS.format(per_layer="memory"),
    "mlx-lm": MLX_LM,
    "mlx-vlm": MLX_VLM,
}


def run(engine: str, folder: Path) -> dict[str, Any]:
    """Timings in seconds, tokens, and the peak of RssAnon in bytes."""
    command = [sys.executable, "-c", PRELUDE + ENGINES[engine] + CODA, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                peak = max(peak, int(line.split()[1]) * 1024)
        time.sleep(0.01)
    out, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"{engine} failed:\n{error[-2000:]}")
    return {**json.loads(out.splitlines()[-1]), "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_packed_checkpoint(folder, packed_e2b_like(256, 512))
        size = (folder / "model.safetensors").stat().st_size
        print(f"checkpoint: {size / 1e9:.2f} GB, 4-bit, 35 layers, 262,144 tokens")
        results: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
        for turn in range(rounds):
            for engine in ENGINES if turn % 2 else reversed(ENGINES):
                results[engine].append(run(engine, folder))
    print(f"{'':28} import+load  first token  peak memory")
    for engine, runs in results.items():
        load, first, peak = (statistics.median(r[key] for r in runs) for key in ("load", "first", "peak"))
        print(f"{engine:28} {load:9.2f} s {first:10.2f} s {peak / 1e9:9.2f} GB")
    disk, memory = results["gemma4-mlx, table on disk"], results["gemma4-mlx, table in memory"]
    same = disk[0]["tokens"] == memory[0]["tokens"]
    print("tokens with the table on disk and in memory:", "identical" if same else "DIFFERENT")
    for peer in ("mlx-lm", "mlx-vlm"):
        pairs = list(zip(disk, results[peer], strict=True))
        ratios = {key: statistics.median(them[key] / us[key] for us, them in pairs) for key in ("load", "first")}
        memory_share = statistics.median(us["peak"] / them["peak"] for us, them in pairs)
        same = "the same" if disk[0]["tokens"] == results[peer][0]["tokens"] else "other"
        print(
            f"against {peer}: import+load {ratios['load']:.1f} x, first token {ratios['first']:.1f} x faster; "
            f"memory {memory_share:.2f} x; {same} tokens"
        )


if __name__ == "__main__":
    main()
