"""Files of a person: small texts read within a bound; what they would miss is put in place when it is whole."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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


def read_small_text(path: Path) -> str:
    """A text that a person wrote or a program printed. It may come from a pipe, so only reading shows how long it is.

    Raises:
        InputError: it is longer than any of its kind.
        UnicodeDecodeError: it is no UTF-8.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        content = stream.read(_MOST_TEXT + 1)
    if len(content) > _MOST_TEXT:
        raise InputError(f"{path} is larger than {_MOST_TEXT >> 20} MB: give the right file, or a part of it")
    return content.decode("utf-8")


_MOST_TEXT = 16 << 20


def write_whole(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Put a file in place all at once: never half of it, and what was there before stays until then.

    Args:
        private: only its owner can read it.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    # Never through a link that somebody planted there. Not `mkstemp`: what it makes is for its owner alone, and a
    # transcript in a shared folder is not.
    unfinished = unfinished_name(path)
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


def unfinished_name(path: Path) -> Path:
    """Where to write what is to be put in the place of `path`: beside it, under a name that nobody can guess."""
    return path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")


def remove_unfinished(path: Path) -> None:
    """Remove what crashes have left under such names. Nobody else may be writing to `path` meanwhile."""
    name = re.compile(re.escape(f".{path.name[:200]}.") + "[0-9a-f]{16}")
    for file in path.parent.iterdir():
        if name.fullmatch(file.name):
            file.unlink(missing_ok=True)


def append(file: int, data: bytes, sync: bool = False) -> None:
    """All of `data` at the end of a file, or nothing of it; with `sync` it is on disk then. Raises OSError."""
    size = os.fstat(file).st_size
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
        if sync:
            os.fsync(file)  # some disks say only now that they are full
    except BaseException:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """In the body, no other process that asks for the same folder is in its own; those wait. Not to be nested."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
