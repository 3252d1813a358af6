"""Checkpoints as they are in the wild: mixed precisions, 8-bit and 64-bit floats, heads of their own, odd names.

What transformers loads is loaded, with its logits; what holds no weights is refused with the tensor's name and type.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from safetensors.torch import load_file, save_file
from transformers import Gemma4ForCausalLM, Gemma4ForConditionalGeneration

import gemma4_mlx as g4
from gemma4_mlx import CheckpointError
from gemma4_mlx.checkpoint.headers import read_headers
from gemma4_mlx.checkpoint.stored_numbers import decoded
from gemma4_mlx.generation.loop import generate_tokens
from parity import pair
from tiny_tokenizer import SPECIAL_IDS

IDS = np.random.default_rng(5).integers(len(SPECIAL_IDS), 512, (1, 40))
UP = "model.language_model.layers.0.mlp.up_proj.weight"
NORM = "model.language_model.norm.weight"
EMBEDDINGS = "model.language_model.embed_tokens.weight"
Tensors = dict[str, torch.Tensor]


def checkpoint(folder: Path, change: Callable[[Tensors], Any], variant: str = "e2b", **config: Any) -> Path:
    """A copy of a small checkpoint, its tensors changed in place, its config.json too; None removes a key."""
    shutil.copytree(pair(variant).folder, folder)
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    raw = {**json.loads(path.read_text()), **config}
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    return folder


def to(dtype: torch.dtype, keep: Callable[[str], bool] = lambda name: False) -> Callable[[Tensors], None]:
    """Every tensor in `dtype`, but those that `keep` says in float32."""

    def change(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor if keep(name) else tensor.to(dtype)

    return change


def logits(folder: Path, **options: Any) -> np.ndarray:
    model, _ = g4.load(folder, **options)
    return np.array(model(mx.array(IDS)))


def reference_logits(folder: Path) -> np.ndarray:
    model = Gemma4ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits.numpy()


def assert_like_the_reference(folder: Path) -> None:
    theirs = reference_logits(folder)
    assert np.abs(logits(folder, dtype="float32") - theirs).max() < 1e-3 * theirs.std()


def assert_precision(folder: Path, expected: mx.Dtype, **options: Any) -> None:
    """All of the model, and all that it computes but logits, is in one precision."""
    model, processor = g4.load(folder, **options)
    floats = {array.dtype for _, array in tree_flatten(model.parameters()) if array.dtype != mx.uint32}
    assert floats == {expected}
    cache = model.make_cache()
    ids = mx.array(IDS)
    decoder = model.language_model
    embeddings = decoder.embed(ids)
    hidden = decoder(embeddings, decoder.per_layer_inputs(decoder.per_layer_rows(ids), embeddings), cache)
    assert embeddings.dtype == hidden.dtype == expected
    assert {buffer.dtype for layer in cache for buffer in layer.buffers} == {expected}
    assert decoder.logits(hidden).dtype == mx.float32
    assert model.step(mx.array([[30]]), cache).dtype == mx.float32
    assert {buffer.dtype for layer in cache for buffer in layer.buffers} == {expected}
    if model.config.vision is not None:
        noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        from PIL import Image

        inputs = processor([{"role": "user", "content": [{"type": "image", "image": Image.fromarray(noise)}]}])
        assert {tokens.dtype for tokens in model.encode_images(inputs)} == {expected}
    if model.config.audio is not None:
        stream = model.audio_stream()
        assert stream.feed(np.zeros(4000, np.float32)).dtype == expected


def norms(name: str) -> bool:
    return "norm" in name


def router(name: str) -> bool:
    return "router" in name or "per_expert" in name


def one_scalar(name: str) -> bool:
    return name.endswith("layers.1.layer_scalar")


def bounds(name: str) -> bool:
    return name.endswith(("_min", "_max"))


MIXTURES = [("e2b", norms), ("e2b", one_scalar), ("e2b", bounds), ("moe", router), ("dense", norms)]


@pytest.mark.parametrize("per_layer", ["memory", "disk"])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("variant", "keep"), MIXTURES)
def test_a_few_float32_tensors_do_not_lift_a_model_of_half_that_precision(
    variant: str, keep: Callable[[str], bool], half: torch.dtype, per_layer: str, tmp_path: Path
) -> None:
    ours = {torch.bfloat16: mx.bfloat16, torch.float16: mx.float16}[half]
    folder = checkpoint(tmp_path / "mixed", to(half, keep), variant, dtype=None)
    assert_precision(folder, ours, per_layer=per_layer)


@pytest.mark.parametrize("place", ["dtype", "torch_dtype", "text_config"])
def test_the_precision_that_config_json_names_is_the_model_s(place: str, tmp_path: Path) -> None:
    change = {place: "float16"}
    if place == "text_config":
        change = {place: {**json.loads((pair("e2b").folder / "config.json").read_text())[place], "dtype": "float16"}}
    folder = checkpoint(tmp_path / "named", to(torch.bfloat16), **{"dtype": None, **change})
    assert_precision(folder, mx.float16)
    assert_precision(folder, mx.float32, dtype="float32")


@pytest.mark.parametrize("name", ["float8_e4m3fn", "auto", "int8"])
def test_a_precision_that_nothing_computes_in_leaves_the_choice_to_the_weights(name: str, tmp_path: Path) -> None:
    assert_precision(checkpoint(tmp_path / "odd", to(torch.bfloat16, norms), dtype=name), mx.bfloat16)


def test_scales_say_what_a_quantized_model_computes_in(tmp_path: Path) -> None:
    out = g4.convert(pair("e2b").folder, tmp_path / "out", dtype="float16", recipe="speech")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    assert_precision(out, mx.float16)


def e4m3(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        tensors[name] = tensor.to(torch.float8_e4m3fn if tensor.ndim >= 2 else torch.bfloat16)


def e5m2(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        tensors[name] = tensor.to(torch.float8_e5m2 if tensor.ndim >= 2 else torch.bfloat16)


def some_64_bit(tensors: Tensors) -> None:
    for name in list(tensors)[::3]:
        tensors[name] = tensors[name].double()


def test_the_table_s_place_is_chosen_by_what_the_weights_take_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "stored", to(torch.float32), dtype="float16")
    stored = (folder / "model.safetensors").stat().st_size
    asked: list[int] = []

    def place(nbytes: int) -> str:
        asked.append(nbytes)
        return "memory"

    monkeypatch.setattr("gemma4_mlx.checkpoint.load.automatic_place", place)
    g4.load(folder)
    assert asked == [pytest.approx(stored / 2, rel=0.1)]


FORMATS = {"F8_E4M3": e4m3, "F8_E5M2": e5m2, "F64": to(torch.float64), "F64 in part": some_64_bit}
FORMATS |= {"F16": to(torch.float16), "BF16": to(torch.bfloat16), "F32": to(torch.float32)}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("variant", ["e2b", "moe"])
def test_every_format_of_floats_has_the_reference_logits(variant: str, form: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "stored", FORMATS[form], variant, dtype=None)
    assert_like_the_reference(folder)


@pytest.mark.parametrize("form", ["F8_E4M3", "F8_E5M2", "F64"])
def test_every_format_of_floats_is_converted_as_it_is_loaded(form: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "stored", FORMATS[form], dtype=None)
    out = g4.convert(folder, tmp_path / "out", bits=16, dtype="float32")
    # bfloat16 holds every 8-bit float; float32 is all that a Mac has of 64 bits.
    assert np.array_equal(logits(out), logits(folder, dtype="float32"))
    packed = g4.convert(folder, tmp_path / "packed", bits=8)
    assert np.isfinite(logits(packed)).all()


@pytest.mark.parametrize("form", ["F8_E4M3", "F8_E5M2", "F64"])
def test_rows_left_on_disk_are_those_in_memory_in_every_format(form: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "stored", FORMATS[form], dtype=None)
    expected = {"F64": mx.float32}.get(form, mx.bfloat16)
    assert_precision(folder, expected, per_layer="disk")
    assert np.array_equal(logits(folder, per_layer="disk"), logits(folder, per_layer="memory"))


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)])
def test_all_256_codes_of_an_8_bit_float_are_decoded(dtype: str, torch_dtype: torch.dtype) -> None:
    codes = np.arange(256, dtype=np.uint8)
    theirs = torch.tensor(codes).view(torch_dtype).float().numpy()
    for precision in (mx.float32, mx.bfloat16):
        ours = decoded(mx.array(codes), dtype).astype(precision).astype(mx.float32)
        assert np.array_equal(np.array(ours), theirs, equal_nan=True)


def as_integers(dtype: torch.dtype) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[UP] = (tensors[UP] * 50).to(dtype)

    return change


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.int8, "I8"), (torch.uint8, "U8"), (torch.int16, "I16"), (torch.int64, "I64"), (torch.bool, "BOOL")],
)
def test_whole_numbers_are_no_weights(dtype: torch.dtype, name: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "stored", as_integers(dtype))
    for use in (g4.load, lambda source: g4.convert(source, tmp_path / "out")):
        with pytest.raises(CheckpointError, match=rf"of a type that is not read \({UP} is {name}\): take") as refusal:
            use(folder)
        assert "\n" not in str(refusal.value)
    assert not list(tmp_path.glob("out*"))


FOREIGN = [
    "weight_scale",
    "weight_scale_inv",
    "weight_zero_point",
    "SCB",
    "weight.absmax",
    "weight.quant_state.bitsandbytes__nf4",
]


@pytest.mark.parametrize("leaf", FOREIGN)
def test_weights_with_scales_that_are_not_mlx_s_are_refused_by_name(leaf: str, tmp_path: Path) -> None:
    scale = UP.removesuffix("weight") + leaf

    def change(tensors: Tensors) -> None:
        tensors[UP] = tensors[UP].to(torch.float8_e4m3fn)
        tensors[scale] = torch.ones(tensors[UP].shape[0], 1)

    folder = checkpoint(tmp_path / "stored", change)
    for use in (g4.load, lambda source: g4.convert(source, tmp_path / "out")):
        with pytest.raises(CheckpointError, match=r"is quantized by .*, not for MLX") as refusal:
            use(folder)
        assert scale in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("leaf", ["weight", "scales", "biases"])
def test_packed_weights_of_another_type_than_mlx_packs_are_refused(leaf: str, tmp_path: Path) -> None:
    out = g4.convert(pair("e2b").folder, tmp_path / "out", bits=8, recipe=None)
    name = f"language_model.model.layers.0.mlp.up_proj.{leaf}"
    tensors = dict(mx.load(str(out / "model.safetensors")))
    tensors[name] = tensors[name].view(mx.int32) if leaf == "weight" else tensors[name].view(mx.uint16)
    mx.eval(tensors)
    mx.save_safetensors(str(out / "model.safetensors"), tensors)
    with pytest.raises(CheckpointError, match=rf"weights of a type that is not read \({name} is "):
        g4.load(out)


def own_head(tensors: Tensors) -> None:
    tensors["lm_head.weight"] = tensors[EMBEDDINGS].flip(0) + 0.01


def copied_head(tensors: Tensors) -> None:
    tensors["lm_head.weight"] = tensors[EMBEDDINGS].clone()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", [own_head, copied_head])
def test_a_stored_head_has_the_reference_logits(head: Callable[[Tensors], None], tied: bool, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "stored", head, tie_word_embeddings=tied)
    assert_like_the_reference(folder)
    model, _ = g4.load(folder)
    assert model.config.text.tie_word_embeddings == (head is copied_head)
    # A head that is the embeddings again takes no memory of its own.
    assert hasattr(model.language_model, "lm_head") == (head is own_head)
    assert np.array_equal(np.array(model(mx.array(IDS))[:, -1:]), np.array(model(mx.array(IDS), last_only=True)))
    cache = model.make_cache()
    model(mx.array(IDS[:, :-1]), cache=cache)
    step = np.array(model.step(mx.array(IDS[:, -1:]), cache))
    assert np.abs(step[0, 0] - logits(folder)[0, -1]).max() < 1e-3


@pytest.mark.parametrize("recipe", ["bf16", "8bit", "speech"])
def test_a_head_of_its_own_is_converted(recipe: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "stored", own_head)
    out = g4.convert(folder, tmp_path / "out", recipe=recipe, dtype="float32")
    assert "language_model.lm_head.weight" in read_headers(out)
    config = json.loads((out / "config.json").read_text())
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is False
    ours, theirs = logits(out), logits(folder)
    if recipe == "bf16":
        assert np.array_equal(ours, theirs)
    else:
        assert "language_model.lm_head.scales" in read_headers(out)
        assert (ours.argmax(-1) == theirs.argmax(-1)).mean() > 0.8


def test_a_head_of_its_own_keeps_8_bits_in_a_4_bit_model(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "stored", own_head)
    out = g4.convert(folder, tmp_path / "out", bits=4)
    quantization = json.loads((out / "config.json").read_text())["quantization"]
    assert quantization["language_model.lm_head"]["bits"] == 8


def test_a_copied_head_is_not_converted_twice(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "stored", copied_head, tie_word_embeddings=False)
    out = g4.convert(folder, tmp_path / "out")
    assert not [name for name in read_headers(out) if "lm_head" in name]
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is True


def test_a_head_in_the_embeddings_place_is_the_embeddings(tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors.pop(EMBEDDINGS)

    folder = checkpoint(tmp_path / "stored", change)
    assert np.array_equal(logits(folder), logits(pair("e2b").folder))


def test_an_untied_head_that_is_missing_is_told(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "stored", lambda tensors: None, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"1 missing \(language_model.lm_head.weight\)"):
        g4.load(folder)


def merged_adapter(tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[f"base_model.model.{name}"] = tensors.pop(name)


def rotary_tables(tensors: Tensors) -> None:
    tensors["model.language_model.rotary_emb.inv_freq"] = torch.ones(16)
    tensors["model.language_model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16, dtype=torch.float64)


def measured_ranges(tensors: Tensors) -> None:
    for leaf in ("k_scale", "v_scale", "q_scale"):
        tensors[f"model.language_model.layers.0.self_attn.{leaf}"] = torch.ones(())
    tensors["model.language_model.layers.0.mlp.up_proj.input_scale"] = torch.ones(())


def scalars_without_a_dimension(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.endswith("layer_scalar")]:
        tensors[name] = tensors[name].reshape(())


def bounds_with_a_dimension(tensors: Tensors) -> None:
    for name in [name for name in tensors if bounds(name)]:
        tensors[name] = tensors[name].reshape(1)


def nothing(tensors: Tensors) -> None:
    pass


ODDITIES = [merged_adapter, rotary_tables, measured_ranges, scalars_without_a_dimension, bounds_with_a_dimension]


@pytest.mark.parametrize("change", ODDITIES)
def test_odd_names_and_shapes_that_mean_the_same_load_and_convert_to_the_same(
    change: Callable[[Tensors], None], tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "stored", change)
    expected = logits(pair("e2b").folder)
    assert np.array_equal(logits(folder), expected)
    assert np.array_equal(logits(g4.convert(folder, tmp_path / "out", bits=16, dtype="float32")), expected)


@pytest.mark.parametrize(("part", "variant"), [("vision_config", "dense"), ("audio_config", "e2b")])
def test_tensors_of_a_tower_the_config_has_not_are_left_as_transformers_leaves_them(
    part: str, variant: str, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "stored", nothing, variant, **{part: None})
    assert_like_the_reference(folder)
    model, _ = g4.load(folder)
    assert getattr(model.config, part.removesuffix("_config")) is None


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_alone_as_transformers_saves_it_has_the_reference_logits(tied: bool, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        for name in list(tensors):
            tensor = tensors.pop(name)
            if "language_model" in name:
                tensors[name.replace("model.language_model.", "model.")] = tensor
        if not tied:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0) + 0.01

    text = json.loads((pair("e2b").folder / "config.json").read_text())["text_config"]
    folder = checkpoint(tmp_path / "stored", change)
    text |= {"model_type": "gemma4_text", "architectures": ["Gemma4ForCausalLM"], "tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(text))
    reference = Gemma4ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = reference(input_ids=torch.tensor(IDS)).logits.numpy()
    ours = logits(folder)
    assert np.abs(ours - theirs).max() < 1e-3 * theirs.std()
    assert np.array_equal(logits(g4.convert(folder, tmp_path / "out", bits=16, dtype="float32")), ours)


def test_two_tensors_of_one_weight_are_refused(tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors[UP.removeprefix("model.")] = tensors[UP] + 1

    folder = checkpoint(tmp_path / "stored", change)
    with pytest.raises(CheckpointError, match="are the same weight: remove one of them"):
        g4.load(folder)


def test_a_quantization_config_without_a_method_does_not_make_a_checkpoint_quantized(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "stored", nothing, quantization_config={"bits": 4, "group_size": 32})
    out = g4.convert(folder, tmp_path / "out", bits=16, dtype="float32")
    assert np.array_equal(logits(out), logits(folder))
    assert "quantization_config" not in json.loads((out / "config.json").read_text())


def test_greedy_tokens_of_a_mixed_checkpoint_are_those_of_the_reference_in_that_precision(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mixed", to(torch.bfloat16, norms), dtype=None)
    model, _ = g4.load(folder, dtype="float32")
    reference = Gemma4ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor(IDS)
    theirs = reference.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)[0, ids.shape[1] :].tolist()
    assert list(generate_tokens(model, mx.array(IDS), max_tokens=8)) == theirs
