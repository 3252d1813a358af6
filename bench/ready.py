"""Ready and small: time from a cold process to an answer's first token, and peak memory, beside mlx-lm and mlx-vlm.

    python bench/ready.py [--rounds 5] [--tokenizer FOLDER]

A 4-bit checkpoint with E2B's 35 layers, vocabulary of 262,144 and per-layer tables (width small, so that it fits any
machine) is written, with a tokenizer of real size: one made up, or a real tokenizer.json by flag. Each engine gets a
process of its own, in turn: import, load, a short question as text, its answer's first token as text, then 16 tokens.
Every start but the one named so is a second one: files that an engine keeps for itself are there.

After that, an answer with a JSON schema: what the first one in a process costs beyond the same without, and the next,
beside what llguidance takes to read the tokenizer.json, most of what each answer cost before. Peak anonymous memory is
what the process itself holds (RssAnon), sampled by the parent; Linux only. The file stays in the page cache for
everyone alike.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from random_checkpoint import packed_e2b_like, write_packed_checkpoint
from real_size_tokenizer import write_real_size_tokenizer

PRELUDE = """
import sys, time, json
start = time.perf_counter()
folder, new, times = sys.argv[1], 16, {}
question = "Who are you?"
def lap(name):
    times[name] = time.perf_counter() - start
"""

OURS = """
import gemma4_mlx as g4
model, processor = g4.load(folder, per_layer={per_layer!r})
lap("load")
first = g4.generate(model, processor, question, max_tokens=1, temperature=0)
lap("first")
tokens = g4.generate(model, processor, question, max_tokens=new, temperature=0).tokens
"""

# The answer's bounds keep it to few tokens; the question is read anew each time.
SCHEMA = """
def cost(schema):
    begun = time.perf_counter()
    g4.generate(model, processor, "?", max_tokens=2, temperature=0, schema=schema)
    return time.perf_counter() - begun
schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}}, "required": ["name"]}
cost(None)
plain = cost(None)
times["schema, first"] = cost(schema) - plain
times["schema, next"] = max(cost(schema) - plain, 0.0)
import llguidance
begun = time.perf_counter()
llguidance.LLTokenizer(folder + "/tokenizer.json", n_vocab=262_144, eos_token=[1, 106])
times["schema, tokenizer.json read"] = time.perf_counter() - begun
"""

MLX_LM = """
import mlx_lm
model, tokenizer = mlx_lm.load(folder)
lap("load")
messages = [{"role": "user", "content": question}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)
first = mlx_lm.generate(model, tokenizer, prompt, max_tokens=1)
lap("first")
tokens = [chunk.token for chunk in mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=new)]
"""

MLX_VLM = """
import mlx_vlm
from mlx_vlm.prompt_utils import apply_chat_template
model, processor = mlx_vlm.load(folder)
lap("load")
prompt = apply_chat_template(processor, model.config, question)
first = mlx_vlm.generate(model, processor, prompt, max_tokens=1, temperature=0.0)
lap("first")
tokens = [chunk.token for chunk in mlx_vlm.stream_generate(model, processor, prompt, max_tokens=new, temperature=0.0)]
"""

CODA = """
print(json.dumps({**times, "tokens": [int(token) for token in tokens][:new]}))
"""

FIRST_START = "gemma4-mlx, first start"
DISK = "gemma4-mlx, table on disk"
ENGINES = {
    FIRST_START: OURS.format(per_layer="disk"),
    DISK: OURS.format(per_layer="disk"),
    "gemma4-mlx, table in memory": OURS.format(per_layer="memory"),
    "mlx-lm": MLX_LM,
    "mlx-vlm": MLX_VLM,
}


def run(engine: str, script: str, folder: Path, kept: Path) -> dict[str, Any]:
    """Times in seconds, tokens, and the peak of RssAnon in bytes; `kept` is where the process may keep files."""
    if engine == FIRST_START:
        shutil.rmtree(kept, ignore_errors=True)
    environment = {**os.environ, "XDG_CACHE_HOME": str(kept), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", PRELUDE + script + CODA, str(folder)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        process = subprocess.Popen(command, stdout=out, stderr=error, env=environment)
        peak = 0
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    peak = max(peak, int(line.split()[1]) * 1024)
            time.sleep(0.01)
        for stream in (out, error):
            stream.seek(0)
        if process.returncode:
            raise SystemExit(f"{engine} failed:\n{error.read().decode()[-2000:]}")
        return {**json.loads(out.read().splitlines()[-1]), "peak": peak}


def write_checkpoint(folder: Path, tokenizer: Path | None) -> None:
    write_packed_checkpoint(folder, packed_e2b_like(256, 512))
    write_real_size_tokenizer(folder)
    if tokenizer is not None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokenizer", type=Path, help="folder with a real tokenizer.json and tokenizer_config.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, kept = Path(name) / "model", Path(name) / "kept"
        write_checkpoint(folder, arguments.tokenizer)
        weights, tokenizer = ((folder / file).stat().st_size for file in ("model.safetensors", "tokenizer.json"))
        print(f"checkpoint: {weights / 1e9:.2f} GB, 4-bit, 35 layers; tokenizer.json: {tokenizer / 1e6:.0f} MB")
        results: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
        schemas = []
        for turn in range(arguments.rounds):
            # The first start goes first: it leaves behind what the others find.
            for engine in ENGINES if turn % 2 == 0 else [FIRST_START, *list(ENGINES)[:0:-1]]:
                results[engine].append(run(engine, ENGINES[engine], folder, kept))
            schemas.append(run("an answer with a schema", ENGINES[DISK] + SCHEMA, folder, kept))
    report(results, schemas)


def report(results: dict[str, list[dict[str, Any]]], schemas: list[dict[str, Any]]) -> None:
    print(f"{'':28} import+load  first token  peak memory")
    for engine, runs in results.items():
        load, first, peak = (statistics.median(r[key] for r in runs) for key in ("load", "first", "peak"))
        print(f"{engine:28} {load:9.2f} s {first:10.2f} s {peak / 1e9:9.2f} GB")
    ours = results[DISK]
    for engine, runs in results.items():
        if engine != DISK:
            same = "the same tokens" if runs[0]["tokens"] == ours[0]["tokens"] else "OTHER TOKENS"
            shares = {
                key: statistics.median(us[key] / them[key] for us, them in zip(ours, runs, strict=True))
                for key in ("load", "first", "peak")
            }
            print(
                f"{DISK} / {engine}: import+load {shares['load']:.3f}, first token {shares['first']:.3f}, "
                f"memory {shares['peak']:.2f}; {same}"
            )
    read = "schema, tokenizer.json read"
    print(f"{read}: {statistics.median(r[read] for r in schemas):.2f} s")
    for answer in ("schema, first", "schema, next"):
        seconds = statistics.median(r[answer] for r in schemas)
        share = statistics.median(r[answer] / r[read] for r in schemas)
        print(f"{answer} answer: {seconds:.3f} s more than without, {share:.3f} of that")


if __name__ == "__main__":
    main()
