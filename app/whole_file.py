"""Files that a person would miss: written beside their place, and put there when they are whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from gemma4_mlx.errors import InputError


def check_free(path: Path, overwrite: bool, recordings: Iterable[os.stat_result] = ()) -> None:
    """Refuse to write where something would be lost. What is no file, such as /dev/stdout, has nothing to lose.

    Args:
        overwrite: the person means to replace what is there; never a recording that is being read.

    Raises:
        InputError: something is there.
    """
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder: move it, or write somewhere else")
    if path.exists() and any(os.path.samestat(path.stat(), recording) for recording in recordings):
        raise InputError(f"{path} is the recording itself: write to another name or folder")
    if not overwrite and (path.is_file() or not path.exists()):
        raise InputError(f"{path} is there already: --overwrite replaces it")


def write_whole(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Put a file in place all at once: never half of it, and what was there before stays until then.

    Args:
        private: only its owner can read it.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    # A name that nobody can guess, and never through a link that somebody planted there. Not `mkstemp`: what it makes
    # is for its owner alone, and a transcript in a shared folder is not.
    unfinished = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
