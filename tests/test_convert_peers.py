"""What is converted here loads in mlx-vlm and mlx-lm and says the same there: the same greedy tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gemma4_mlx as g4
from checkpoints import build_checkpoint
from gemma4_mlx.conversion import conversion_plan
from tiny_tokenizer import SPECIAL_IDS

PROMPT = [2, 50, 61, 200, 300, 77, 410, 33]
NEW_TOKENS = 16

# In float32, so that only the weights decide: in bfloat16 two exact implementations may round a tie differently.
CONVERSIONS = [
    ("e2b", "4bit"),
    ("e2b", "8bit"),
    ("e2b", "mxfp4"),
    ("e2b", "bf16"),
    ("e2b", "speech"),
    ("e4b", "4bit"),
    ("moe", "4bit"),
    ("moe", "8bit"),
    ("moe", "mxfp4"),
    ("dense", "4bit"),
]

# A process of their own: importing them takes seconds and changes MLX's global settings.
GREEDY = """
import json, sys
from pathlib import Path
import mlx.core as mx

prompt, new_tokens, peer = json.loads(sys.argv[1])
if peer == "mlx_vlm":
    from mlx_vlm.utils import load_model
    load = lambda folder: load_model(Path(folder))
    logits = lambda model, ids, cache: model(ids, cache=cache).logits
else:
    from mlx_lm.utils import load_model
    load = lambda folder: load_model(Path(folder))[0]
    logits = lambda model, ids, cache: model(ids, cache=cache)

said = {}
for folder in sys.argv[2:]:
    model = load(folder)
    cache, ids, said[folder] = model.make_cache(), prompt, []
    for _ in range(new_tokens):
        ids = [int(mx.argmax(logits(model, mx.array([ids]), cache)[0, -1]))]
        said[folder] += ids
print(json.dumps(said))
"""


def until_placeholder(tokens: list[int]) -> list[int]:
    """Up to the first placeholder a model writes itself: each engine reads that one back in a way of its own."""
    placeholders = {SPECIAL_IDS[name] for name in ("<|image|>", "<|audio|>", "<|video|>")}
    first = next((i for i, token in enumerate(tokens) if token in placeholders), len(tokens))
    return tokens[: first + 1]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("converted")
    for variant in {variant for variant, _ in CONVERSIONS}:
        build_checkpoint(folder / variant, variant, seed=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion_plan, "SHARD_BYTES", 500_000)  # several files each
        return {
            (variant, recipe): g4.convert(
                folder / variant, folder / f"{variant}-{recipe}", recipe=recipe, dtype="float32"
            )
            for variant, recipe in CONVERSIONS
        }


@pytest.mark.parametrize("peer", ["mlx_vlm", "mlx_lm"])
def test_every_recipe_gives_the_same_greedy_tokens_there_and_here(
    peer: str, converted: dict[tuple[str, str], Path]
) -> None:
    arguments = json.dumps([PROMPT, NEW_TOKENS, peer])
    command = [sys.executable, "-c", GREEDY, arguments, *map(str, converted.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    lengths = []
    for conversion, folder in converted.items():
        model, _ = g4.load(folder)
        ours = list(g4.generate_tokens(model, PROMPT, max_tokens=NEW_TOKENS))
        compared = until_placeholder(ours)
        assert compared == theirs[str(folder)][: len(compared)], conversion
        lengths.append(len(compared))
    assert sum(lengths) > len(lengths) * NEW_TOKENS * 2 / 3
