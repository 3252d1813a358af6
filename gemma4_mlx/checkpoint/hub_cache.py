"""What the Hub's cache on this machine holds of Gemma 4: found, measured, removed. Nobody is asked over the network."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Config
from ..errors import CheckpointError, ConfigError, HubError
from ..json_files import read_json_object
from .hub import is_complete, quiet_hub

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo

_PREFIX = "models--"


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
    folders = sorted(_cache().glob(f"{_PREFIX}*--*"))
    return [repo_id for folder in folders if (repo_id := _repo_id(folder)) and _is_gemma4(folder, repo_id)]


def is_whole(repo_id: str) -> bool:
    """Whether the Hub's newest version that was fetched of a model is here with all that loading needs."""
    folder = _folder(repo_id)
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return False
    return is_complete(folder / "snapshots" / commit)


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
    commits = [path.name for path in folder.glob("snapshots/*")]
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


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _folder(repo_id: str) -> Path:
    return _cache() / f"{_PREFIX}{repo_id.replace('/', '--')}"


def _repo_id(folder: Path) -> str:
    return folder.name.removeprefix(_PREFIX).replace("--", "/", 1)


def _is_gemma4(folder: Path, repo_id: str) -> bool:
    """By its config.json; without one, which arrives last, by its name."""
    configs = list(folder.glob("snapshots/*/config.json"))
    return any(map(_describes_gemma4, configs)) if configs else "gemma-4" in repo_id.lower()


def _describes_gemma4(config: Path) -> bool:
    try:
        Config.from_dict(read_json_object(config))
    except (CheckpointError, ConfigError):
        return False
    return True


def _has_whole_snapshot(repo_id: str) -> bool:
    return any(map(is_complete, _folder(repo_id).glob("snapshots/*")))


def _bytes_on_disk(repo_id: str, scanned: Mapping[str, int]) -> int:
    """What the scan found, and the leavings of downloads that were killed, which it does not count and no later
    download goes on with. A folder that the scan could make nothing of is measured file by file."""
    if repo_id in scanned:
        return scanned[repo_id] + sum(path.stat().st_size for path in _folder(repo_id).glob("blobs/*.incomplete"))
    return sum(path.lstat().st_size for path in _folder(repo_id).rglob("*") if path.is_file())


def _scan() -> HFCacheInfo:
    from huggingface_hub import scan_cache_dir

    with quiet_hub():
        return scan_cache_dir(_cache())
