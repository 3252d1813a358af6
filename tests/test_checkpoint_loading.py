"""Checkpoints in every layout people share are read; what does not fit is listed, never passed over."""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import gemma4_mlx as g4
from checkpoints import VARIANTS
from gemma4_mlx import CheckpointError, ConfigError
from gemma4_mlx.checkpoint import load_model, read_config
from gemma4_mlx.checkpoint.hub import resolve
from gemma4_mlx.checkpoint.quantization import Packing
from gemma4_mlx.errors import PrecisionWarning
from gemma4_mlx.model import Gemma4
from parity import pair
from tiny_tokenizer import SPECIAL_IDS

IDS = np.random.default_rng(5).integers(len(SPECIAL_IDS), 512, (1, 60))
Weights = dict[str, mx.array]


def stored(folder: Path) -> Weights:
    return mx.load(str(folder / "model.safetensors"))


def write(folder: Path, source: Path, weights: Weights) -> Path:
    """A checkpoint with the config of `source` and other tensors."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text((source / "config.json").read_text())
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


def logits(folder: Path, **options: str) -> np.ndarray:
    return np.array(load_model(folder, read_config(folder), **options)(mx.array(IDS)))


def expected(variant: str) -> np.ndarray:
    return np.array(pair(variant).model(mx.array(IDS)))


def mlx_layout(name: str, array: mx.array) -> Weights:
    """A Hugging Face tensor as mlx-vlm writes it."""
    name = name.removeprefix("model.").replace("language_model.", "language_model.model.")
    if name.endswith("experts.gate_up_proj"):
        base = name.removesuffix("gate_up_proj") + "switch_glu."
        gate, up = mx.split(array, 2, axis=-2)
        return {f"{base}gate_proj.weight": gate, f"{base}up_proj.weight": up}
    if name.endswith("experts.down_proj"):
        return {f"{name.removesuffix('down_proj')}switch_glu.down_proj.weight": array}
    if name.endswith(("conv.weight", "conv1d.weight")):
        return {name: mx.moveaxis(array, 1, -1)}
    return {name: array}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_layout_of_mlx_vlm_gives_the_same_logits(variant: str, tmp_path: Path) -> None:
    source = pair(variant).folder
    weights = {k: v for name, array in stored(source).items() for k, v in mlx_layout(name, array).items()}
    folder = write(tmp_path, source, weights)
    assert np.array_equal(logits(folder), expected(variant))
    model = load_model(folder, read_config(folder))
    ours, theirs = (dict(tree_flatten(m.parameters())) for m in (model, pair(variant).model))
    assert all(mx.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_layout_of_mlx_lm_gives_a_model_without_towers(variant: str, tmp_path: Path) -> None:
    source = pair(variant).folder
    weights = {
        k: v
        for name, array in stored(source).items()
        if "language_model" in name
        for k, v in mlx_layout(name, array).items()
    }
    folder = write(tmp_path, source, weights)
    assert np.array_equal(logits(folder), expected(variant))
    model = load_model(folder, read_config(folder))
    assert model.config.vision is None
    assert model.config.audio is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_shards_with_an_index_are_read(variant: str, tmp_path: Path) -> None:
    source = pair(variant).folder
    weights = stored(source)
    names = sorted(weights)
    shards = {f"model-0000{i + 1}-of-00003.safetensors": names[i::3] for i in range(3)}
    for shard, members in shards.items():
        mx.save_safetensors(str(tmp_path / shard), {name: weights[name] for name in members})
    index = {"weight_map": {name: shard for shard, members in shards.items() for name in members}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    assert np.array_equal(logits(tmp_path), expected(variant))
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="weight files missing: model-00002-of-00003"):
        logits(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_one_precision_holds_for_the_whole_model(dtype: str, tmp_path: Path) -> None:
    source = pair("e2b").folder
    # A mixture, as third parties write it: bounds and norms in float32, the rest in bfloat16.
    mixed = {
        k: v if v.ndim < 2 and "norm.weight" not in k else v.astype(mx.bfloat16) for k, v in stored(source).items()
    }
    folder = write(tmp_path, source, mixed)
    model = load_model(folder, read_config(folder), dtype=dtype)
    assert {str(array.dtype) for _, array in tree_flatten(model.parameters())} == {f"mlx.core.{dtype}"}


MODES = [
    ("affine", 64, 4),
    ("affine", 32, 5),
    ("affine", 64, 6),
    ("affine", 32, 8),
    ("mxfp4", 32, 4),
    ("mxfp8", 32, 8),
    ("nvfp4", 16, 4),
]


def quantized(weights: Weights, choose: Callable[[str], tuple[str, int, int] | None]) -> Weights:
    """Tensors in mlx-vlm's layout, those that `choose` packs packed by MLX itself."""
    packed: Weights = {}
    for name, array in weights.items():
        packing = choose(name) if name.endswith(".weight") and array.ndim >= 2 and "conv" not in name else None
        if packing is None or array.shape[-1] % packing[1]:
            packed[name] = array
            continue
        mode, group_size, bits = packing
        base = name.removesuffix("weight")
        parts = mx.quantize(array, group_size, bits, mode=mode)
        packed.update(zip((f"{base}weight", f"{base}scales", f"{base}biases"), parts, strict=False))
    return packed


def dequantized(weights: Weights, choose: Callable[[str], tuple[str, int, int] | None]) -> Weights:
    """What the packed tensors stand for, unpacked."""
    plain = {name: array for name, array in weights.items() if not name.endswith((".scales", ".biases"))}
    for name, array in plain.items():
        base = name.removesuffix("weight")
        if f"{base}scales" in weights and (packing := choose(name)):
            mode, group_size, bits = packing
            plain[name] = mx.dequantize(
                array, weights[f"{base}scales"], weights.get(f"{base}biases"), group_size, bits, mode=mode
            ).astype(mx.float32)
    return plain


@pytest.mark.parametrize(("mode", "group_size", "bits"), MODES)
@pytest.mark.parametrize("variant", ["e2b", "moe"])
def test_every_quantization_of_mlx_is_read(variant: str, mode: str, group_size: int, bits: int, tmp_path: Path) -> None:
    source = pair(variant).folder
    plain = {k: v for name, array in stored(source).items() for k, v in mlx_layout(name, array).items()}

    def choose(name: str) -> tuple[str, int, int]:
        return mode, group_size, bits

    packed = quantized(plain, choose)
    assert any(name.endswith(".scales") for name in packed)
    ours = logits(write(tmp_path / "packed", source, packed))
    unpacked = logits(write(tmp_path / "plain", source, dequantized(packed, choose)))
    assert np.abs(ours - unpacked).max() < 1e-2 * unpacked.std()


@pytest.mark.parametrize("prefix", ["", "model."])
def test_bits_may_differ_from_module_to_module_and_names_keep_either_prefix(prefix: str, tmp_path: Path) -> None:
    source = pair("moe").folder
    plain = {k: v for name, array in stored(source).items() for k, v in mlx_layout(name, array).items()}

    def choose(name: str) -> tuple[str, int, int] | None:
        if "vision" in name:
            return None
        if "router" in name or ".mlp." in name or "embed_tokens" in name:
            return "affine", 64, 8
        return "affine", 64, 4

    packed = quantized(plain, choose)
    hub_names = {
        prefix + (k.replace("language_model.model.", "language_model.") if prefix else k): v for k, v in packed.items()
    }
    ours = logits(write(tmp_path / "packed", source, hub_names))
    unpacked = logits(write(tmp_path / "plain", source, dequantized(packed, choose)))
    assert np.abs(ours - unpacked).max() < 1e-2 * unpacked.std()


@pytest.mark.parametrize("per_layer", ["disk", "memory"])
@pytest.mark.parametrize("packing", [None, ("affine", 32, 4), ("affine", 32, 8), ("mxfp4", 32, 4)])
def test_the_per_layer_table_on_disk_gives_the_bits_of_the_one_in_memory(
    per_layer: str, packing: tuple[str, int, int] | None, tmp_path: Path
) -> None:
    source = pair("e2b").folder
    weights = {name: array.astype(mx.bfloat16) for name, array in stored(source).items()}
    weights = {k: v for name, array in weights.items() for k, v in mlx_layout(name, array).items()}
    packed = quantized(weights, lambda name: packing if "per_layer" in name else None)
    folder = write(tmp_path, source, packed)
    ids = mx.array(np.tile(IDS, (3, 1)))
    model = load_model(folder, read_config(folder), per_layer=per_layer)
    auto = load_model(folder, read_config(folder))
    assert mx.array_equal(model(ids), auto(ids))
    assert hasattr(model.language_model.embed_tokens_per_layer, "parameters") == (per_layer == "memory")


def test_a_table_on_disk_that_changes_is_told_and_one_that_is_removed_still_read(tmp_path: Path) -> None:
    source = pair("e2b").folder
    folder = write(tmp_path, source, stored(source))
    file = folder / "model.safetensors"
    model = load_model(folder, read_config(folder), per_layer="disk")
    before = np.array(model(mx.array(IDS)))
    (tmp_path / "kept").hardlink_to(file)
    file.unlink()
    assert np.array_equal(np.array(model(mx.array(IDS))), before)
    with (tmp_path / "kept").open("r+b") as opened:
        opened.truncate(1000)
    with pytest.raises(CheckpointError, match="was changed while in use: load the model again"):
        model(mx.array(IDS))


@pytest.mark.parametrize(("share", "on_disk"), [(0.5, False), (0.0, True)])
def test_the_table_stays_on_disk_where_the_weights_would_fill_the_memory(
    share: float, on_disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemma4_mlx.checkpoint.load._SHARE_FOR_WEIGHTS", share)
    model, _ = g4.load(pair("e2b").folder)
    assert hasattr(model.language_model.embed_tokens_per_layer, "parameters") != on_disk


def test_unused_keys_and_values_of_kv_shared_layers_may_be_there_or_not(tmp_path: Path) -> None:
    source = pair("e2b").folder
    weights = stored(source)
    for leaf in ("k_proj.weight", "v_proj.weight", "k_norm.weight"):
        weights[f"model.language_model.layers.5.self_attn.{leaf}"] = mx.ones((3, 3))
    assert np.array_equal(logits(write(tmp_path, source, weights)), expected("e2b"))


def test_tensors_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    source = pair("e2b").folder
    weights = stored(source)
    del weights["model.language_model.layers.1.mlp.up_proj.weight"]
    weights["model.language_model.layers.9.mlp.up_proj.weight"] = mx.ones((2, 2))
    weights["model.vision_tower.encoder.layers.0.self_attn.q_proj.linear.weight"] = mx.ones((64, 32))
    with pytest.raises(CheckpointError) as error:
        logits(write(tmp_path, source, weights))
    message = str(error.value)
    assert "1 missing (language_model.layers.1.mlp.up_proj.weight)" in message
    assert "1 extra (model.language_model.layers.9.mlp.up_proj.weight)" in message
    assert "q_proj.linear.weight is [64, 32], not [64, 64]" in message
    assert "\n" not in message


def test_a_tower_without_its_clip_bounds_is_not_loaded(tmp_path: Path) -> None:
    source = pair("e2b").folder
    weights = {name: array for name, array in stored(source).items() if not name.endswith(("_min", "_max"))}
    with pytest.raises(CheckpointError, match=r"\d+ missing \(audio_tower.* and \d+ more\)"):
        logits(write(tmp_path, source, weights))


def test_packed_columns_that_fit_no_quantization_are_named(tmp_path: Path) -> None:
    source = pair("e2b").folder
    weights = stored(source)
    weights["model.language_model.layers.0.mlp.up_proj.scales"] = mx.ones((128, 7))
    with pytest.raises(CheckpointError, match=r"layers.0.mlp.up_proj: 64 packed columns with 7 scales"):
        logits(write(tmp_path, source, weights))
    with pytest.raises(CheckpointError):
        Packing.of("x", columns=64, packed_columns=64, scale_columns=1, has_biases=True)  # 32 bits


@pytest.mark.parametrize("kept", [0, 5, 100, 5_000])
def test_a_truncated_file_is_told_before_a_weight_is_read(kept: int, tmp_path: Path) -> None:
    source = pair("e2b").folder
    folder = write(tmp_path, source, stored(source))
    whole = (folder / "model.safetensors").read_bytes()
    for length in (kept, len(whole) - 1 - kept):
        (folder / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model.safetensors .*download it again"):
            logits(folder)


def test_a_file_that_is_not_safetensors_is_refused(tmp_path: Path) -> None:
    source = pair("e2b").folder
    folder = write(tmp_path, source, stored(source))
    for junk in (b"<!DOCTYPE html>" * 100, b"\x10\0\0\0\0\0\0\0{not json at all" + b"\0" * 64, b"\x02\0\0\0\0\0\0\0[]"):
        (folder / "model.safetensors").write_bytes(junk)
        with pytest.raises(CheckpointError, match="download it again"):
            logits(folder)


def test_a_folder_without_weights_or_config_says_which(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is empty, without a config\.json"):
        g4.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        g4.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="'llama'"):
        g4.load(tmp_path)
    (tmp_path / "config.json").write_text((pair("e2b").folder / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"no \*.safetensors file"):
        g4.load(tmp_path)


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"per_layer": "cloud"}])
def test_an_unknown_option_is_a_value_error_that_lists_the_known(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be"):
        g4.load(pair("e2b").folder, **options)


def test_a_model_loaded_in_one_thread_answers_in_another() -> None:
    folder = pair("e2b").folder
    model = load_model(folder, read_config(folder), dtype="bfloat16")
    answers: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(list(g4.generate_tokens(model, [30, 31], max_tokens=3))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
        thread.join()
    answers.append(list(g4.generate_tokens(model, [30, 31], max_tokens=3)))
    assert answers[0] == answers[1] == answers[2]


def test_the_decoder_is_read_when_it_is_loaded_and_a_tower_when_it_is_used(tmp_path: Path) -> None:
    """A GPU that waits for a slow disk inside its own work is stopped by macOS."""
    folder = shutil.copytree(resolve("demo"), tmp_path / "copy")
    model, _ = g4.load(folder, per_layer="memory")
    used, _ = g4.load(folder, per_layer="memory")
    sound = np.zeros(16_000, np.float32)
    heard = used.audio_stream().feed(sound)
    for file in folder.glob("*.safetensors"):
        file.write_bytes(b"")
    assert mx.isfinite(model(mx.array([[1, 2, 3]]))).all()
    assert mx.array_equal(used.audio_stream().feed(sound), heard)
    with pytest.raises(RuntimeError):
        model.audio_stream()


def test_a_model_is_built_without_reading_a_weight() -> None:
    folder = pair("dense").folder
    model = load_model(folder, read_config(folder))
    assert isinstance(model, Gemma4)
    before = mx.get_active_memory()
    again = load_model(folder, read_config(folder))
    # The weights of this checkpoint take 4 MB.
    assert mx.get_active_memory() - before < 500_000
    assert again(mx.array(IDS)).shape == (1, 60, 512)


def test_transformers_is_never_imported_on_the_way_to_an_answer() -> None:
    import subprocess
    import sys

    code = (
        "import sys, gemma4_mlx as g4\n"
        f"model, processor = g4.load({str(pair('e2b').folder)!r})\n"
        "g4.generate(model, processor, 'hello', max_tokens=2)\n"
        "print(*{'transformers', 'torch', 'mlx_lm'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def in_memory(array: mx.array) -> memoryview:
    mx.eval(array)
    return memoryview(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)


def test_convolutions_in_torch_s_order_lie_in_memory_as_metal_reads_them() -> None:
    weights = dict(tree_flatten(load_model(pair("e2b").folder, read_config(pair("e2b").folder)).parameters()))
    found = {name: weight for name, weight in weights.items() if name.endswith(("conv.weight", "conv1d.weight"))}
    assert len(found) == 4
    assert all(in_memory(weight).c_contiguous for weight in found.values())


def test_packed_halves_of_fused_experts_lie_in_memory_as_metal_reads_them(tmp_path: Path) -> None:
    source, weights = pair("moe").folder, {}
    for name, array in stored(source).items():
        if ".experts." in name:
            packed = mx.quantize(array, group_size=32, bits=4)
            leaves = ("weight", "scales", "biases")
            weights |= {f"{name}.{leaf}": part for leaf, part in zip(leaves, packed, strict=True)}
        else:
            weights[name] = array
    folder = write(tmp_path, source, weights)
    model = load_model(folder, read_config(folder))
    experts = model.layers[0].experts
    fused = weights["model.language_model.layers.0.experts.gate_up_proj.weight"]
    assert mx.array_equal(experts.up_proj.weight, mx.split(fused, 2, axis=-2)[1])
    for projection in (experts.gate_proj, experts.up_proj):
        for array in (projection.weight, projection.scales, projection.biases):
            assert in_memory(array).c_contiguous
    assert np.isfinite(np.array(model(mx.array(IDS)))).all()


def test_experts_are_handed_rows_whose_strides_are_those_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[mx.array] = []
    gather_mm = mx.gather_mm
    monkeypatch.setattr(mx, "gather_mm", lambda x, *rest, **named: handed.append(x) or gather_mm(x, *rest, **named))
    logits(pair("moe").folder)
    assert handed
    assert all(in_memory(x).strides == (4 * x.shape[2], 4 * x.shape[2], 4) for x in handed)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", None])
def test_a_model_that_computes_in_float16_is_loaded_with_a_warning(dtype: str | None) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        g4.load(pair("dense").folder, dtype=dtype)
    said = [warning for warning in said if issubclass(warning.category, PrecisionWarning)]
    assert len(said) == (dtype == "float16")
    assert all(
        "float16" in str(w.message) and "bfloat16" in str(w.message) and "\n" not in str(w.message) for w in said
    )
