"""Models in Ollama's store, read where they lie.

The layout is Ollama's (`manifest/layer.go`, `types/model/name.go`, docs of its tensor models): a file
`manifests/HOST/NAMESPACE/MODEL/TAG` of JSON lists layers, each a file `blobs/sha256-HEX`. A tag for MLX has one
safetensors file for a tensor (`application/vnd.ollama.image.tensor`), in which the scales of `NAME` are called
`NAME.scale` and the biases `NAME.bias`, and files such as config.json (`application/vnd.ollama.image.json`) under
their names. What reads a checkpoint wants a folder with such names, so it is given one of links to the blobs, which is
outside of the store and goes when the program ends.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import MODEL_TYPES
from ..errors import CheckpointError, HubError
from ..json_files import read_json_object
from ..shown import shown
from .foreign import advice
from .weight_files import names_in

_MEDIA = "application/vnd.ollama.image."
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.(json|jinja)")
_BITS = {"int4": 4, "int8": 8, "nvfp4": 4, "mxfp4": 4, "mxfp8": 8}
_DRAFT = "draft."  # of a drafter's tensors, which belong to another model
_LONGEST_HEADER = 1 << 20
_LOOKED_AT = 64  # tensors whose headers tell how many bits a model has


@dataclass(frozen=True)
class KeptTag:
    """A Gemma 4 for MLX in the store: its name without "ollama:", bytes, and bits of most of its decoder."""

    name: str
    nbytes: int
    bits: int | None


@dataclass(frozen=True)
class _Layer:
    kind: str
    name: str
    blob: Path
    size: int


def store_folder() -> Path:
    """Where Ollama keeps its models, or would."""
    return Path(os.path.expanduser(os.environ.get("OLLAMA_MODELS") or "~/.ollama/models"))


def linked_folder(name: str) -> Path:
    """A folder of links to the files of a tag, under the names a checkpoint has; it goes when the program ends.

    Args:
        name: as Ollama has it, `[HOST/][NAMESPACE/]MODEL[:TAG]`.

    Raises:
        HubError: the tag is not there or not whole, or is no model for MLX.
        CheckpointError: the store cannot be read, or has a layout that is not known.
    """
    layers = _layers(_manifest(name), name)
    if any(layer.kind == "model" for layer in layers) and not any(layer.kind == "tensor" for layer in layers):
        raise HubError(
            f"ollama:{name} holds GGUF, the format of llama.cpp, which MLX cannot keep packed: take an MLX tag of "
            f"Ollama's such as gemma4:e4b-mlx, or {advice({}, name).removeprefix('take ')}"
        )
    for layer in layers:
        _check_blob(layer, name)
    folder = Path(tempfile.mkdtemp(prefix="gemma4-mlx-ollama-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # which follows no links
    tensors = [layer for layer in layers if layer.kind == "tensor" and not layer.name.startswith(_DRAFT)]
    for number, layer in enumerate(tensors):
        (folder / f"tensor{number:05d}.safetensors").symlink_to(layer.blob)
    for layer in layers:
        if layer.kind == "json" and _FILE.fullmatch(layer.name) and not layer.name.endswith(".index.json"):
            (folder / layer.name).symlink_to(layer.blob)
    return folder


def kept_tags() -> list[KeptTag]:
    """Every Gemma 4 for MLX in the store of which all blobs are there; what cannot be read is left out."""
    found = []
    root = store_folder() / "manifests"
    for manifest in _files(root, 4):
        parts = manifest.relative_to(root).parts
        try:
            layers = _layers(manifest, "/".join(parts))
            tensors = sorted((layer for layer in layers if layer.kind == "tensor"), key=lambda layer: -layer.size)
            config = next((layer for layer in layers if layer.name == "config.json"), None)
            if not tensors or config is None or read_json_object(config.blob).get("model_type") not in MODEL_TYPES:
                continue
            for layer in layers:
                _check_blob(layer, "")
        except (CheckpointError, HubError):
            continue
        found.append(KeptTag(_short(parts), sum(layer.size for layer in layers), _usual_bits(tensors)))
    return found


def _short(parts: tuple[str, ...]) -> str:
    """A tag's name without the parts that go without saying."""
    host, namespace, model, tag = parts
    place = [part for part, usual in ((host, "registry.ollama.ai"), (namespace, "library")) if part != usual]
    if place and len(place) == 1 and host != "registry.ollama.ai":
        place = [host, namespace]
    return "/".join([*place, f"{model}:{tag}"])


def _manifest(name: str) -> Path:
    """The manifest's file of a name."""
    store = store_folder()
    for folder in (store, store / "manifests"):
        if folder.is_symlink() and not folder.exists():
            raise HubError(f"{folder} is a link to {os.readlink(folder)}, which is not there: is its disk mounted?")
        if not folder.is_dir():
            raise HubError(f"Ollama keeps no models here: there is no folder {folder} (OLLAMA_MODELS names another)")
        names_in(folder)
    *place, last = name.split("/")
    model, _, tag = last.partition(":")
    parts = [*["registry.ollama.ai", "library"][: max(0, 2 - len(place))], *place, model, tag or "latest"]
    host, *others = parts
    if len(parts) != 4 or not all(map(_PART.fullmatch, (host.replace(":", "_"), *others))):
        raise HubError(
            f"{shown(name)} is not a name of Ollama's: write ollama:MODEL:TAG, such as ollama:gemma4:12b-mlx"
        )
    path = store / "manifests" / Path(*parts)
    if not path.is_file():
        has = ", ".join(f"ollama:{kept.name}" for kept in kept_tags()) or "none"
        raise HubError(f"Ollama has no {name} here (of Gemma 4 for MLX it has: {has}): `ollama pull {name}` fetches it")
    return path


def _layers(manifest: Path, name: str) -> list[_Layer]:
    """What a manifest lists, held to the layout that is known."""
    raw = read_json_object(manifest)
    if raw.get("schemaVersion") != 2 or raw.get("mediaType", _MANIFEST) != _MANIFEST:
        version = shown(raw.get("schemaVersion"))
        raise CheckpointError(f"{manifest} is of a layout that is not known (version {version}): update gemma4-mlx")
    entries = raw.get("layers")
    if not isinstance(entries, list):
        raise CheckpointError(f"{manifest} lists no layers: `ollama pull {name}` fetches them again")
    return [_layer(entry, manifest) for entry in entries]


def _layer(entry: Any, manifest: Path) -> _Layer:
    fields = entry if isinstance(entry, dict) else {}
    kind, digest, size = (fields.get(key) for key in ("mediaType", "digest", "size"))
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    name = fields.get("name", "")
    if match is None or not isinstance(kind, str) or not isinstance(size, int) or not isinstance(name, str):
        raise CheckpointError(f"{manifest} has a layer of a layout that is not known: update gemma4-mlx")
    blob = manifest.parents[4] / "blobs" / f"sha256-{match[1]}"
    return _Layer(kind.partition(";")[0].removeprefix(_MEDIA), name, blob, size)


def _check_blob(layer: _Layer, name: str) -> None:
    """Raise `HubError` if a blob is not there as the manifest says."""
    again = f"`ollama pull {name}` fetches it"
    if layer.blob.is_symlink():
        raise HubError(f"{layer.blob} is a link, which Ollama makes none of: {again} as a file")
    try:
        size = layer.blob.stat().st_size
    except FileNotFoundError:
        part = layer.blob.with_name(f"{layer.blob.name}-partial")
        what = "is not there yet, a part of it is" if part.exists() else "is missing"
        raise HubError(f"{layer.blob}, which ollama:{name} needs, {what}: {again}") from None
    except OSError as error:
        raise HubError(f"{layer.blob} cannot be read: {error.strerror}") from error
    if size != layer.size or not layer.blob.is_file():
        raise HubError(f"{layer.blob} has {size} bytes, and {layer.size} belong there: {again}")
    if not os.access(layer.blob, os.R_OK):
        raise HubError(f"{layer.blob} cannot be read: Permission denied")


def _usual_bits(tensors: list[_Layer]) -> int | None:
    """Bits of most of the decoder, by its largest tensors."""
    counted = Counter[int | None]()
    for layer in [layer for layer in tensors if ".layers." in layer.name and "tower" not in layer.name][:_LOOKED_AT]:
        counted[_bits(layer.blob)] += layer.size
    return counted.most_common(1)[0][0] if counted else None


def _bits(blob: Path) -> int | None:
    """Bits of a tensor's blob, by what its header says of its packing; not packed: of its type."""
    try:
        with blob.open("rb") as stream:
            length = min(int.from_bytes(stream.read(8), "little"), _LONGEST_HEADER)
            header = json.loads(stream.read(length))
        metadata = header.pop("__metadata__", None) or {}
        types = {entry["dtype"] for entry in header.values()}
        kind = next((value for key, value in metadata.items() if key.endswith("quant_type")), None)
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return None
    if kind is None:
        return 16 if types <= {"BF16", "F16"} else 32 if types == {"F32"} else None
    return _BITS.get(str(kind))


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """Files `depth` levels below a folder."""
    try:
        names = names_in(folder) if folder.is_dir() else []
    except CheckpointError:
        return
    for name in names:
        path = folder / name
        if depth > 1:
            yield from _files(path, depth - 1)
        elif path.is_file() and name[0] != ".":
            yield path
