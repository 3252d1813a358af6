"""The recipe `qat`: weights on the Q4_0 lattice are packed without any difference, or it is said which are not."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from safetensors.torch import load_file, save_file

import gemma4_mlx as g4
from checkpoints import relative_error
from command_line import only_line, run
from gemma4_mlx.conversion.convert import plan
from gemma4_mlx.conversion.q4_0 import pack
from qat_checkpoints import is_linear, unquantized

IDS = [[2, 50, 61, 200, 300, 77, 410, 9, 33]]


def dequantized(folder: Path) -> dict[str, np.ndarray]:
    """Every parameter of a checkpoint by our name, packed ones as what they stand for, float32."""
    model, _ = g4.load(folder, dtype="float32", per_layer="memory")
    flat = dict(tree_flatten(model.parameters()))
    found = {}
    for name, array in flat.items():
        module, _, leaf = name.rpartition(".")
        if leaf in ("scales", "biases"):
            continue
        if f"{module}.scales" in flat:
            layer = dict(model.named_modules())[module]
            scales, biases = flat[f"{module}.scales"], flat[f"{module}.biases"]
            array = mx.dequantize(array, scales, biases, group_size=layer.group_size, bits=layer.bits)
        found[name] = np.array(array.astype(mx.float32))
    return found


@pytest.mark.parametrize("variant", ["e2b", "moe", "unified"])
def test_no_weight_on_the_lattice_changes_and_the_logits_are_the_reference_s(variant: str, tmp_path: Path) -> None:
    unquantized(tmp_path / "in", variant)
    out = g4.convert(tmp_path / "in", tmp_path / "out", recipe="qat")
    theirs, ours = dequantized(tmp_path / "in"), dequantized(out)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert np.array_equal(ours[name], array), name
    model, _ = g4.load(out, dtype="float32")
    reference, _ = g4.load(tmp_path / "in", dtype="float32")
    assert relative_error(np.array(model(mx.array(IDS))), np.array(reference(mx.array(IDS)))) < 1e-3
    packed = json.loads((out / "config.json").read_text())["quantization"]
    assert {key: packed[key] for key in ("group_size", "bits", "mode")} == {
        "group_size": 32,
        "bits": 4,
        "mode": "affine",
    }


def test_a_weight_takes_five_bits_with_its_scale_and_bias(tmp_path: Path) -> None:
    unquantized(tmp_path / "in", "dense", lambda name: is_linear(name) or "embed_tokens" in name)
    planned = plan(tmp_path / "in", recipe="qat")
    decoder = [parameter for parameter in planned.parameters if parameter.packing is not None]
    assert sum(p.nbytes for p in decoder) * 8 == 5 * sum(np.prod(p.shape) for p in decoder)
    assert planned.off_lattice == ()


def test_embeddings_off_the_lattice_stay_whole_and_those_on_it_are_packed(tmp_path: Path) -> None:
    unquantized(tmp_path / "off", "e2b")
    unquantized(tmp_path / "on", "e2b", lambda name: is_linear(name) or "embed_tokens" in name)
    off = plan(tmp_path / "off", recipe="qat")
    on = plan(tmp_path / "on", recipe="qat")
    tables = {"language_model.embed_tokens", "language_model.embed_tokens_per_layer"}
    assert tables <= set(off.off_lattice)
    assert not tables & set(on.off_lattice)
    whole = {p.name for p in off.parameters if p.packing is None}
    assert {f"{table}.weight" for table in tables} <= whole


def test_a_weight_off_the_lattice_stops_the_conversion_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    unquantized(tmp_path / "in", "dense")
    path = tmp_path / "in" / "model.safetensors"
    tensors = load_file(path)
    name = "model.language_model.layers.3.mlp.up_proj.weight"
    tensors[name][5, 40] *= 1.03
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(g4.Gemma4Error, match=r"layers\.3.mlp.up_proj.weight.* is not on the lattice") as caught:
        g4.convert(tmp_path / "in", tmp_path / "out", recipe="qat")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    result = run("convert", g4.checkpoint.builtin.FOLDER, tmp_path / "out", "--recipe", "qat")
    assert result.returncode == 1
    assert "is not on the lattice" in only_line(result.stderr)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.floats(1e-6, 10))
def test_a_group_is_found_on_its_lattice_whatever_its_step_and_largest_multiple(seed, largest, size):
    random = np.random.default_rng(seed)
    steps = random.integers(-largest, min(largest, 7), size=(3, 2, 32), endpoint=True)
    step = mx.array(random.normal(size=(3, 2, 1)) * size).astype(mx.bfloat16)
    rows = (step.astype(mx.float32) * mx.array(steps.astype(np.float32))).astype(mx.bfloat16).reshape(3, 64)
    packed = pack(rows, mx.bfloat16)
    assert packed.difference == 0
    scales, biases = packed.scales.astype(mx.float32), packed.biases.astype(mx.float32)
    found = mx.dequantize(packed.weight, scales, biases, group_size=32, bits=4)
    assert mx.array_equal(found.astype(mx.bfloat16), rows)


def test_a_group_of_zeros_is_zeros() -> None:
    packed = pack(mx.zeros((2, 32), mx.bfloat16), mx.bfloat16)
    assert packed.difference == 0
    assert not mx.any(mx.dequantize(packed.weight, packed.scales, packed.biases, group_size=32, bits=4)).item()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 0.3])
def test_what_is_on_no_lattice_is_told(wrong: float) -> None:
    rows = np.full((1, 32), -8.0, np.float32)
    rows[0, 3] = wrong
    assert pack(mx.array(rows).astype(mx.bfloat16), mx.bfloat16).difference > 0
