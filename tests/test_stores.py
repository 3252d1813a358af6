"""Models that other programs keep: found, listed, used where they lie, and left as they were."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import gemma4_mlx as g4
from command_line import only_line
from gemma4_mlx.checkpoint.builtin import FOLDER
from gemma4_mlx.checkpoint.hub import resolve
from gemma4_mlx.checkpoint.stores import kept_models
from users import User

KAGGLE = "google/gemma-4/transformers/gemma-4-e2b-it"
IDS = mx.array([[2, 50, 61, 200]])


@cache
def packed() -> Path:
    """The built-in model in 4 and 8 bits."""
    return g4.convert(FOLDER, Path(tempfile.mkdtemp()) / "packed", bits=4)


def files() -> list[Path]:
    return [path for path in packed().iterdir() if path.name != "README.md"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("OLLAMA_MODELS", "KAGGLEHUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def lm_studio(home: Path, name: str = "mlx-community/tiny") -> Path:
    """As LM Studio lays a model out."""
    folder = home / ".lmstudio" / "models" / name
    folder.mkdir(parents=True)
    for file in files():
        shutil.copy(file, folder)
    return folder


def kaggle(home: Path, version: int = 1) -> Path:
    """As kagglehub lays a model out."""
    folder = home / ".cache" / "kagglehub" / "models" / KAGGLE / str(version)
    folder.mkdir(parents=True)
    for file in files():
        shutil.copy(file, folder)
    (folder.parent / f"{version}.complete").touch()
    return folder


def ollama(home: Path, tag: str = "tiny-mlx") -> Path:
    """As Ollama lays a tag for MLX out: a blob for a tensor with its scales and biases. Returns the manifest."""
    store = home / ".ollama" / "models"
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    layers = []

    def add(content: bytes, kind: str, name: str) -> None:
        digest = hashlib.sha256(content).hexdigest()
        (store / "blobs" / f"sha256-{digest}").write_bytes(content)
        media = f"application/vnd.ollama.image.{kind}"
        layers.append({"mediaType": media, "digest": f"sha256:{digest}", "size": len(content), "name": name})

    tensors = mx.load(str(packed() / "model.safetensors"))
    scratch = home / "blob.safetensors"
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf in ("scales", "biases"):
            continue
        blob, metadata = {name: tensor}, {}
        if f"{module}.scales" in tensors:
            blob |= {f"{name}.scale": tensors[f"{module}.scales"], f"{name}.bias": tensors[f"{module}.biases"]}
            bits = tensor.shape[-1] * 32 // (tensors[f"{module}.scales"].shape[-1] * 64)
            metadata = {"quant_type": f"int{bits}", "group_size": "64"}
        mx.save_safetensors(str(scratch), blob, metadata=metadata)
        add(scratch.read_bytes(), "tensor", name)
    mx.save_safetensors(str(scratch), {"draft.x.weight": mx.zeros((4, 4))})
    add(scratch.read_bytes(), "tensor", "draft.x.weight")
    scratch.unlink()
    for file in files():
        if file.suffix in (".json", ".jinja") and not file.name.endswith(".index.json"):
            add(file.read_bytes(), "json", file.name)
    add(b"Apache", "license", "")
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / "gemma4" / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    manifest.write_text(json.dumps({"schemaVersion": 2, "mediaType": docker, "layers": layers}))
    return manifest


def snapshot(home: Path) -> dict[str, str]:
    """Every file below a folder and a digest of it."""
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }


def told(name: str) -> str:
    """The one line a user of the library is told."""
    with pytest.raises(g4.Gemma4Error) as caught:
        g4.load(name)
    line = str(caught.value)
    assert "\n" not in line
    assert line.isprintable()
    return line


NAMES = {"lmstudio:mlx-community/tiny": lm_studio, f"kaggle:{KAGGLE}": kaggle, "ollama:gemma4:tiny-mlx": ollama}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_used_where_it_lies_and_its_store_is_left_byte_for_byte(name: str, home: Path) -> None:
    NAMES[name](home)
    before = snapshot(home)
    model, processor = g4.load(name)
    expected, _ = g4.load(packed())
    assert np.array_equal(np.array(model(IDS)), np.array(expected(IDS)))
    assert g4.generate(model, processor, "What is 2 plus 3?", max_tokens=8, temperature=0).text
    (kept,) = kept_models()
    assert kept.name == name
    assert kept.bits in (4, 8)
    assert kept.nbytes > 1_000_000
    assert snapshot(home) == before


def test_all_of_them_are_listed_with_size_bits_and_source(tmp_path: Path) -> None:
    user = User(tmp_path)
    for lay_out in (lm_studio, kaggle, ollama):
        lay_out(user.home)
    finished = user.run("models")
    assert (finished.returncode, finished.stderr) == (0, "")
    for name, program in zip(NAMES, ("LM Studio", "Kaggle", "Ollama"), strict=True):
        (line,) = [line for line in finished.stdout.splitlines() if name in line]
        assert program in line
        assert "MB" in line
        assert "bit" in line
    listed = json.loads(user.run("models", "--json").stdout)["models"]
    assert {
        model["name"]: model["source"] for model in listed if model["source"] not in (None, "Hugging Face")
    } == dict(zip(NAMES, ("LM Studio", "Kaggle", "Ollama"), strict=True))
    answer = user.run("ask", "-m", "ollama:gemma4:tiny-mlx", "--max-tokens", "4", "Hello")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("name", NAMES)
def test_another_program_s_model_is_not_converted_again_nor_fetched_nor_removed(name: str, tmp_path: Path) -> None:
    user = User(tmp_path)
    NAMES[name](user.home)
    before = snapshot(user.home)
    pulled = user.run("models", "pull", name)
    assert (pulled.returncode, pulled.stdout) == (0, f"{name}\n")
    assert user.run("models", "rm", name, "--yes").returncode == 1
    converted = user.run("convert", name, "out")
    assert converted.returncode == 1
    assert "is quantized already" in only_line(converted.stderr)
    assert snapshot(user.home) == before


def test_names_of_ollama_may_be_written_in_full_and_a_tag_left_out(home: Path) -> None:
    ollama(home, "latest")
    for name in ("gemma4", "gemma4:latest", "library/gemma4", "registry.ollama.ai/library/gemma4:latest"):
        assert resolve(f"ollama:{name}")


def blobs(manifest: Path) -> list[Path]:
    layers = json.loads(manifest.read_text())["layers"]
    return [manifest.parents[4] / "blobs" / layer["digest"].replace(":", "-") for layer in layers]


def test_what_is_missing_of_a_tag_is_told_with_what_fetches_it(home: Path) -> None:
    blob = blobs(ollama(home))[3]
    blob.rename(blob.with_name(f"{blob.name}-partial"))
    line = told("ollama:gemma4:tiny-mlx")
    assert "is not there yet, a part of it is: `ollama pull gemma4:tiny-mlx` fetches it" in line
    blob.with_name(f"{blob.name}-partial").unlink()
    assert f"{blob}, which ollama:gemma4:tiny-mlx needs, is missing" in told("ollama:gemma4:tiny-mlx")
    blob.write_bytes(b"short")
    assert "has 5 bytes, and " in told("ollama:gemma4:tiny-mlx")
    blob.unlink()
    blob.symlink_to("/etc/hostname")
    assert f"{blob} is a link" in told("ollama:gemma4:tiny-mlx")
    assert kept_models() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schemaVersion": 3}, "of a layout that is not known (version 3): update gemma4-mlx"),
        ({"mediaType": "application/x"}, "of a layout that is not known"),
        ({"layers": None}, "lists no layers"),
        ({"layers": ["x"]}, "has a layer of a layout that is not known"),
        ({"layers": [{"mediaType": "a", "digest": "sha256:../../x", "size": 1}]}, "has a layer of a layout"),
        ({"layers": []}, "config.json"),
    ],
)
def test_a_manifest_of_another_layout_is_refused_by_name(change, words, home):
    manifest = ollama(home)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    assert words in told("ollama:gemma4:tiny-mlx")


def test_a_tag_of_gguf_says_what_to_take(home: Path) -> None:
    manifest = ollama(home, "e4b")
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{'a' * 64}", "size": 5}]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    line = told("ollama:gemma4:e4b")
    assert "holds GGUF" in line
    assert "gemma4:e4b-mlx" in line


@pytest.mark.parametrize("name", ["gemma4:12b", "../x", "a/b/c/d/e", "", "gemma4:../x", "a\nb"])
def test_a_name_that_is_not_there_or_none_of_ollama_is_told(name: str, home: Path) -> None:
    ollama(home)
    assert told(f"ollama:{name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_store_that_is_not_there_is_told(name: str, home: Path) -> None:
    assert "keeps no models here: there is no folder" in told(name)


@pytest.mark.parametrize(
    ("name", "store"),
    [
        ("lmstudio:mlx-community/tiny", ".lmstudio/models"),
        (f"kaggle:{KAGGLE}", ".cache/kagglehub/models"),
        ("ollama:gemma4:tiny-mlx", ".ollama/models"),
    ],
)
def test_a_store_on_another_disk_is_followed_and_told_when_that_is_not_mounted(name, store, home):
    NAMES[name](home)
    disk = home / "disk"
    (home / store).rename(disk)
    (home / store).symlink_to(disk)
    assert resolve(name)
    disk.rename(home / "elsewhere")
    assert "is its disk mounted?" in told(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
@pytest.mark.parametrize("store", [".lmstudio/models", ".ollama/models"])
def test_a_store_that_cannot_be_read_is_told(store: str, home: Path) -> None:
    lm_studio(home)
    ollama(home)
    (home / store).chmod(0)
    try:
        assert "cannot be read" in told(
            "ollama:gemma4:tiny-mlx" if "ollama" in store else "lmstudio:mlx-community/tiny"
        )
    finally:
        (home / store).chmod(0o755)


def test_two_models_that_match_one_name_are_both_named(home: Path) -> None:
    lm_studio(home, "mlx-community/tiny")
    lm_studio(home, "someone/tiny")
    assert "name one of them: lmstudio:mlx-community/tiny, lmstudio:someone/tiny" in told("lmstudio:tiny")


def test_the_newest_whole_version_of_kaggle_is_used(home: Path) -> None:
    kaggle(home, 2)
    newest = kaggle(home, 10)
    assert resolve(f"kaggle:{KAGGLE}") == newest
    (newest.parent / "10.complete").unlink()
    assert resolve(f"kaggle:{KAGGLE}").name == "2"
    assert "is not whole" in told(f"kaggle:{KAGGLE}/10")


def test_another_program_s_model_has_no_revision(home: Path) -> None:
    with pytest.raises(ValueError, match="has no revision"):
        g4.load("ollama:gemma4", revision="main")
