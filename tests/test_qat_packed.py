"""The makers' packed forms of their quantization-aware training: loaded without a weight being another."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import gemma4_mlx as g4
from checkpoints import relative_error
from gemma4_mlx.checkpoint.headers import TensorHeader
from gemma4_mlx.checkpoint.repacking import _repacked
from gemma4_mlx.checkpoint.sources import StoredTensor
from qat_checkpoints import compressed, mobile, pack_to_bytes, pack_to_int32
from test_convert_qat import IDS, dequantized


def logits(folder: Path, **options: str) -> np.ndarray:
    model, _ = g4.load(folder, dtype="float32", **options)
    return np.array(model(mx.array(IDS)))


FORMS = [("e2b", compressed), ("dense", compressed), ("unified", compressed), ("e2b", mobile), ("e4b", mobile)]


@pytest.mark.parametrize(("variant", "form"), FORMS)
def test_no_weight_is_another_and_the_logits_are_those_of_what_they_stand_for(variant, form, tmp_path):
    form(tmp_path / "packed", tmp_path / "plain", variant)
    ours, theirs = dequantized(tmp_path / "packed"), dequantized(tmp_path / "plain")
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert np.array_equal(ours[name], array), name
    assert relative_error(logits(tmp_path / "packed"), logits(tmp_path / "plain")) < 1e-3


@pytest.mark.parametrize("form", [compressed, mobile])
def test_rows_left_on_disk_are_those_in_memory(form, tmp_path):
    form(tmp_path / "packed", tmp_path / "plain", "e2b")
    on_disk, in_memory = (logits(tmp_path / "packed", per_layer=place) for place in ("disk", "memory"))
    assert np.array_equal(on_disk, in_memory)


def test_the_layout_is_that_of_compressed_tensors() -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    steps = torch.randint(-8, 8, (5, 64), dtype=torch.int8)
    assert torch.equal(helpers.pack_to_int32(steps, 4), pack_to_int32(steps))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_layout_is_that_of_transformers_and_so_are_the_weights(bits: int) -> None:
    from transformers.integrations.gemma_quant import QuantizedLinear

    steps = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (6, 256))
    linear = QuantizedLinear(256, 6, num_bits=bits)
    linear.weight.data = steps.to(torch.int8) if bits == 8 else pack_to_bytes(steps, bits)
    linear.weight_scale.data = torch.rand(6, 1) / 100
    theirs = linear._dequantize_weights().detach().numpy()
    found = np.array(mx.dequantize(*repacked(linear.weight, linear.weight_scale), group_size=128, bits=bits))
    # float32 has no room for the digits of a scale and of a number together: MLX rounds once more than torch.
    assert np.abs(found - theirs).max() <= np.spacing(np.abs(theirs).max()) * 2
    assert np.array_equal(np.round(found / linear.weight_scale.detach().numpy()), steps.numpy())


def repacked(weight: torch.Tensor, scale: torch.Tensor) -> list[mx.array]:
    """Weight, scales and biases that MLX is given for a row of 256 weights."""
    dtypes = {torch.uint8: "U8", torch.int8: "I8", torch.float32: "F32"}
    stored = [
        StoredTensor("x", TensorHeader(Path("x"), dtypes[tensor.dtype], tuple(tensor.shape), 0, 0))
        for tensor in (weight, scale)
    ]
    found = _repacked("x", *stored, 256)
    arrays = {"weight": weight, "scales": scale, "biases": scale}
    return [found[f"x.{leaf}"].repacking.of(mx.array(tensor.detach().numpy())) for leaf, tensor in arrays.items()]


NAME = "model.language_model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("form", "leaf", "change", "told"),
    [
        (compressed, "weight_packed", lambda t: t[:, :3], "which are not 4 or 8 bits"),
        (compressed, "weight_packed", lambda t: t.to(torch.float8_e4m3fn), "is quantized by FP8"),
        (compressed, "weight_scale", lambda t: t[:-1], "and its scale do not fit each other"),
        (compressed, "weight_scale", lambda t: t.to(torch.int32), "and its scale do not fit each other"),
        (compressed, "weight_scale", lambda t: t.repeat(1, 2), "4 scales for 64 weights"),
        (compressed, "weight_packed", None, "is a scale of nothing that is there"),
        (compressed, "weight_scale", None, "of another shape"),
        (mobile, "weight", lambda t: t[:, :-1], "which are not 2 or 4 bits"),
        (mobile, "weight_scale", None, "of another shape"),
    ],
)
def test_a_packed_checkpoint_that_is_not_as_published_is_told_in_one_line(form, leaf, change, told, tmp_path):
    form(tmp_path / "packed", tmp_path / "plain", "e2b")
    path = tmp_path / "packed" / "model.safetensors"
    tensors = load_file(path)
    tensor = tensors.pop(f"{NAME}.{leaf}")
    if change is not None:
        tensors[f"{NAME}.{leaf}"] = change(tensor).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(g4.Gemma4Error, match=told) as caught:
        g4.load(tmp_path / "packed")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("form", "dtype"), [(compressed, "bfloat16"), (mobile, "float32")])
def test_a_packed_checkpoint_is_converted_without_a_weight_being_another(form, dtype, tmp_path):
    form(tmp_path / "packed", tmp_path / "plain", "e2b")
    out = g4.convert(tmp_path / "packed", tmp_path / "out", recipe="qat", dtype=dtype)
    ours, theirs = dequantized(out), dequantized(tmp_path / "plain")
    assert all(np.array_equal(ours[name], array) for name, array in theirs.items())
    assert mlx_lm.load(str(out))[0](mx.array(IDS)).shape == (1, len(IDS[0]), 512)


def test_a_packed_checkpoint_is_not_rounded_a_second_time(tmp_path):
    compressed(tmp_path / "packed", tmp_path / "plain", "dense")
    with pytest.raises(g4.Gemma4Error, match="the recipe qat keeps each of its weights"):
        g4.convert(tmp_path / "packed", tmp_path / "out", bits=4)


def test_scales_that_the_output_has_no_room_for_stop_the_conversion_by_name(tmp_path):
    mobile(tmp_path / "packed", tmp_path / "plain", "e2b")
    path = tmp_path / "packed" / "model.safetensors"
    tensors = load_file(path)
    tensors[f"{NAME}.weight_scale"] *= 1.001
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(g4.Gemma4Error, match=r"up_proj\.weight_scale.* of more digits"):
        g4.convert(tmp_path / "packed", tmp_path / "out", recipe="qat")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed", "plain"]
