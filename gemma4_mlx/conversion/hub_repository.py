"""What a conversion asks of the Hugging Face Hub besides a whole checkpoint: a config alone, and to keep the result."""

from __future__ import annotations

import json
from pathlib import Path

from ..checkpoint.hub import is_hub_id
from ..checkpoint.hub_cache import find_snapshot
from ..checkpoint.hub_errors import explained, quiet_hub
from ..errors import HubError


def fetch_config(repo_id: str, revision: str | None) -> Path:
    """A folder with the `config.json` of a Hub repository, and perhaps nothing else; what is whole in the cache is used
    without asking the Hub.

    Raises:
        HubError: it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    cached = find_snapshot(repo_id, revision)
    if cached is not None and not cached.missing:
        return cached.folder
    try:
        with quiet_hub():
            return Path(hf_hub_download(repo_id, "config.json", revision=revision)).parent
    except (HTTPError, OSError) as error:
        raise explained(error, repo_id, revision) from error


def check_login(repo_id: str) -> None:
    """See that an upload can begin, before the work whose result it would carry.

    Raises:
        HubError: `repo_id` is not one, nobody is logged in, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError

    if not is_hub_id(repo_id):
        raise HubError(f'{repo_id!r} is not a Hub id: give "name/repository"')
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError:
        raise HubError("uploading needs an access token that may write: run `hf auth login`") from None
    except (HTTPError, OSError, json.JSONDecodeError) as error:
        raise explained(error, repo_id, None) from error


def upload_folder(folder: Path, repo_id: str) -> None:
    """Upload every file of `folder`; the repository is made if it does not exist.

    Raises:
        HubError: the Hub refused or could not be reached. The folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        api = HfApi()
        api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Converted by gemma4-mlx")
    except (HTTPError, OSError, RuntimeError, json.JSONDecodeError) as error:  # hf_xet raises RuntimeError
        reason = explained(error, repo_id, None)
        raise HubError(f"{reason}; the checkpoint is in {folder}, `hf upload {repo_id} {folder}` sends it") from error
