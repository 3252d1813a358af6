"""From a folder that somebody named to the checkpoint in it, or to one line that says what the folder is instead.

Everything that a model's name can lead to is looked at here, by `load`, `convert` and the commands alike. The names of
files, `config.json` and the first bytes of small files are enough: it takes milliseconds, whatever the model's size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError
from ..json_files import read_json_object
from ..shown import shown
from .foreign import advice, other_file, other_files, other_model
from .weight_files import check_link, is_weights, names_in, parts_of_downloads, safetensors_files

_LARGEST_POINTER = 1024  # bytes; git-lfs's own limit for what it takes for a pointer
_LISTED = 6
_SEARCHED = 1000  # folders looked at, to find checkpoints
_PREFIX = "models--"  # of a model's folder in the Hub's cache
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def checkpoint_folder(path: Path) -> Path:
    """The folder of the checkpoint that a folder is, or stands for: the top of a model in the Hub's cache stands for
    its newest snapshot.

    Raises:
        CheckpointError: it is something else, or not whole; the message says what, and what to take instead.
        ConfigError: its `config.json` is of another model.
    """
    folder = _snapshot(path)
    names = names_in(folder)
    has_weights = any(map(is_weights, names))
    if "config.json" in names and not has_weights and "model_type" not in _json_object(folder / "config.json"):
        # Another program's: its other files say whose.
        raise CheckpointError(f"{folder} {_without_weights(folder, names, {})}")
    raw = read_config_json(folder)
    if not has_weights:
        raise CheckpointError(f"{folder} {_without_weights(folder, names, raw)}")
    for name in names:
        if name.endswith((".json", ".jinja")):
            check_link(folder / name)
    for file in (*safetensors_files(folder), folder / "tokenizer.json"):
        _check_pointer(file)
    return folder


def read_config_json(folder: Path) -> Mapping[str, Any]:
    """The parsed `config.json` of a checkpoint folder, seen to be of a model this package loads.

    Raises:
        CheckpointError: it is missing or damaged; the message says what the folder is.
        ConfigError: it is of another model.
    """
    names = names_in(folder)
    if "config.json" not in names:
        raise CheckpointError(f"{folder} {_without_config(folder, names)}")
    raw = _json_object(folder / "config.json")
    if (reason := other_model(raw, _own_name(folder))) is not None:
        raise ConfigError(f"{folder} {reason}")
    return raw


def describe_file(path: Path) -> str:
    """What to tell somebody who named a file where a folder is needed."""
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if start.startswith(_LFS_POINTER):
        return _pointer(path)
    if (reason := other_file(path.name, start)) is not None:
        return f"{path} {reason}"
    if parts_of_downloads(path.parent, [path.name]):
        return f"{path} is a part of a download: let it end, or download it again"
    found = f": {path.parent}" if (path.parent / "config.json").is_file() else ""
    return f"{path} is a file: name the folder that holds config.json and the .safetensors files{found}"


def _snapshot(path: Path) -> Path:
    """The snapshot that the top of a model in the Hub's cache stands for; any other folder is itself."""
    top = path.parent if path.name in ("snapshots", "blobs", "refs") and path.parent.name.startswith(_PREFIX) else path
    in_cache = top.name.startswith(_PREFIX) or ((top / "snapshots").is_dir() and (top / "refs").is_dir())
    if not in_cache or (path / "config.json").exists():
        return path
    commits = [name for name in _names_below(top / "snapshots") if (top / "snapshots" / name).is_dir()]
    try:
        main = top / "refs" / "main"
        newest = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
    except (OSError, UnicodeDecodeError):
        newest = ""
    if newest in commits or len(commits) == 1:
        return top / "snapshots" / (newest if newest in commits else commits[0])
    if commits:
        raise CheckpointError(
            f"{path} holds {len(commits)} snapshots and nothing says which is the newest: name one of them: "
            f"{_listing([f'snapshots/{commit}' for commit in commits])}"
        )
    pull = f"`gemma4-mlx models pull {_repo_id(top.name)}`"
    raise CheckpointError(f"{path} is a model's place in the Hub's cache and holds none of it: {pull} fetches it")


def _json_object(path: Path) -> Mapping[str, Any]:
    check_link(path)
    _check_pointer(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file: download it again")
    return read_json_object(path)


def _without_config(folder: Path, names: list[str]) -> str:
    """What a folder is that has no config.json."""
    visible = [name for name in names if not name.startswith(".")]
    a_whole = not {"adapter_config.json", "model_index.json"}.isdisjoint(names)
    if models := [_repo_id(name) for name in names if name.startswith(_PREFIX)]:
        return f"is a cache of the Hub: name a model in it: {_listing(models)}"
    if any(name.startswith(_PREFIX) for name in _names_below(folder / "hub")):
        return _without_config(folder, _names_below(folder / "hub"))
    if any(map(is_weights, names)) and not a_whole:
        return "has weights and no config.json: download it again, with all its files"
    if not a_whole and (inside := _checkpoints_below(folder, names)):
        return f"is a folder of models: name one in it: {_listing(inside)}"
    if not visible and not parts_of_downloads(folder, names):
        return f"is empty, without a config.json: {advice({}, _own_name(folder))}"
    return _without_weights(folder, names, {})


def _without_weights(folder: Path, names: list[str], raw: Mapping[str, Any]) -> str:
    """What a folder is that has no weights, or none of a whole model."""
    if "adapter_config.json" in names or any(name.endswith(".safetensors") and "adapter" in name for name in names):
        return _adapter(folder)
    if (reason := other_files(names, raw, _own_name(folder))) is not None:
        return reason
    if parts := parts_of_downloads(folder, names):
        return f"holds a part of a download ({parts[0]}): let it end, or download it again"
    if "config.json" in names:
        return f"has a config.json but no *.safetensors file: download it again, with its weights, or {advice(raw, '')}"
    return f"has no config.json, so it is not a model's folder: {advice({}, _own_name(folder))}"


def _adapter(folder: Path) -> str:
    """What to do with a LoRA adapter, which knows the model it was made for."""
    try:
        raw = _json_object(folder / "adapter_config.json")
    except CheckpointError:
        raw = {}
    base = raw.get("base_model_name_or_path") or raw.get("model")
    made_for = f" for {shown(base)}" if isinstance(base, str) else ""
    by_mlx = "lora_parameters" in raw or (folder / "adapters.safetensors").exists()
    how = "`mlx_lm.fuse`" if by_mlx else "PEFT's `merge_and_unload`"
    return f"is a LoRA adapter{made_for}, not a model: merge the two with {how} and name the folder that comes out"


def _checkpoints_below(folder: Path, names: list[str]) -> list[str]:
    """Folders in a folder, or one below, that have a config.json; of very many, the first are looked at."""

    def below() -> Iterator[str]:
        for name in names:
            yield name
            if not (folder / name / "config.json").is_file():
                yield from (f"{name}/{inner}" for inner in _names_below(folder / name))

    return [path for path in islice(below(), _SEARCHED) if (folder / path / "config.json").is_file()]


def _names_below(folder: Path) -> list[str]:
    try:
        return names_in(folder) if folder.is_dir() else []
    except CheckpointError:
        return []


def _check_pointer(path: Path) -> None:
    """Raise `CheckpointError` if git left a pointer where the file should be."""
    try:
        if path.is_file() and path.stat().st_size <= _LARGEST_POINTER:
            with path.open("rb") as stream:
                if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
                    raise CheckpointError(_pointer(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def _pointer(path: Path) -> str:
    return f"{path} is a git LFS pointer, not the file itself: run `git lfs pull` in {path.parent}"


def _own_name(folder: Path) -> str:
    """The name that may tell the size: of the repository, for a snapshot of the Hub's cache."""
    in_cache = folder.parent.name == "snapshots"
    return folder.parents[1].name if in_cache else os.path.basename(os.path.abspath(folder))


def _repo_id(folder_name: str) -> str:
    return folder_name.removeprefix(_PREFIX).replace("--", "/", 1)


def _listing(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
