"""Conversions: what is in the output, what is refused. Interruptions are in test_convert_interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import gemma4_mlx as g4
from checkpoints import build_checkpoint
from gemma4_mlx.checkpoint import load_model, read_config
from gemma4_mlx.checkpoint.headers import read_header, read_headers
from gemma4_mlx.checkpoint.quantization import quantize_modules
from gemma4_mlx.conversion import conversion_plan, shard_file
from gemma4_mlx.conversion.convert import plan
from gemma4_mlx.conversion.recipes import AFFINE_8, RECIPES, Recipe, Rule, choose_recipe
from gemma4_mlx.errors import CheckpointError, ConfigError, Gemma4Error, HubError

IDS = [[2, 50, 61, 200, 300, 77, 410]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    for variant in ("e2b", "moe"):
        build_checkpoint(folder / variant, variant, seed=3)
    return {variant: folder / variant for variant in ("e2b", "moe")}


@pytest.fixture
def source(sources: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the small E2B that a test may change."""
    return Path(shutil.copytree(sources["e2b"], tmp_path / "source"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def parameters(folder: Path) -> dict[str, mx.array]:
    return dict(tree_flatten(load_model(folder, read_config(folder)).parameters()))


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(folder: Path, name: str, change: Any) -> None:
    """Replace a tensor of a checkpoint in one file."""
    path = folder / "model.safetensors"
    tensors = dict(mx.load(str(path)))
    tensors[name] = change(tensors[name])
    mx.eval(tensors)
    mx.save_safetensors(str(path), tensors, metadata={"format": "pt"})


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "qat"])
@pytest.mark.parametrize("variant", ["e2b", "moe"])
def test_the_output_holds_what_quantizing_the_whole_model_gives(
    sources: dict[str, Path], variant: str, recipe: str, tmp_path: Path
) -> None:
    g4.convert(sources[variant], tmp_path / "out", recipe=recipe)
    model = load_model(sources[variant], read_config(sources[variant]), dtype="bfloat16")
    rules = choose_recipe(recipe, None)
    packings = {
        name: packing
        for name, module in model.named_modules()
        if hasattr(module, "to_quantized")
        and (packing := rules.packing_of(name, module.weight.shape[-1], variant == "moe"))
    }
    quantize_modules(model, packings)
    expected = dict(tree_flatten(model.parameters()))
    found = parameters(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert mx.array_equal(found[name], array), name


@pytest.mark.parametrize("variant", ["e2b", "moe"])
def test_blocks_of_a_few_rows_give_the_same_file(
    sources: dict[str, Path], variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g4.convert(sources[variant], tmp_path / "whole", bits=4)
    monkeypatch.setattr(shard_file, "_BLOCK_BYTES", 3000)
    g4.convert(sources[variant], tmp_path / "blocks", bits=4)
    assert files(tmp_path / "blocks") == files(tmp_path / "whole")


def test_many_small_files_hold_the_same_tensors_as_one(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g4.convert(sources["e2b"], tmp_path / "one", bits=4)
    monkeypatch.setattr(conversion_plan, "SHARD_BYTES", 100_000)
    g4.convert(sources["e2b"], tmp_path / "many", bits=4)
    assert len(list((tmp_path / "many").glob("model-*-of-*.safetensors"))) > 5
    one, many = parameters(tmp_path / "one"), parameters(tmp_path / "many")
    assert all(mx.array_equal(many[name], array) for name, array in one.items())
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    headers = read_headers(tmp_path / "many")
    assert index["weight_map"] == {name: header.file.name for name, header in sorted(headers.items())}
    assert index["metadata"]["total_size"] == sum(header.nbytes for header in headers.values())


def test_files_say_they_are_mlx_and_every_tensor_starts_at_a_multiple_of_its_element(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    file = g4.convert(sources["e2b"], tmp_path / "out", bits=4) / "model.safetensors"
    _, metadata = mx.load(str(file), return_metadata=True)
    assert metadata == {"format": "mlx"}
    for name, header in read_header(file).items():
        assert header.offset % {"U32": 4, "BF16": 2}[header.dtype] == 0, name


def test_names_are_mlx_vlms(sources: dict[str, Path], tmp_path: Path) -> None:
    headers = read_headers(g4.convert(sources["moe"], tmp_path / "out", bits=4))
    layer = "language_model.model.layers.0"
    for name in ("mlp.up_proj.scales", "experts.switch_glu.gate_proj.biases", "router.proj.weight", "layer_scalar"):
        assert f"{layer}.{name}" in headers
    assert "vision_tower.patch_embedder.input_proj.weight" in headers
    assert not [name for name in headers if name.startswith("model.")]


def test_the_config_tells_the_peers_how_each_module_is_packed(sources: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((g4.convert(sources["moe"], tmp_path / "out", bits=4) / "config.json").read_text())
    eight = {"group_size": 64, "bits": 8, "mode": "affine"}
    quantization = config["quantization"]
    assert {key: quantization[key] for key in ("group_size", "bits", "mode")} == {**eight, "bits": 4}
    assert quantization["language_model.model.layers.0.router.proj"] == eight
    assert quantization["language_model.model.layers.4.mlp.down_proj"] == eight
    assert "language_model.model.layers.0.self_attn.q_proj" not in quantization
    assert config["quantization_config"] == quantization
    assert (config["dtype"], config["vocab_size"]) == ("bfloat16", 512)


def test_what_is_not_quantized_says_nothing_of_quantization(sources: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((g4.convert(sources["moe"], tmp_path / "out", bits=16) / "config.json").read_text())
    assert "quantization" not in config
    assert "quantization_config" not in config


def test_tokenizer_template_and_settings_go_along_and_a_card_is_written(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text("the old card")
    (source / "training.py").write_text("print('not wanted')")
    (source / "LICENSE").write_text("a licence")
    out = files(g4.convert(source, tmp_path / "out", recipe="speech"))
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "processor_config.json", "LICENSE"):
        assert out[name] == (source / name).read_bytes()
    assert "training.py" not in out
    card = out["README.md"].decode()
    assert card.startswith("---\nlibrary_name: mlx\n")
    assert RECIPES["speech"].summary in card
    assert "the old card" not in card


@pytest.mark.parametrize("name", ["LICENSE.txt", "tokenizer.json", "NOTICE", "more.json", "a.model", "b.jinja"])
def test_a_link_to_a_file_elsewhere_is_not_copied(name: str, source: Path, tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    key.write_text("a private key")
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to(key)
    with pytest.raises(CheckpointError, match=f"{name} is a link to .*id_ed25519, outside of its folder: put a copy"):
        g4.convert(source, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_links_within_the_folder_and_into_the_hub_s_blobs_are_copied(source: Path, tmp_path: Path) -> None:
    (source / "LICENSE").write_text("a licence")
    (source / "LICENSE.txt").symlink_to("LICENSE")
    assert files(g4.convert(source, tmp_path / "out"))["LICENSE.txt"] == b"a licence"
    repository = tmp_path / "models--me--mine"
    snapshot, blobs = repository / "snapshots" / "main", repository / "blobs"
    snapshot.parent.mkdir(parents=True)
    source.rename(snapshot)
    blobs.mkdir()
    (snapshot / "LICENSE").rename(blobs / "abc")
    (snapshot / "LICENSE").symlink_to("../../blobs/abc")
    assert files(g4.convert(snapshot, tmp_path / "again"))["LICENSE"] == b"a licence"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")  # a folder that only looks like the Hub's
    with pytest.raises(CheckpointError, match="outside of its folder"):
        g4.convert(snapshot, tmp_path / "third")


def test_an_index_that_names_files_outside_is_refused(source: Path, tmp_path: Path) -> None:
    shutil.copyfile(source / "model.safetensors", tmp_path / "x.safetensors")
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    for name in ("../x.safetensors", str(tmp_path / "x.safetensors")):
        (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CheckpointError, match="names files outside of its folder"):
            g4.convert(source, tmp_path / "out")


def test_the_result_loads_whole(sources: dict[str, Path], tmp_path: Path) -> None:
    model, processor = g4.load(g4.convert(sources["e2b"], tmp_path / "out"))
    assert model(processor("Hello")).shape[-1] == 512
    assert model.config.vision is not None
    assert model.config.audio is not None


def test_progress_is_told_in_bytes_to_the_end(sources: dict[str, Path], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    g4.convert(sources["e2b"], tmp_path / "out", on_progress=lambda done, total: told.append((done, total)))
    done = [pair[0] for pair in told]
    assert done == sorted(done)
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] == plan(sources["e2b"]).nbytes


def test_a_plan_is_kept_to_the_byte(sources: dict[str, Path], tmp_path: Path) -> None:
    planned = plan(sources["moe"], recipe="mxfp4")
    headers = read_headers(g4.convert(sources["moe"], tmp_path / "out", recipe="mxfp4"))
    assert planned.nbytes == sum(header.nbytes for header in headers.values())


def test_a_recipe_of_ones_own_is_taken(sources: dict[str, Path], tmp_path: Path) -> None:
    mine = Recipe("mine", "attention alone in 8 bits", (Rule("language_model.*.self_attn.*_proj", AFFINE_8),))
    headers = read_headers(g4.convert(sources["e2b"], tmp_path / "out", recipe=mine))
    scales = [name for name in headers if name.endswith(".scales")]
    assert scales
    assert all(".self_attn." in name and name.startswith("language_model") for name in scales)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_another_precision_is_that_of_all_that_is_not_packed(
    sources: dict[str, Path], dtype: str, tmp_path: Path
) -> None:
    out = g4.convert(sources["e2b"], tmp_path / "out", dtype=dtype)
    stored = {"float32": "F32", "float16": "F16"}[dtype]
    assert {header.dtype for header in read_headers(out).values()} == {"U32", stored}
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype


def test_unquantized_in_float32_nothing_changes(sources: dict[str, Path], tmp_path: Path) -> None:
    for variant, source in sources.items():
        out = g4.convert(source, tmp_path / variant, bits=16, dtype="float32")
        ours, theirs = (load_model(folder, read_config(folder))(mx.array(IDS)) for folder in (out, source))
        assert mx.array_equal(ours, theirs)


def test_the_spelling_newer_transformers_write_becomes_readable_by_all(tmp_path: Path) -> None:
    build_checkpoint(tmp_path / "new", "dense", spelling="per_layer")
    out = g4.convert(tmp_path / "new", tmp_path / "out", bits=16, dtype="float32")
    text = json.loads((out / "config.json").read_text())["text_config"]
    assert (text["global_head_dim"], text["num_global_key_value_heads"]) == (64, 2)
    logits = [load_model(folder, read_config(folder))(mx.array(IDS)) for folder in (out, tmp_path / "new")]
    assert mx.array_equal(*logits)


def test_a_decoder_alone_becomes_a_whole_model_without_towers(sources: dict[str, Path], tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(sources["e2b"], alone)
    tensors = mx.load(str(alone / "model.safetensors"))
    prefix = "model.language_model."
    decoder = {f"model.{n.removeprefix(prefix)}": array for n, array in tensors.items() if n.startswith(prefix)}
    mx.eval(decoder)
    mx.save_safetensors(str(alone / "model.safetensors"), decoder)
    text = json.loads((alone / "config.json").read_text())["text_config"]
    (alone / "config.json").write_text(json.dumps(text))
    out = g4.convert(alone, tmp_path / "out", bits=16, dtype="float32")
    whole = load_model(sources["e2b"], read_config(sources["e2b"]))(mx.array(IDS))
    assert mx.array_equal(load_model(out, read_config(out))(mx.array(IDS)), whole)
    assert json.loads((out / "config.json").read_text())["model_type"] == "gemma4"


def test_a_peers_unquantized_layout_is_a_source_too(sources: dict[str, Path], tmp_path: Path) -> None:
    again = g4.convert(g4.convert(sources["moe"], tmp_path / "bf16", bits=16), tmp_path / "again", bits=4)
    direct = g4.convert(sources["moe"], tmp_path / "direct", bits=4)
    assert files(again)["model.safetensors"] == files(direct)["model.safetensors"]


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_a_target_that_exists_is_left_alone(sources: dict[str, Path], kind: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    {
        "folder": target.mkdir,
        "file": target.touch,
        "dangling link": lambda: target.symlink_to(tmp_path / "nowhere"),
    }[kind]()
    with pytest.raises(CheckpointError, match="exists already: remove it"):
        g4.convert(sources["e2b"], target)
    assert sorted(tmp_path.iterdir()) == [target]


def test_a_target_that_cannot_be_made_is_told(sources: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write .*name another folder"):
        g4.convert(sources["e2b"], tmp_path / "file" / "out")


def test_an_interrupted_download_folder_of_somebody_else_is_not_touched(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    mine = tmp_path / "out.partial" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    with pytest.raises(CheckpointError, match="not an interrupted conversion: remove it"):
        g4.convert(sources["e2b"], tmp_path / "out")
    assert mine.read_text() == "years of work"


def test_what_is_quantized_is_not_converted_again(sources: dict[str, Path], tmp_path: Path) -> None:
    out = g4.convert(sources["e2b"], tmp_path / "out")
    with pytest.raises(CheckpointError, match="is quantized already: name the checkpoint it was made from"):
        g4.convert(out, tmp_path / "again", bits=8)
    assert not list(tmp_path.glob("again*"))


def test_a_config_that_speaks_of_another_quantization_is_believed(source: Path, tmp_path: Path) -> None:
    change_config(source, quantization_config={"quant_method": "fp8"})
    with pytest.raises(g4.ConfigError, match="is quantized by FP8, not for MLX"):
        g4.convert(source, tmp_path / "out")


def test_plain_weights_of_which_the_config_says_how_they_were_trained_are_converted(
    source: Path, tmp_path: Path
) -> None:
    """As the makers' "-qat-q4_0-unquantized" checkpoints: a quantization_config without quant_method."""
    change_config(source, quantization_config={"bits": 4, "trained": "q4_0"})
    out = g4.convert(source, tmp_path / "out", bits=16)
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    assert g4.load(out)


def test_weights_of_a_type_that_cannot_be_read_are_told(source: Path, tmp_path: Path) -> None:
    rewrite(source, "model.language_model.norm.weight", lambda array: array.astype(mx.int8))
    with pytest.raises(CheckpointError, match=r"weights of a type that is not read \(model.*norm.weight is I8\): take"):
        g4.convert(source, tmp_path / "out")


def test_a_per_layer_table_of_another_shape_than_the_config_says_is_told(source: Path, tmp_path: Path) -> None:
    name = "model.language_model.embed_tokens_per_layer.weight"
    rewrite(source, name, lambda table: table[:500])
    with pytest.raises(CheckpointError, match=rf"{name} is \[500, 224\], not \[512, 224\]"):
        g4.convert(source, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_module_that_does_not_divide_is_named_before_anything_is_written(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"layers\.0\.per_layer_projection has 32 columns, which groups of 64"):
        g4.convert(sources["e2b"], tmp_path / "out", recipe=Recipe("rough", "", (Rule("language_model.*", AFFINE_8),)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"recipe": "2bit"}, "recipe must be one of"),
        ({"bits": 5}, "bits must be 4, 8, 16, not 5"),
        ({"bits": 4, "recipe": "4bit"}, "not both"),
        ({"dtype": "int8"}, "dtype must be one of bfloat16"),
    ],
)
def test_a_wrong_argument_is_a_value_error(
    sources: dict[str, Path], arguments: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        g4.convert(sources["e2b"], tmp_path / "out", **arguments)
    with pytest.raises(ValueError, match=told):
        plan(sources["e2b"], **arguments)


def test_a_source_that_is_not_there_or_not_a_gemma_4_is_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(HubError):
        g4.convert(tmp_path / "nowhere", tmp_path / "out")
    change_config(source, model_type="llama")
    with pytest.raises(ConfigError):
        g4.convert(source, tmp_path / "out")
    (source / "model.safetensors").write_bytes(b"")
    change_config(source, model_type="gemma4")
    with pytest.raises(Gemma4Error):
        g4.convert(source, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_source_that_shrinks_meanwhile_is_an_error(source: Path, tmp_path: Path) -> None:
    file = source / "model.safetensors"

    def shrink(done: int, total: int) -> None:
        with file.open("r+b") as stream:
            stream.truncate(file.stat().st_size // 2)

    with pytest.raises(CheckpointError, match="became shorter while being read"):
        g4.convert(source, tmp_path / "out", on_progress=shrink)
    assert not (tmp_path / "out").exists()


def test_memory_stays_at_a_few_blocks(tmp_path: Path) -> None:
    """A table of 64 MB, read 4 MB at a time, never has 64 MB of arrays alive."""
    folder = tmp_path / "source"
    build_checkpoint(folder, "e4b")
    name = "model.language_model.embed_tokens_per_layer.weight"
    rows = (64 << 20) // (256 * 4)
    rewrite(folder, name, lambda table: mx.zeros((rows, table.shape[1])))
    raw = json.loads((folder / "config.json").read_text())
    raw["text_config"]["vocab_size_per_layer_input"] = rows
    (folder / "config.json").write_text(json.dumps(raw))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_file, "_BLOCK_BYTES", 4 << 20)
        out = g4.convert(folder, tmp_path / "out")
    assert mx.get_peak_memory() - before < 24 << 20
    assert np.prod(read_headers(out)["language_model.model.embed_tokens_per_layer.weight"].shape) == rows * 256 // 4
