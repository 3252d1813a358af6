"""From a model's name to a folder on this machine that holds its checkpoint.

A name is a local folder, a short name, a Hugging Face Hub id, or "demo" for the model inside this package. What is
fetched lands in the Hub's own cache (`HF_HOME`), shared with every other program that uses it. Reading the files is
`load`'s work, not done here.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gemma4_mlx.checkpoint.builtin import DEMO, demo_folder
from gemma4_mlx.config import MODEL_TYPES
from gemma4_mlx.errors import HubError

#: Short name → Hub id. The two small sizes hear, and 4-bit weights are where they lose speech (repetition on long
#: clips) and per-layer embeddings, so they come in 8 bits; the two large ones would need a 48 GB Mac for that and keep
#: their quality in 4 bits. Any other precision is a full Hub id away.
SHORT_NAMES: dict[str, str] = {
    "e2b": "mlx-community/gemma-4-e2b-it-8bit",
    "e4b": "mlx-community/gemma-4-e4b-it-8bit",
    "26b": "mlx-community/gemma-4-26b-a4b-it-4bit",
    "31b": "mlx-community/gemma-4-31b-it-4bit",
}

_NEEDED = [
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
# `*` in these patterns matches "/" too: the first keeps out every sub-folder ("original/…"), the second a whole
# second copy of the weights.
_NOT_NEEDED = ["*/*", "consolidated*.safetensors"]

_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors")
_SPARE_BYTES = 64 << 20
"""Free disk that must remain: the cache's own files, and never a disk filled to the last byte."""


def resolve(
    name: str | Path,
    revision: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The folder that holds a checkpoint, fetched from the Hub first if need be.

    A short name always means the Hub, and "demo" the built-in model (write `./e2b` for a folder of that name);
    otherwise an existing folder comes before a Hub id. A complete copy in the cache is used when the Hub cannot be
    reached, and without asking it at all when `HF_HUB_OFFLINE=1`. `HF_ENDPOINT`, `HF_HOME` and the saved access token
    are huggingface_hub's.

    Args:
        name: a folder (`~` is expanded), a key of `SHORT_NAMES`, "demo", or a Hub id "organisation/name".
        revision: branch, tag or commit on the Hub; the default branch if None.
        on_progress: called with (bytes here, bytes in all) while files are fetched; from the downloading thread.

    Raises:
        HubError: the name means nothing, or the files cannot be fetched; the message says what to do.
        CheckpointError: files of the built-in model are missing or damaged.
        ValueError: a revision was asked of a local folder or of the built-in model.
    """
    text = str(name)
    if text.lower() == DEMO:
        if revision is not None:
            raise ValueError(f"the built-in model has no revision {revision!r}")
        return demo_folder()
    repo_id = SHORT_NAMES.get(text.lower())
    if repo_id is None:
        path = os.path.expanduser(text)  # unlike pathlib, os.path takes any text: unknown ~users, names too long
        if os.path.isdir(path):
            if revision is not None:
                raise ValueError(f"{path} is a local folder: it has no revision {revision!r}")
            return Path(path)
        if os.path.isfile(path):
            raise HubError(f"{path} is a file: name the folder that holds config.json and the .safetensors files")
        if not is_hub_id(text):
            raise HubError(
                f"{text[:80]!r} is not a model: give an existing folder, one of {', '.join([DEMO, *SHORT_NAMES])}, "
                "or a Hub id such as google/gemma-4-E2B-it"
            )
        repo_id = text

    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError

    with quiet_hub():
        if constants.HF_HUB_OFFLINE:
            if (cached := _cached(repo_id, revision)) is not None:
                return cached
            raise HubError(f"{repo_id} is not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set: unset it once")
        try:
            return _fetch(repo_id, revision, on_progress)
        except (HTTPError, OSError, RuntimeError, json.JSONDecodeError) as error:  # hf_xet raises RuntimeError
            raise explained(error, repo_id, revision) from error


def is_hub_id(text: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if text.count("/") != 1:  # the Hub's own rule also lets a bare name through, which no Gemma 4 checkpoint has
        return False
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def _fetch(repo_id: str, revision: str | None, on_progress: Callable[[int, int], None] | None) -> Path:
    """Bring the cache up to date with the Hub and give the snapshot's folder."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HTTPError, RevisionNotFoundError

    cached = _cached(repo_id, revision)
    try:
        info = HfApi().model_info(repo_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except RevisionNotFoundError:
        raise
    except (HTTPError, json.JSONDecodeError):
        if cached is None:
            raise
        return cached
    commit = info.sha
    if commit is None:
        raise HubError(f"{constants.ENDPOINT} gave no commit for {repo_id}: check HF_ENDPOINT")
    if cached is not None and cached.name == commit:
        return cached
    # The Hub reads config.json itself: gigabytes of another family need not come before that is found out.
    model_type = (info.config or {}).get("model_type")
    if model_type is not None and model_type not in MODEL_TYPES:
        raise HubError(f"{repo_id} is not a Gemma 4 (its model_type is {model_type!r}): name a Gemma 4 checkpoint")

    plan = snapshot_download(
        repo_id,
        revision=commit,
        allow_patterns=_NEEDED,
        ignore_patterns=_NOT_NEEDED,
        tqdm_class=_byte_counter(None),
        dry_run=True,
    )
    names = {file.filename for file in plan}
    if "config.json" not in names or not any(file.endswith(".safetensors") for file in names):
        raise HubError(f"{repo_id} has no config.json with .safetensors weights: name a Gemma 4 checkpoint")

    missing = [file for file in plan if file.will_download]
    total = sum(file.file_size or 0 for file in missing)
    _check_disk(repo_id, total)
    # One after the other in this thread, not by snapshot_download's pool: there an interrupt waits until every file
    # under way has arrived. config.json comes last, so that a folder without it is known to be unfinished.
    done = 0
    for file in sorted(missing, key=lambda file: (file.filename == "config.json", file.filename)):
        report = None if on_progress is None else _offset(on_progress, done, total)
        hf_hub_download(repo_id, file.filename, revision=commit, tqdm_class=_byte_counter(report))
        done += file.file_size or 0
        if on_progress is not None:
            on_progress(done, total)
    # Nothing is left to fetch: this records which commit the branch stands at and which files belong to it.
    return Path(
        snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=_NEEDED,
            ignore_patterns=_NOT_NEEDED,
            tqdm_class=_byte_counter(None),
        )
    )


def _cached(repo_id: str, revision: str | None) -> Path | None:
    """The complete snapshot in the cache, or None; asks nobody."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=_NEEDED,
            ignore_patterns=_NOT_NEEDED,
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    folder = Path(found)
    return folder if is_complete(folder) else None


def is_complete(folder: Path) -> bool:
    """Whether config.json, the tokenizer and every shard are there.

    Any program may have put part of a model into the shared cache (a tokenizer alone, say), and huggingface_hub can
    tell only if it saw the whole list of files once.
    """
    shards = {path.name for path in folder.glob("*.safetensors") if path.exists()}
    if not shards or not (folder / "config.json").exists() or not (folder / "tokenizer.json").exists():
        return False
    for index in folder.glob("*.safetensors.index.json"):
        try:
            listed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return False
        if not listed <= shards:
            return False
    numbered = [match for shard in shards if (match := _SHARD.fullmatch(shard))]
    counts = {(match[1], int(match[3])) for match in numbered}
    return len(numbered) == sum(count for _, count in counts)


def ask_hub(timeout: float) -> None:
    """Ask the Hub for the smallest size, and for nothing of it.

    Args:
        timeout: seconds it has to connect, and to answer.

    Raises:
        HubError: it cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    repo_id = SHORT_NAMES["e2b"]
    with quiet_hub():
        try:
            HfApi().model_info(repo_id, timeout=timeout)
        except (HTTPError, OSError, json.JSONDecodeError) as error:
            raise explained(error, repo_id, None) from error


def free_disk() -> tuple[Path, int]:
    """Where the Hub's cache is, or will be, and the free bytes of the disk it is on."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    existing = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    return cache, shutil.disk_usage(existing).free


def _check_disk(repo_id: str, needed: int) -> None:
    """Refuse a download that cannot fit before its first byte."""
    cache, free = free_disk()
    if needed and needed + _SPARE_BYTES > free:
        raise HubError(
            f"{repo_id} needs {needed / 1e9:.1f} GB of disk and {cache} has {free / 1e9:.1f} GB free: "
            "make room, or set HF_HOME to a larger disk"
        )


def _offset(on_progress: Callable[[int, int], None], done: int, total: int) -> Callable[[int], None]:
    return lambda count: on_progress(min(done + count, total), total)


def _byte_counter(report: Callable[[int], None] | None) -> type:
    """A stand-in for huggingface_hub's progress bars: shows nothing, reports how many bytes of a file have come.

    A file from the Hub's chunk store has two bars, bytes received and bytes written; the one further on counts.
    """
    from huggingface_hub.utils import tqdm

    class ByteCounter(tqdm):  # type: ignore[misc, valid-type, unused-ignore]
        furthest = 0

        def __init__(self, *args, **kwargs) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)
            self.count = 0

        def update(self, n: float | None = 1) -> None:
            self.count += int(n or 0)
            if report is not None and self.count > ByteCounter.furthest:
                ByteCounter.furthest = self.count
                report(self.count)

    return ByteCounter


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep huggingface_hub's warnings off the terminal; what went wrong is in the error raised."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if level == logging.WARNING:  # the default; whoever asked for another level gets it
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def explained(error: Exception, repo_id: str, revision: str | None) -> HubError:
    """One line that says what to do about an error of huggingface_hub, its HTTP client, its chunk store or the disk."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    while isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    endpoint = constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        return HubError(
            f"{repo_id} asks you to accept its licence: do so at {endpoint}/{repo_id}, then run `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return HubError(f"{endpoint} has no model {repo_id}: check the name; if it is private, run `hf auth login`")
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{repo_id} has no revision {revision!r}: see {endpoint}/{repo_id}/tree/main for what it has")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return HubError(
                f"{endpoint} refused access to {repo_id} ({status}): run `hf auth login` with a valid token"
            )
        if status == 429 or status >= 500:
            return HubError(f"{endpoint} answered {status} for {repo_id}: try again later")
        return HubError(f"{endpoint} answered {status} for {repo_id}: check HF_ENDPOINT and the name")
    if isinstance(error, json.JSONDecodeError):
        return HubError(f"{endpoint} does not answer as a Hub does: check HF_ENDPOINT, or log in to this network")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return HubError(f"the disk filled up while fetching {repo_id}: make room, or set HF_HOME to a larger disk")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return HubError(f"cannot write to {constants.HF_HUB_CACHE}: set HF_HOME to a folder of yours")
    if isinstance(error, HTTPError | ConnectionError | TimeoutError):
        return HubError(f"cannot reach {endpoint} for {repo_id}: check the network and try again (demo needs none)")
    reason = " ".join(str(error).split()) or type(error).__name__
    return HubError(f"fetching {repo_id} failed: {reason[:200]}; try again (whole files are kept)")
