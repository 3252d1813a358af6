"""What each quantization recipe costs in quality, and what each of its exceptions buys.

    python bench/recipes.py

Measured on the built-in model, which has learnt something, and on random checkpoints, which have E2B's depth and a
mixture of experts. Every recipe is converted with `convert` and its logits are compared with the unquantized
checkpoint's, both computed in float32, so that what is measured is the weights: mean KL divergence in nats, and how
often the likeliest token is the same. Variants change one rule of a recipe. On random weights only the order of the
numbers means something: there are no outliers, and nothing is said. The built-in model reads its own answers; its
decoder was trained for 4-bit groups of 64, so that it shows what a variant costs beside 4bit, not what 4bit costs;
`python -m tools.demo_model.quantized` measures what the recipes do to the words it hears.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from random_checkpoint import e2b_like, write_random_checkpoint

import gemma4_mlx as g4
from gemma4_mlx.checkpoint import load_model, read_config, resolve
from gemma4_mlx.conversion.convert import convert, plan
from gemma4_mlx.conversion.recipes import AFFINE_4, AFFINE_8, KEPT, RECIPES, Recipe, Rule
from gemma4_mlx.model import Gemma4

PROMPTS, PROMPT_TOKENS = 2, 64

QUESTIONS = (
    "Which sizes of Gemma 4 are there?",
    "Does my data leave this Mac?",
    "How do I transcribe a recording?",
    "How do I attach a picture?",
    "What is quantization?",
    "Who are you?",
)

_LAYERS = "language_model.layers.*"
TABLE, EMBEDDINGS = "language_model.embed_tokens_per_layer", "language_model.embed_tokens"
PER_LAYER_PROJECTIONS = (f"{_LAYERS}.per_layer_projection", f"{_LAYERS}.per_layer_input_gate")

# One rule of a recipe changed: name → recipe, modules, their packing instead.
VARIANTS = {
    "4bit, per-layer rows in 4": ("4bit", (TABLE,), AFFINE_4),
    "4bit, per-layer rows kept": ("4bit", (TABLE,), KEPT),
    "4bit, per-layer projections in 4": ("4bit", PER_LAYER_PROJECTIONS, AFFINE_4),
    "4bit, embeddings in 4": ("4bit", (EMBEDDINGS,), AFFINE_4),
    "4bit, embeddings kept": ("4bit", (EMBEDDINGS,), KEPT),
    "4bit, router in 4": ("4bit", (f"{_LAYERS}.router.proj",), AFFINE_4),
    "4bit, dense MLP in 4": ("4bit", (f"{_LAYERS}.mlp.*",), AFFINE_4),
    "4bit, dense MLP in 8": ("4bit", (f"{_LAYERS}.mlp.*",), AFFINE_8),
}


def moe_like() -> dict[str, Any]:
    """`config.json` of a small model built as the 26B-A4B is."""
    raw = e2b_like(256, 256, 4096)
    raw["text_config"] |= {
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2,
        "num_hidden_layers": 12,
        "num_key_value_heads": 4,
        "num_global_key_value_heads": 2,
        "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0,
        "final_logit_softcapping": 30.0,
        "num_kv_shared_layers": 0,
        "use_double_wide_mlp": False,
        "enable_moe_block": True,
        "num_experts": 32,
        "top_k_experts": 4,
        "moe_intermediate_size": 128,
    }
    return raw


def write_sensible(folder: Path, raw_config: dict[str, Any]) -> None:
    """A random checkpoint in the proportions of a trained one: attention not all on one key, every block a small
    change (all of them together 2.5 times the embedding), per-layer rows as large as what is added to them, logits that
    prefer some tokens to others."""
    write_random_checkpoint(folder, raw_config, mx.bfloat16)
    layers = len(raw_config["text_config"]["layer_types"])
    path = str(folder / "model.safetensors")
    weights = dict(mx.load(path))
    for name in weights:
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            weights[name] = weights[name] * 0.4
        elif ("layernorm" in name and ".post_" in name) or name.endswith("post_per_layer_input_norm.weight"):
            weights[name] = weights[name] * (2.5 / (3 * layers) ** 0.5)
        elif name == f"model.{TABLE}.weight":
            weights[name] = weights[name] * layers**0.5  # a layer reads its own columns only
        elif name == "model.language_model.norm.weight":
            weights[name] = weights[name] * 3
    mx.eval(weights)
    mx.save_safetensors(path, weights, metadata={"format": "pt"})


def recipes() -> Iterator[Recipe]:
    yield from RECIPES.values()
    for name, (base, modules, packing) in VARIANTS.items():
        rules = (*(Rule(module, packing, keep_indivisible=True) for module in modules), *RECIPES[base].rules)
        yield dataclasses.replace(RECIPES[base], name=name, rules=rules)


def log_probabilities(model: Gemma4, prompts: list[list[int]]) -> np.ndarray:
    rows = []
    for prompt in prompts:
        logits = model(mx.array([prompt]))[0]
        rows.append(np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True)))
    return np.concatenate(rows).astype(np.float64)


def measure(name: str, source: Path, prompts: list[list[int]]) -> None:
    """Print a table of recipes and variants for one checkpoint."""
    reference = log_probabilities(load_model(source, read_config(source), dtype="float32"), prompts)
    print(f"{name}: {sum(map(len, prompts))} tokens")
    print(f"  {'':34}{'bits/weight':>12}{'KL':>11}{'same top-1':>12}")
    seen = set()
    for recipe in recipes():
        planned = plan(source, recipe=recipe)
        layout = tuple(parameter.packing for parameter in planned.parameters)
        if layout in seen:  # a variant of something this checkpoint has not, or has that way
            continue
        seen.add(layout)
        with tempfile.TemporaryDirectory() as folder:
            out = convert(source, Path(folder) / "out", recipe=recipe)
            found = log_probabilities(load_model(out, read_config(out), dtype="float32"), prompts)
        divergence = (np.exp(reference) * (reference - found)).sum(-1).mean()
        same = (reference.argmax(-1) == found.argmax(-1)).mean()
        bits = 8 * planned.nbytes / planned.weights
        print(f"  {recipe.name:34}{bits:12.2f}{divergence:11.5f}{same:12.1%}", flush=True)


def built_in() -> tuple[Path, list[list[int]]]:
    """The built-in model's folder, and questions with the answers it gives, as ids."""
    folder = resolve("demo")
    model, processor = g4.load(folder, dtype="float32")
    prompts = []
    for question in QUESTIONS:
        answer = g4.generate(model, processor, question, temperature=0, max_tokens=100)
        prompts.append([*np.array(processor(question).input_ids)[0].tolist(), *answer.tokens])
    return folder, prompts


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    folder, prompts = built_in()
    measure("the built-in model", folder, prompts)
    rng = np.random.default_rng(0)
    for name, raw_config in {"E2B's depth": e2b_like(256, 512, 4096), "mixture of experts": moe_like()}.items():
        with tempfile.TemporaryDirectory() as scratch:
            write_sensible(Path(scratch), raw_config)
            random_ids = rng.integers(10, raw_config["vocab_size"], (PROMPTS, PROMPT_TOKENS)).tolist()
            measure(name, Path(scratch), random_ids)


if __name__ == "__main__":
    main()
