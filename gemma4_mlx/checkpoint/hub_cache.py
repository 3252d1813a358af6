"""What the Hub's cache on this machine holds of Gemma 4: found, measured, removed. Nobody is asked over the network.

Its layout is huggingface_hub's (https://huggingface.co/docs/huggingface_hub/guides/manage-cache): `refs/BRANCH` names a
commit, `snapshots/COMMIT` has its files, and `trees/COMMIT.json`, where a newer huggingface_hub fetched it, lists all
files that the repository has at that commit.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import MODEL_TYPES
from ..errors import CheckpointError, HubError
from ..json_files import read_json_object
from .hub_errors import quiet_hub
from .weight_files import INDEX, indexed_names, names_in, weight_names

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo

_PREFIX = "models--"
_COMMIT = re.compile("[0-9a-f]{40}")

#: Patterns of the files that a checkpoint is loaded from.
NEEDED = [
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
    "feature_extractor.json",
]
#: Of those, what is left where it is. `*` in these patterns matches "/" too: the first keeps out every sub-folder
#: ("original/…"), the second a whole second copy of the weights.
NOT_NEEDED = ["*/*", "consolidated*.safetensors"]

_MUST_BE_THERE = {"config.json", "tokenizer.json"}
_TEMPLATES = {"chat_template.jinja", "chat_template.json"}
# What loading has a good default for.
_CAN_DO_WITHOUT = {name for name in NEEDED if name.endswith(".json")} - _MUST_BE_THERE - _TEMPLATES | {INDEX}


@dataclass(frozen=True)
class Snapshot:
    """One commit of a model in the cache.

    Attributes:
        folder: its files.
        missing: names of those that the repository has, as far as is known here, and the cache has not; in order.
        loads: it can be loaded without them.
    """

    folder: Path
    missing: tuple[str, ...]
    loads: bool


@dataclass(frozen=True)
class CachedModel:
    """A Gemma 4 in the cache.

    Attributes:
        repo_id: its Hub id.
        whole: it can be loaded without the Hub.
        nbytes: on disk, with what broken downloads left.
    """

    repo_id: str
    whole: bool
    nbytes: int


def cached_ids() -> list[str]:
    """Hub ids of every Gemma 4 in the cache, whole or not, in order of their names."""
    folders = sorted(cache_folder().glob(f"{_PREFIX}*--*"))
    return [repo_id for folder in folders if (repo_id := _repo_id(folder)) and _is_gemma4(repo_id)]


def find_snapshot(repo_id: str, revision: str | None) -> Snapshot | None:
    """What is here of a model at a revision (branch, tag or commit; None: the default branch); None: nothing.

    A newer version of which only a part has come does not take away the one before: for the default branch that is then
    the snapshot, the one that came last of those that can be loaded.
    """
    commit = revision if revision and _COMMIT.fullmatch(revision) else _recorded(repo_id, revision)
    folder = _folder(repo_id) / "snapshots" / (commit or "none")
    found = _snapshot(folder) if folder.is_dir() else None
    if revision is None and (found is None or not found.loads):
        whole = [snapshot for path in _snapshots(repo_id) if (snapshot := _snapshot(path)).loads]
        return max(whole, key=lambda snapshot: snapshot.folder.stat().st_mtime, default=found)
    return found


def _recorded(repo_id: str, revision: str | None) -> str | None:
    """The commit at which a branch or tag stood when it was fetched."""
    refs = _folder(repo_id) / "refs"
    try:
        path = refs / (revision or "main")
        if ".." in path.parts or not path.is_relative_to(refs) or not path.is_file():
            return None
        with path.open("rb") as stream:
            text = stream.read(64).decode().strip()
    except (OSError, ValueError):  # ValueError: no text; or a name no file can have
        return None
    return text if _COMMIT.fullmatch(text) else None


def record_revision(repo_id: str, revision: str | None, commit: str) -> Path:
    """Record that a branch or tag stands at a commit, all of which is here. Returns the commit's folder."""
    if revision != commit:
        path = _folder(repo_id) / "refs" / (revision or "main")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=_folder(repo_id))
        with os.fdopen(handle, "w") as stream:
            stream.write(commit)
        os.replace(temporary, path)
    return _folder(repo_id) / "snapshots" / commit


def _snapshot(folder: Path) -> Snapshot:
    here = {name for name in names_in(folder) if (folder / name).is_file()}
    listed = _listed(folder)
    try:
        indexed = indexed_names(folder)
    except CheckpointError:
        indexed = None  # loading it tells that it is damaged
    weights = weight_names(here | (listed or set()), indexed) or {"model.safetensors"}
    wanted = _MUST_BE_THERE | weights | {name for name in listed or () if not name.endswith(".safetensors")}
    can_do_without = _CAN_DO_WITHOUT
    if listed is None and not _has_template(folder, here):
        # Nobody knows what the repository has, and few have no template: another program may have left it out.
        wanted |= {"chat_template.jinja"}
        can_do_without = can_do_without | _TEMPLATES
    missing = wanted - here
    return Snapshot(folder, tuple(sorted(missing)), loads=missing <= can_do_without)


def _listed(folder: Path) -> set[str] | None:
    """Those files of the repository that loading wants, if somebody recorded what it has at this commit."""
    raw = _read_json(folder.parents[1] / "trees" / f"{folder.name}.json")
    files = raw.get("files")
    return {name for name in files if _is_needed(name)} if isinstance(files, Mapping) and files else None


def _is_needed(name: str) -> bool:
    fits = any(fnmatchcase(name, pattern) for pattern in NEEDED)
    return fits and not any(fnmatchcase(name, pattern) for pattern in NOT_NEEDED)


def _has_template(folder: Path, here: set[str]) -> bool:
    if not here.isdisjoint(_TEMPLATES):
        return True
    return _read_json(folder / "tokenizer_config.json").get("chat_template") is not None


def _read_json(path: Path) -> Mapping[str, Any]:
    """{}: there is none, or it is damaged."""
    if not path.is_file():
        return {}
    try:
        return read_json_object(path)
    except CheckpointError:
        return {}


def is_whole(repo_id: str) -> bool:
    """Whether the Hub's newest version that was fetched of a model is here with all that loading needs."""
    snapshot = find_snapshot(repo_id, None)
    return snapshot is not None and snapshot.loads


def cached_models() -> list[CachedModel]:
    """Every Gemma 4 in the cache with its size, in order of their names."""
    ids = cached_ids()
    sizes = {repo.repo_id: repo.size_on_disk for repo in _scan().repos if repo.repo_type == "model"} if ids else {}
    return [CachedModel(repo_id, _has_whole_snapshot(repo_id), _bytes_on_disk(repo_id, sizes)) for repo_id in ids]


def remove_cached(repo_id: str) -> int:
    """Remove a model, all its versions and what broken downloads left of it. Returns the bytes this freed.

    Raises:
        HubError: the cache has no Gemma 4 of this name, or cannot be written to.
    """
    if repo_id not in cached_ids():
        raise HubError(f"{repo_id} is not a Gemma 4 in the cache: `gemma4-mlx models` lists those that are")
    folder = _folder(repo_id)
    commits = [path.name for path in _snapshots(repo_id)]
    # Files can be shared between models: huggingface_hub knows which are, and keeps those.
    strategy = _scan().delete_revisions(*commits)
    known = {repo_id: strategy.expected_freed_size} if folder.resolve() in strategy.repos else {}
    freed = _bytes_on_disk(repo_id, known)
    with quiet_hub():
        strategy.execute()
    if folder.exists():  # the scan could make nothing of it, or not all of it could be removed
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise HubError(f"cannot remove {error.filename}: {error.strerror}") from error
    return freed


def cache_folder() -> Path:
    """Where the Hub's cache is, or will be."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _folder(repo_id: str) -> Path:
    return cache_folder() / f"{_PREFIX}{repo_id.replace('/', '--')}"


def _repo_id(folder: Path) -> str:
    return folder.name.removeprefix(_PREFIX).replace("--", "/", 1)


def _is_gemma4(repo_id: str) -> bool:
    """By its config.json; without one, which arrives last, by its name."""
    configs = [snapshot / "config.json" for snapshot in _snapshots(repo_id)]
    found = [_read_json(config) for config in configs if config.exists()]
    if not found:
        return "gemma-4" in repo_id.lower()
    return any(raw.get("model_type") in MODEL_TYPES for raw in found)


def _snapshots(repo_id: str) -> list[Path]:
    return [path for path in sorted(_folder(repo_id).glob("snapshots/*")) if _COMMIT.fullmatch(path.name)]


def _has_whole_snapshot(repo_id: str) -> bool:
    return any(_snapshot(folder).loads for folder in _snapshots(repo_id))


def _bytes_on_disk(repo_id: str, scanned: Mapping[str, int]) -> int:
    """What the scan found, and the leavings of downloads that were killed, which it does not count and no later
    download goes on with. A folder that the scan could make nothing of is measured file by file."""
    if repo_id in scanned:
        return scanned[repo_id] + sum(path.stat().st_size for path in _folder(repo_id).glob("blobs/*.incomplete"))
    return sum(path.lstat().st_size for path in _folder(repo_id).rglob("*") if path.is_file())


def _scan() -> HFCacheInfo:
    from huggingface_hub import scan_cache_dir

    with quiet_hub():
        return scan_cache_dir(cache_folder())
