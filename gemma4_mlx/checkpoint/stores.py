"""Models that other programs keep on this machine, used where they lie: `lmstudio:…`, `kaggle:…`, `ollama:…`.

Nothing is copied, and nothing is written into another program's folder. LM Studio and Kaggle keep plain checkpoint
folders; how Ollama keeps a model is told in `ollama`. The layouts:

- LM Studio: `~/.lmstudio/models/ORGANISATION/NAME` (lmstudio.ai/docs, "Import models").
- Kaggle: `models/OWNER/MODEL/FRAMEWORK/VARIATION/VERSION` in `KAGGLEHUB_CACHE`, else in `~/.cache/kagglehub`, and a
  file `VERSION.complete` beside a version that came wholly (kagglehub's `cache.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import MODEL_TYPES
from ..errors import CheckpointError, HubError
from ..json_files import read_json_object
from ..shown import shown
from . import ollama
from .folder_kind import checkpoint_folder
from .weight_files import is_weights, names_in

_LISTED = 6
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PROGRAMS = {"lmstudio": "LM Studio", "kaggle": "Kaggle", "ollama": "Ollama"}


@dataclass(frozen=True)
class KeptModel:
    """A Gemma 4 that another program keeps.

    Attributes:
        name: as `load` takes it.
        program: whose it is, for people.
        nbytes: on disk.
        bits: of most weights; None: not told.
    """

    name: str
    program: str
    nbytes: int
    bits: int | None


def store_of(name: str) -> str | None:
    """The store a name begins with; None: it is a name of another kind."""
    store, colon, _ = name.partition(":")
    return store.lower() if colon and store.lower() in _PROGRAMS else None


def kept_folder(name: str) -> Path:
    """The checkpoint folder of a name such as `lmstudio:mlx-community/gemma-4-e2b-it-8bit`.

    Raises:
        HubError: the program has no model of this name, or not all of it.
        CheckpointError: the store cannot be read, or holds something else.
        ConfigError: it is another model.
    """
    store, _, rest = name.partition(":")
    match store.lower():
        case "ollama":
            return checkpoint_folder(ollama.linked_folder(rest))
        case "kaggle":
            return checkpoint_folder(_kaggle(rest))
        case _:
            return checkpoint_folder(_lm_studio(rest))


def kept_models() -> list[KeptModel]:
    """Every Gemma 4 in these stores that is whole, in order of their names; a store that cannot be read holds none."""
    found = [_kept(f"lmstudio:{'/'.join(path.parts[-2:])}", path) for path in _below(_lm_studio_folder(), 2)]
    for path in _below(_kaggle_folder(), 4):
        version = _newest_version(path)
        if version is not None:
            found.append(_kept(f"kaggle:{'/'.join(path.parts[-4:])}", path / str(version)))
    for kept in ollama.kept_tags():
        found.append(KeptModel(f"ollama:{kept.name}", _PROGRAMS["ollama"], kept.nbytes, kept.bits))
    return sorted(filter(None, found), key=lambda model: model.name)


def _kept(name: str, folder: Path) -> KeptModel | None:
    """A folder as a model; None: it is no Gemma 4 with weights of MLX or transformers."""
    try:
        names = names_in(folder)
        raw = read_json_object(folder / "config.json") if "config.json" in names else {}
        if raw.get("model_type") not in MODEL_TYPES or not any(map(is_weights, names)):
            return None
        nbytes = sum((folder / file).stat().st_size for file in names if (folder / file).is_file())
    except (CheckpointError, OSError):
        return None
    return KeptModel(name, _PROGRAMS[name.partition(":")[0]], nbytes, bits_of(raw))


def bits_of(raw: dict[str, Any]) -> int | None:
    """Bits of most weights, as a config.json tells them."""
    for key in ("quantization", "quantization_config"):
        given = raw.get(key)
        bits = given.get("bits", given.get("num_bits")) if isinstance(given, dict) else None
        if isinstance(bits, int):
            return bits
    return {"bfloat16": 16, "float16": 16, "float32": 32}.get(str(raw.get("dtype") or raw.get("torch_dtype")))


def _lm_studio_folder() -> Path:
    return Path.home() / ".lmstudio" / "models"


def _lm_studio(rest: str) -> Path:
    store = _existing(_lm_studio_folder(), "LM Studio")
    parts = _parts(rest, "lmstudio:ORGANISATION/NAME", (1, 2))
    wanted = [path for path in _below(store, 2) if [part.lower() for part in path.parts[-len(parts) :]] == parts]
    return _only(wanted, f"lmstudio:{rest}", "LM Studio", [f"lmstudio:{'/'.join(p.parts[-2:])}" for p in wanted])


def _kaggle_folder() -> Path:
    cache = os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub"
    return Path(os.path.expanduser(cache)) / "models"


def _kaggle(rest: str) -> Path:
    store = _existing(_kaggle_folder(), "Kaggle")
    parts = _parts(rest, "kaggle:OWNER/MODEL/FRAMEWORK/VARIATION", (4, 5))
    wanted = [path for path in _below(store, 4) if [part.lower() for part in path.parts[-4:]] == parts[:4]]
    folder = _only(wanted, f"kaggle:{rest}", "Kaggle", [])
    version: int | str | None = parts[4] if len(parts) == 5 else _newest_version(folder)
    if version is None or not (folder / str(version)).is_dir() or not (folder / f"{version}.complete").is_file():
        raise HubError(
            f"kaggle:{rest} is not whole in {folder}: fetch it again with "
            f"`kagglehub.model_download({'/'.join(parts[:4])!r})`"
        )
    return folder / str(version)


def _newest_version(folder: Path) -> int | None:
    """The newest version in a variation's folder that came wholly."""
    names = [path.name for path in _children(folder)]
    return max((int(n) for n in names if n.isdecimal() and (folder / f"{n}.complete").is_file()), default=None)


def _existing(store: Path, program: str) -> Path:
    """A store's folder, seen to be there and readable."""
    if store.is_symlink() and not store.exists():
        raise HubError(f"{store} is a link to {os.readlink(store)}, which is not there: is its disk mounted?")
    if not store.is_dir():
        raise HubError(f"{program} keeps no models here: there is no folder {store}")
    names_in(store)
    return store


def _parts(rest: str, form: str, lengths: tuple[int, ...]) -> list[str]:
    """The parts of a name, in small letters."""
    parts = rest.split("/")
    if len(parts) not in lengths or not all(_PART.fullmatch(part) and ".." not in part for part in parts):
        raise HubError(f"{shown(rest)} is not a name of that store: write {form}")
    return [part.lower() for part in parts]


def _only(found: list[Path], name: str, program: str, names: list[str]) -> Path:
    if not found:
        raise HubError(f"{program} has no {name} here: `gemma4-mlx models` lists what it has")
    if len(found) > 1:
        raise HubError(f"{name} may be one of {len(found)}: name one of them: {', '.join(names[:_LISTED])}")
    return found[0]


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Folders `depth` levels below a folder."""
    if depth == 0:
        yield folder
        return
    for child in _children(folder):
        if child.is_dir():
            yield from _below(child, depth - 1)


def _children(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in names_in(folder) if name[0] != "."]
    except CheckpointError:
        return []
