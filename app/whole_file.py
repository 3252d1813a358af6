"""Files that a person would miss: written beside their place, and put there when they are whole."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


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
