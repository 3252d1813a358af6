"""From a model's name to a folder on this machine that holds its checkpoint.

A name is a local folder, a short name, a Hugging Face Hub id, or "demo" for the model inside this package. What is
fetched lands in the Hub's own cache (`HF_HOME`), shared with every other program that uses it. Reading the files is
`load`'s work, not done here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from ..byte_sizes import byte_size
from ..errors import HubError
from .builtin import DEMO, demo_folder
from .folder_kind import checkpoint_folder, describe_file
from .foreign import advice, other_repository
from .hub_cache import NEEDED, NOT_NEEDED, Snapshot, cache_folder, find_snapshot, record_revision
from .hub_errors import explained, quiet_hub
from .stores import kept_folder, store_of
from .weight_files import is_weights, names_in

#: Short name → Hub id. Three sizes hear, and 4-bit weights are where speech is lost (repetition on long clips) and, in
#: the small ones, per-layer embeddings, so they come in 8 bits; the two large ones would need a 48 GB Mac for that and
#: keep their quality in 4 bits. Any other precision is a full Hub id away.
#:
#: No short name means a QAT checkpoint. What mlx-community has of those ("…-it-qat-4bit", "…-qat-OptiQ-4bit") is in
#: groups of 64, where the training had 32, and so rounded a second time (the model cards). The makers' own
#: "google/gemma-4-31B-it-qat-w4a16-ct" (of all sizes but the 26B: vllm recipes 514) is of a form that loads here as it
#: is, but has its embeddings in bfloat16, of the 31B with a head beside them (omlx issue 1775): it takes more of a disk
#: and of memory than what the sizes are chosen by.
SHORT_NAMES: dict[str, str] = {
    "e2b": "mlx-community/gemma-4-e2b-it-8bit",
    "e4b": "mlx-community/gemma-4-e4b-it-8bit",
    "12b": "mlx-community/gemma-4-12B-it-8bit",
    "26b": "mlx-community/gemma-4-26b-a4b-it-4bit",
    "31b": "mlx-community/gemma-4-31b-it-4bit",
}

_HUB_ID = re.compile(r"\b[\w\-.]{1,96}\b/\b[\w\-.]{1,96}\b", re.ASCII)
_SPARE_BYTES = 64 << 20
"""Free disk that must remain: the cache's own files, and never a disk filled to the last byte."""


def resolve(
    name: str | Path,
    revision: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The folder that holds a checkpoint, fetched from the Hub first if need be.

    A short name always means the Hub, and "demo" the built-in model (write `./e2b` for a folder of that name);
    otherwise an existing folder comes before a Hub id. What is whole in the cache is used as it is, and no connection
    is opened. `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_OFFLINE` and the saved access token are huggingface_hub's.

    Args:
        name: a folder (`~` is expanded), a key of `SHORT_NAMES`, "demo", a Hub id "organisation/name", or a model that
            another program keeps: "ollama:gemma4:12b-mlx", "lmstudio:…", "kaggle:…".
        revision: branch, tag or commit on the Hub; the default branch if None. A branch stays where it was when the
            model was fetched.
        on_progress: called with (bytes here, bytes in all) while files are fetched; from the downloading thread.

    Raises:
        HubError: the name means nothing, or the files cannot be fetched; the message says what to do.
        CheckpointError: the folder is not a checkpoint, or not a whole one; the message says what it is.
        ConfigError: it is of another model.
        ValueError: a revision was asked of a local folder or of the built-in model.
    """
    place = _place(name, revision)
    if isinstance(place, Path):
        return place
    cached = find_snapshot(place, revision)
    if cached is None or cached.missing:
        return checkpoint_folder(_asking_hub(place, revision, on_progress, cached))
    return checkpoint_folder(cached.folder)


def update(name: str | Path, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """As `resolve`, but the Hub is asked whether it has a newer version than the cache, which is then fetched.

    With `HF_HUB_OFFLINE=1` it is not asked.

    Raises:
        HubError: besides what `resolve` raises it for: the Hub cannot be reached, whatever the cache holds.
        CheckpointError, ConfigError: as `resolve`.
    """
    place = _place(name, None)
    return place if isinstance(place, Path) else checkpoint_folder(_asking_hub(place, None, on_progress, None))


def _place(name: str | Path, revision: str | None) -> Path | str:
    """The folder that a name means, or its Hub id."""
    text = str(name)
    if text.lower() == DEMO:
        if revision is not None:
            raise ValueError(f"the built-in model has no revision {revision!r}")
        return demo_folder()
    if (repo_id := SHORT_NAMES.get(text.lower())) is not None:
        return repo_id
    if store_of(text) is not None:
        if revision is not None:
            raise ValueError(f"{text} is another program's: it has no revision {revision!r}")
        return kept_folder(text)
    path = os.path.expanduser(text)  # unlike pathlib, os.path takes any text: unknown ~users, names too long
    if os.path.isdir(path):
        if revision is not None:
            raise ValueError(f"{path} is a local folder: it has no revision {revision!r}")
        return checkpoint_folder(Path(path))
    if os.path.isfile(path):
        raise HubError(describe_file(Path(path)))
    if not is_hub_id(text):
        raise HubError(
            f"{text[:80]!r} is not a model: give an existing folder, one of {', '.join([DEMO, *SHORT_NAMES])}, "
            "or a Hub id such as google/gemma-4-E2B-it"
        )
    return text


def _asking_hub(
    repo_id: str,
    revision: str | None,
    on_progress: Callable[[int, int], None] | None,
    spare: Snapshot | None,
) -> Path:
    """The snapshot's folder, brought up to date; `spare` if it loads and the Hub cannot be asked."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError

    with quiet_hub():
        if constants.HF_HUB_OFFLINE:
            return _offline(repo_id, revision)
        try:
            return _fetch(repo_id, revision, on_progress, spare)
        except (HTTPError, OSError, RuntimeError, json.JSONDecodeError) as error:  # hf_xet raises RuntimeError
            raise explained(error, repo_id, revision) from error


def _offline(repo_id: str, revision: str | None) -> Path:
    cached = find_snapshot(repo_id, revision)
    if cached is not None and cached.loads:
        return cached.folder
    if cached is not None and (reason := other_repository(names_in(cached.folder), {}, repo_id)) is not None:
        raise HubError(f"{repo_id} {reason}")
    what = repo_id if revision is None else f"{repo_id} at revision {revision!r}"
    lacks = f"only in part in {cache_folder()} (missing: {', '.join(cached.missing[:4])})" if cached else ""
    raise HubError(f"{what} is {lacks or f'not in {cache_folder()}'}, and HF_HUB_OFFLINE is set: unset it once")


def is_hub_id(text: str) -> bool:
    """Whether a text can be "organisation/name" on the Hub.

    The rule is huggingface_hub's (`validate_repo_id`), which also lets a bare name through, as no Gemma 4 has it.
    Importing that takes a third of a second, and a model that is here is found in a tenth of it.
    """
    return bool(_HUB_ID.fullmatch(text)) and "--" not in text and ".." not in text and not text.endswith(".git")


def _fetch(
    repo_id: str,
    revision: str | None,
    on_progress: Callable[[int, int], None] | None,
    spare: Snapshot | None,
) -> Path:
    """Bring the cache up to date with the Hub and give the snapshot's folder."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HTTPError, RevisionNotFoundError

    try:
        info = HfApi().model_info(repo_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except RevisionNotFoundError:
        raise
    except (HTTPError, json.JSONDecodeError):
        if spare is None or not spare.loads:
            raise
        return spare.folder
    commit = info.sha
    if commit is None:
        raise HubError(f"{constants.ENDPOINT} gave no commit for {repo_id}: check HF_ENDPOINT")
    cached = find_snapshot(repo_id, commit)
    if cached is None or cached.missing:
        # The Hub reads config.json itself: gigabytes of another model need not come before that is found out.
        if info.siblings is not None:
            _refuse_other(repo_id, [file.rfilename for file in info.siblings], dict(info.config or {}))
        plan = snapshot_download(
            repo_id,
            revision=commit,
            allow_patterns=NEEDED,
            ignore_patterns=NOT_NEEDED,
            tqdm_class=_byte_counter(None),
            dry_run=True,
        )
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
        # Nothing is left to fetch: this records which files belong to the commit.
        snapshot_download(
            repo_id,
            revision=commit,
            allow_patterns=NEEDED,
            ignore_patterns=NOT_NEEDED,
            tqdm_class=_byte_counter(None),
        )
    return record_revision(repo_id, revision, commit)


def _refuse_other(repo_id: str, names: list[str], config: dict[str, object]) -> None:
    """Raise `HubError` if a repository with these files is not of a Gemma 4 this package loads."""
    reason = other_repository(names, config, repo_id)
    if reason is None and not ("config.json" in names and any(map(is_weights, names))):
        reason = f"has no config.json with .safetensors weights: {advice({}, repo_id)}"
    if reason is not None:
        raise HubError(f"{repo_id} {reason}")


def newest_commit(repo_id: str) -> str | None:
    """The commit at which the Hub's default branch of a model stands; nothing is fetched.

    Raises:
        HubError: it cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HTTPError

    with quiet_hub():
        try:
            return HfApi().model_info(repo_id, timeout=constants.HF_HUB_ETAG_TIMEOUT).sha
        except (HTTPError, OSError, json.JSONDecodeError) as error:
            raise explained(error, repo_id, None) from error


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
            HfApi().model_info(repo_id, timeout=timeout, token=False)  # who asks is nobody's business
        except (HTTPError, OSError, json.JSONDecodeError) as error:
            raise explained(error, repo_id, None) from error


def free_disk() -> tuple[Path, int]:
    """Where the Hub's cache is, or will be, and the free bytes of the disk it is on."""
    cache = cache_folder()
    existing = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    return cache, shutil.disk_usage(existing).free


def _check_disk(repo_id: str, needed: int) -> None:
    """Refuse a download that cannot fit before its first byte."""
    cache, free = free_disk()
    if needed and needed + _SPARE_BYTES > free:
        raise HubError(
            f"{repo_id} needs {byte_size(needed)} of disk and {cache} has {byte_size(free)} free: "
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
