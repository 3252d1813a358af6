"""What can go wrong between here and the Hub, in words; and huggingface_hub's own words kept off the terminal."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import HubError


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
