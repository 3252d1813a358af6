"""Which files of a checkpoint hold its weights. Names and the index tell, before any file is opened.

Other programs may have left files beside them: an index of shards that are gone, shards of an older download,
adapters, and the `._…` files in which macOS keeps a file's attributes on disks that have no room for them (exFAT, SMB).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Set
from itertools import islice
from pathlib import Path

from ..errors import CheckpointError

INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors")
_MOST_SHARDS = 10_000
_MOST_ENTRIES = 10_000  # of a folder; no checkpoint has a hundredth of them
_LARGEST_INDEX = 64 << 20  # bytes; far more than the names of any size's tensors

# A second copy of the weights in the makers' own layout, and adapters, which are added to weights.
_NOT_WEIGHTS = re.compile(r"\..*|consolidated.*|adapters?(_model)?\.safetensors|\d+_adapters\.safetensors")
#: How the names of unfinished downloads end, in browsers, download managers and huggingface_hub.
PART_OF_A_DOWNLOAD = (".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2", ".!qb", ".tmp")


def names_in(folder: Path) -> list[str]:
    """Every name in a folder, in order, broken links included; of a very large folder only a part.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, _MOST_ENTRIES))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}") from error


def is_weights(name: str) -> bool:
    """Whether a file of this name, in a checkpoint's folder and not below it, may hold weights of a model."""
    return name.endswith(".safetensors") and "/" not in name and not _NOT_WEIGHTS.fullmatch(name)


def weight_names(names: Iterable[str], indexed: Set[str] | None) -> set[str]:
    """The weight files of a checkpoint, also those that are missing.

    A whole file outranks shards, and an index that does not name it, as in transformers
    (`modeling_utils._get_resolved_checkpoint_files`): such an index was left by an earlier checkpoint.

    Args:
        names: all files in the folder.
        indexed: the files that the index names; None if there is no index.
    """
    found = set(filter(is_weights, names))
    if _WHOLE in found and (indexed is None or _WHOLE not in indexed):
        return {_WHOLE} if indexed is not None else {name for name in found if not _SHARD.fullmatch(name)}
    if indexed is not None:
        return set(indexed)
    for match in [match for name in found if (match := _SHARD.fullmatch(name))]:
        digits = len(match[2])
        for number in range(1, min(int(match[3][:8]), _MOST_SHARDS) + 1):
            found.add(f"{match[1]}-{number:0{digits}}-of-{match[3]}.safetensors")
    return found


def indexed_names(folder: Path) -> set[str] | None:
    """The files that a folder's index names; None if it has no index.

    Raises:
        CheckpointError: the index is damaged, or names files outside of the folder.
    """
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            names = set(json.loads(stream.read(_LARGEST_INDEX))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise CheckpointError(f"{path} is damaged: download it again") from None
    if not all(isinstance(name, str) and name == os.path.basename(name) and name not in ("", "..") for name in names):
        raise CheckpointError(f"{path} names files outside of its folder: download it again")
    return names


def safetensors_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint folder, in order.

    Raises:
        CheckpointError: there is none, or one that should be there is missing.
    """
    names = names_in(folder)
    try:
        indexed = indexed_names(folder)
    except CheckpointError:
        if not (folder / _WHOLE).is_file():
            raise
        indexed = set()  # the whole file does without it
    wanted = sorted(weight_names(names, indexed))
    missing = [name for name in wanted if not (folder / name).is_file()]
    if dangling := [name for name in missing if (folder / name).is_symlink()]:
        raise _dangling(folder / dangling[0])
    if missing:
        parts = parts_of_downloads(folder, names)
        found = f" (there is an unfinished download: {parts[0]})" if parts else ""
        raise CheckpointError(f"{folder}: weight files missing: {_listing(missing)}{found}: download them again")
    if not wanted:
        raise CheckpointError(f"{folder} has no *.safetensors file: it is not a checkpoint this package can read")
    return [folder / name for name in wanted]


def parts_of_downloads(folder: Path, names: Iterable[str]) -> list[str]:
    """Unfinished downloads in a folder, also where `hf download --local-dir` keeps them below it."""
    below = Path(".cache") / "huggingface" / "download"
    kept = [f"{below}/{name}" for name in names_in(folder / below)] if (folder / below).is_dir() else []
    return [name for name in (*names, *kept) if name.lower().endswith(PART_OF_A_DOWNLOAD)]


def check_link(path: Path) -> None:
    """Raise `CheckpointError` if `path` is a broken link."""
    if path.is_symlink() and not path.exists():
        raise _dangling(path)


def _dangling(path: Path) -> CheckpointError:
    target = os.readlink(path)
    advice = "download it again"
    top = path.parents[2] if len(path.parents) > 2 else path
    if path.parent.parent.name == "snapshots" and top.name.startswith("models--"):
        repo_id = top.name.removeprefix("models--").replace("--", "/", 1)
        advice = f"`gemma4-mlx models pull {repo_id}` fetches it"
    elif "blobs" in Path(target).parts:
        advice = "copy the folder out of the Hub's cache with `cp -RL`, which takes the files and not the links"
    return CheckpointError(f"{path} is a link to a file that is not there ({target}): {advice}")


def _listing(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
