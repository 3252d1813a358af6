"""What a folder is: one line says it, and what to take instead; what lies beside a checkpoint does no harm."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gemma4_mlx as g4
from checkpoints import VARIANTS
from command_line import only_line, run
from gemma4_mlx.checkpoint import foreign
from gemma4_mlx.checkpoint.builtin import FOLDER
from gemma4_mlx.checkpoint.folder_kind import checkpoint_folder
from gemma4_mlx.checkpoint.hub import SHORT_NAMES, resolve
from gemma4_mlx.checkpoint.weight_files import weight_names

CONFIGS = Path(__file__).parent / "configs"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 4975000000\n"
EMPTY = struct.pack("<Q", 2) + b"{}"  # a safetensors file of nothing
INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
A, B = "a" * 40, "b" * 40


def folder(tmp_path: Path, files: dict[str, bytes | str], name: str = "it") -> Path:
    for file, content in files.items():
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    (tmp_path / name).mkdir(exist_ok=True)
    return tmp_path / name


def whole(tmp_path: Path, name: str = "it") -> Path:
    """The built-in model, as a folder somebody has."""
    ignored = shutil.ignore_patterns("SHA256SUMS", "README.md")
    return Path(shutil.copytree(FOLDER, tmp_path / name, ignore=ignored))


def changed(folder: Path, **keys: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | keys))
    return folder


def told(path: Path) -> str:
    """The one line a user of the library is told."""
    with pytest.raises(g4.Gemma4Error) as caught:
        g4.load(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.isprintable()
    assert str(path) in line
    return line.removeprefix(str(path))


def packed_by_groups(format: str = "pack-quantized", **weights: object) -> dict[str, object]:
    """compressed-tensors' part of a config.json."""
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "config_groups": {"0": {"weights": weights or None}},
    }


def config(model_type: str, **more: object) -> dict[str, bytes | str]:
    return {"config.json": json.dumps({"model_type": model_type, **more}), "model.safetensors": EMPTY}


MODELS = [
    ("gemma4_unified_vision", {}, "is a tower of a Gemma 4"),
    ("gemma4_assistant", {"backbone_hidden_size": 2560}, "is a drafter.*take e4b or google/gemma-4-E4B-it"),
    ("gemma4_unified_assistant", {"backbone_hidden_size": 3840}, "is a drafter.*take 12b or google/gemma-4-12B-it"),
    ("gemma4_vision", {}, "is a tower of a Gemma 4"),
    ("gemma3", {}, "is Gemma 3, which is not a Gemma 4"),
    ("gemma3_text", {}, "is Gemma 3, which is not a Gemma 4"),
    ("gemma3n", {}, "is Gemma 3n, which is not a Gemma 4"),
    ("gemma2", {}, "is an older Gemma"),
    ("t5gemma", {}, "another model of Gemma's family"),
    ("llama", {}, r"is not a Gemma 4 \(its model_type is 'llama'\): take e2b"),
    ("\x1b]0;evil\x07\n" * 50, {}, r"is not a Gemma 4 \(its model_type is '\\x1b"),
]


@pytest.mark.parametrize(("model_type", "more", "words"), MODELS)
def test_another_model_is_named_with_what_to_take(model_type, more, words, tmp_path):
    with pytest.raises(g4.ConfigError, match=words):
        resolve(folder(tmp_path, config(model_type, **more)))
    told(tmp_path / "it")


PACKINGS = [
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
    ({"load_in_8bit": True}, "bitsandbytes"),
    ({"quant_method": "gptq", "bits": 4}, "GPTQ"),
    ({"quant_method": "awq"}, "AWQ"),
    ({"quant_method": "fp8"}, "FP8"),
    (packed_by_groups(format="float-quantized"), "compressed-tensors in its form 'float-quantized'"),
    (packed_by_groups(num_bits=3), "compressed-tensors of 3 bits (symmetric 'int')"),
    (packed_by_groups(num_bits=4, symmetric=False), "compressed-tensors of 4 bits (asymmetric 'int')"),
    (packed_by_groups(), "compressed-tensors that does not say how weights are packed"),
    ({"quant_method": "gemma", "num_bits": 3}, "the makers' mobile QAT of 3 bits"),
    (
        {"quant_method": "gemma", "module_quant_configs": {"mlp": {"num_bits": "x"}}},
        "the makers' mobile QAT of 'x' bits",
    ),
    ({"quant_method": "brand-new"}, "'brand-new'"),
]


@pytest.mark.parametrize(("quantization", "whose"), PACKINGS)
def test_a_packing_for_other_machines_is_named_with_the_same_size_to_take(quantization, whose, tmp_path):
    raw = json.loads((CONFIGS / "31b.json").read_text()) | {"quantization_config": quantization}
    files = {"config.json": json.dumps(raw), "model.safetensors": EMPTY}
    line = told(folder(tmp_path, files))
    assert line == f" is quantized by {whose}, not for MLX: take 31b or google/gemma-4-31B-it"


@pytest.mark.parametrize("quantization", [{"modules_to_not_convert": ["lm_head"]}, {}, None])
def test_a_quantization_config_without_a_method_is_plain_weights(quantization, tmp_path):
    """As the makers' "-qat-q4_0-unquantized" checkpoints have it."""
    model, _ = g4.load(changed(whole(tmp_path), quantization_config=quantization))
    assert model.config.text == g4.load("demo")[0].config.text


def test_mlx_own_packing_is_no_foreign_one_whatever_stands_beside_it(tmp_path):
    target = g4.convert(whole(tmp_path), tmp_path / "packed", bits=8)
    assert g4.load(changed(target, quantization_config={"quant_method": "mlx", "bits": 8}))


@pytest.mark.parametrize(
    ("leaf", "whose"),
    [("qweight", "GPTQ or AWQ"), ("weight_zero_point", "compressed-tensors"), ("absmax", "bitsandbytes")],
)
def test_a_packing_that_config_json_keeps_silent_about_is_told_by_its_tensors(leaf, whose, tmp_path):
    path = whole(tmp_path)
    header = json.dumps({f"model.q_proj.{leaf}": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    assert f"is quantized by {whose}" in told(path)


E4B = (CONFIGS / "e4b.json").read_bytes()
PEFT = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "google/gemma-4-E2B-it"})
OTHERS: list[tuple[dict[str, bytes | str], str]] = [
    (
        {"adapter_config.json": PEFT, "adapter_model.safetensors": EMPTY},
        "is a LoRA adapter for 'google/gemma-4-E2B-it'",
    ),
    ({"adapter_config.json": PEFT, "adapter_model.bin": b"x", "config.json": E4B}, "is a LoRA adapter for 'google"),
    ({"adapter_config.json": '{"lora_parameters": {}}', "adapters.safetensors": EMPTY}, "mlx_lm.fuse"),
    ({"adapter_config.json": "damaged", "adapters.safetensors": EMPTY}, "is a LoRA adapter, not a model"),
    ({"gemma-4-31B-it-Q4_K_M.gguf": b"GGUF"}, "holds GGUF.*take 31b or google/gemma-4-31B-it"),
    ({"gemma-4-31B-it-Q4_K_M.gguf": b"GGUF"}, "K-quants, which no packing of MLX holds"),
    ({"gemma-4-e4b-it-IQ4_XS.gguf": b"GGUF"}, "K-quants.*take e4b or"),
    (
        {"gemma-4-E2B-it-qat-q4_0.gguf": b"GGUF"},
        "convert google/gemma-4-E2B-it-qat-q4_0-unquantized --recipe qat` keeps the same 4 bits, or take e2b",
    ),
    ({"q4.gguf": b"GGUF", "config.json": E4B, "tokenizer.json": "{}"}, "holds GGUF.*take e4b or google/gemma-4-E4B-it"),
    ({"config.json": E4B, "pytorch_model-00001-of-00002.bin": b"x"}, "holds PyTorch's pickled weights"),
    ({"consolidated.00.pth": b"x", "params.json": "{}"}, "holds PyTorch's pickled weights"),
    ({"gemma-4-E2B-it.litertlm": b"x"}, "holds LiteRT.*take e2b"),
    ({"model.task": b"x"}, "holds LiteRT"),
    ({"onnx/model.onnx": b"x", "config.json": E4B}, "holds ONNX"),
    ({"model_index.json": "{}", "unet/config.json": "{}", "unet/x.safetensors": EMPTY}, "holds a diffusers pipeline"),
    ({"model.weights.h5": b"x", "config.json": "{}"}, "holds Keras weights"),
    ({"gemma.zip": b"PK"}, "holds an archive: unpack it"),
    ({"a/config.json": "{}", "b/config.json": "{}"}, "is a folder of models: name one in it: a, b"),
    ({"org/gemma/config.json": "{}"}, "is a folder of models: name one in it: org/gemma"),
    (
        {"models--google--gemma-4-E2B-it/refs/main": A},
        "is a cache of the Hub: name a model in it: google/gemma-4-E2B-it",
    ),
    ({"hub/models--a--b/refs/main": A}, "is a cache of the Hub: name a model in it: a/b"),
    ({}, "is empty"),
    ({".DS_Store": b"x"}, "is empty"),
    ({"notes.txt": "x"}, "has no config.json, so it is not a model's folder"),
    ({"model.safetensors": EMPTY}, "has weights and no config.json"),
    ({"config.json": E4B, "tokenizer.json": "{}"}, r"has a config.json but no \*.safetensors file"),
    ({"config.json": E4B, "model.safetensors.incomplete": b"x"}, "holds a part of a download"),
    ({"model.safetensors.crdownload": b"x"}, "holds a part of a download"),
    ({"config.json": E4B, ".cache/huggingface/download/a.incomplete": b"x"}, "holds a part of a download"),
]


@pytest.mark.parametrize(("files", "words"), OTHERS)
def test_a_folder_of_something_else_is_told_in_one_line(files, words, tmp_path):
    with pytest.raises(g4.Gemma4Error, match=words):
        resolve(folder(tmp_path, files))
    told(tmp_path / "it")


FILES = [
    ("gemma-4-E4B-it.gguf", b"GGUF", "is GGUF.*take e4b or google/gemma-4-E4B-it"),
    ("sha256-1234", b"GGUF\3\0\0\0", "is GGUF"),
    ("model.zip", b"PK\3\4", "is an archive: unpack it"),
    ("download", b"\x1f\x8b\x08", "is an archive: unpack it"),
    ("pytorch_model.bin", b"PK\3\4", "is PyTorch's pickled weights"),
    ("gemma.task", b"PK\3\4", "is LiteRT"),
    ("model.onnx", b"\x08", "is ONNX"),
    ("model.safetensors", LFS, "is a git LFS pointer"),
    ("model.safetensors.incomplete", b"x", "is a part of a download"),
    ("model.safetensors", EMPTY, "is a file: name the folder"),
]


@pytest.mark.parametrize(("name", "content", "words"), FILES)
def test_a_file_in_place_of_a_folder_is_told_in_one_line(name, content, words, tmp_path):
    with pytest.raises(g4.HubError, match=words):
        resolve(folder(tmp_path, {name: content}) / name)


def test_a_file_of_a_checkpoint_leads_to_its_folder(tmp_path):
    path = whole(tmp_path)
    with pytest.raises(g4.HubError, match=f"files: {path}$"):
        resolve(path / "model.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_told_with_what_fetches_the_file(name, tmp_path):
    path = whole(tmp_path)
    (path / name).write_bytes(LFS)
    assert told(path) == f"/{name} is a git LFS pointer, not the file itself: run `git lfs pull` in {path}"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json"])
def test_a_link_to_nothing_is_told(name, tmp_path):
    path = whole(tmp_path)
    (path / name).unlink()
    (path / name).symlink_to("../gone")
    assert told(path) == f"/{name} is a link to a file that is not there (../gone): download it again"


def in_cache(
    tmp_path: Path, *commits: str, main: str | None = None, name: str = "models--google--gemma-4-E2B-it"
) -> Path:
    """A model's place in the Hub's cache, with these snapshots."""
    top = tmp_path / name
    (top / "refs").mkdir(parents=True)
    blobs = whole(top, "blobs")
    for commit in commits:
        snapshot = top / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path in FOLDER.iterdir():
            if (blobs / path.name).exists():
                (blobs / path.name).rename(blobs / f"of-{path.name}")
            if (blobs / f"of-{path.name}").exists():
                (snapshot / path.name).symlink_to(f"../../blobs/of-{path.name}")
    if main is not None:
        (top / "refs" / "main").write_text(main)
    return top


@pytest.mark.parametrize("below", ["", "snapshots", "blobs", "refs"])
@pytest.mark.parametrize(("commits", "main"), [((A,), A), ((A,), None), ((B, A), A)])
def test_the_top_of_a_model_in_the_hubs_cache_is_its_newest_snapshot(commits, main, below, tmp_path):
    top = in_cache(tmp_path, *commits, main=main)
    assert resolve(top / below) == top / "snapshots" / A


def test_the_top_of_a_model_in_the_hubs_cache_says_which_snapshots_there_are(tmp_path):
    assert f"name one of them: snapshots/{A}, snapshots/{B}" in told(in_cache(tmp_path, A, B))
    assert "`gemma4-mlx models pull x/y` fetches it" in told(in_cache(tmp_path, name="models--x--y"))


def test_a_snapshot_copied_without_its_blobs_says_how_to_copy_it(tmp_path):
    top = in_cache(tmp_path, A)
    shutil.copytree(top / "snapshots" / A, tmp_path / "copy", symlinks=True)
    assert "`cp -RL`" in told(tmp_path / "copy")
    shutil.rmtree(top / "blobs")
    assert "`gemma4-mlx models pull google/gemma-4-E2B-it` fetches it" in told(top)


BESIDE: list[dict[str, bytes | str]] = [
    {f"._{path.name}": b"\0\5\x16\7\0\2\0\0Mac OS X" for path in FOLDER.iterdir()},
    {"._model.safetensors.index.json": b"\0\5\x16\7"},
    {"model.safetensors.index.json": INDEX},
    {"model.safetensors.index.json": INDEX, "model-00001-of-00002.safetensors": EMPTY},
    {"model-00001-of-00002.safetensors": EMPTY},
    {"model.safetensors.index.json": "{"},
    {"adapter_model.safetensors": EMPTY, "adapter_config.json": "{}"},
    {"adapters.safetensors": EMPTY, "0000100_adapters.safetensors": EMPTY},
    {"consolidated.safetensors": EMPTY},
    {"model.gguf": b"GGUF", "pytorch_model.bin": b"x", "old.zip": b"x", "model.safetensors.incomplete": b"x"},
    {"onnx/model.onnx": b"x", "original/model.safetensors": EMPTY, ".cache/huggingface/download/x.incomplete": b"x"},
]


@pytest.mark.parametrize("files", BESIDE)
def test_what_lies_beside_a_whole_model_is_no_part_of_it(files, tmp_path):
    folder(tmp_path, files, "beside")
    path = whole(tmp_path)
    shutil.copytree(tmp_path / "beside", path, dirs_exist_ok=True)
    model, processor = g4.load(path)
    ours, theirs = (
        g4.generate(m, p, "Hello", max_tokens=3, temperature=0).text for m, p in ((model, processor), g4.load("demo"))
    )
    assert ours == theirs


def test_macs_own_files_are_not_copied_into_a_conversion(tmp_path):
    path = whole(tmp_path)
    (path / "._tokenizer.json").write_bytes(b"\0\5\x16\7")
    assert not [file.name for file in g4.convert(path, tmp_path / "out", bits=8).iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b.safetensors", "..", "", 5])
def test_an_index_never_leads_out_of_its_folder(name, tmp_path):
    path = whole(tmp_path)
    (path / "model.safetensors").rename(path / "weights.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "names files outside of its folder" in told(path)


@pytest.mark.parametrize("content", ["[" * 200_000, "[]", "\xff", "{", ""])
def test_a_damaged_config_is_one_line(content, tmp_path):
    path = whole(tmp_path)
    (path / "config.json").write_bytes(content.encode("latin-1"))
    assert "download it again" in told(path)


def test_a_pipe_in_place_of_a_config_keeps_nobody_waiting(tmp_path):
    path = whole(tmp_path)
    (path / "config.json").unlink()
    os.mkfifo(path / "config.json")
    assert "is not a file" in told(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    path = whole(tmp_path)
    path.chmod(0)
    try:
        assert "cannot be read: Permission denied" in told(path)
    finally:
        path.chmod(0o700)


def test_what_is_recommended_is_what_short_names_mean():
    assert {size.short_name for size in foreign._SIZES.values()} == set(SHORT_NAMES)
    for size in foreign._SIZES.values():
        assert size.hub_id.removeprefix("google/").lower() in SHORT_NAMES[size.short_name].lower()


@pytest.mark.parametrize("size", ["e2b", "e4b", "12b", "26b-a4b", "31b"])
def test_a_size_is_known_by_its_published_config(size):
    raw = json.loads((CONFIGS / f"{size}.json").read_text())
    assert foreign.other_model(raw, "") is None
    assert size in foreign.advice(raw, "").lower()


NAMES = st.lists(
    st.sampled_from(
        ["model.safetensors", "._model.safetensors", "a.safetensors", "config.json", "consolidated.safetensors"]
        + [f"model-0000{i}-of-00003.safetensors" for i in range(1, 4)]
    ),
    unique=True,
)
INDEXED = st.none() | st.sets(st.sampled_from([f"model-0000{i}-of-00003.safetensors" for i in range(1, 4)]), min_size=1)


@given(NAMES, INDEXED)
def test_a_model_is_either_one_whole_file_or_all_its_shards(names, indexed):
    wanted = weight_names(names, indexed)
    shards = {name for name in wanted if "-of-" in name}
    assert not any(name.startswith(("._", "consolidated")) for name in wanted)
    assert ("model.safetensors" in wanted) == ("model.safetensors" in names)
    if "model.safetensors" in names:
        assert not shards
    elif indexed is None:
        assert len(shards) in (0, 3)
    else:
        assert wanted == indexed


def test_the_command_says_it_in_one_line(tmp_path):
    """`load`, `convert` and the command line look at the same place."""
    path = folder(tmp_path, {"gemma-4-E2B-it-Q8_0.gguf": b"GGUF"})
    line = f"error: {path} holds GGUF, the format of llama.cpp, Ollama and LM Studio, not of MLX: take e2b or "
    for command in (["ask", "-m", path, "hi"], ["convert", path, tmp_path / "out"], ["bench", "-m", path]):
        finished = run(*command)
        assert (finished.returncode, finished.stdout) == (1, "")
        assert only_line(finished.stderr).startswith(line)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_a_checkpoint(variant):
    from parity import pair

    assert checkpoint_folder(pair(variant).folder) == pair(variant).folder
