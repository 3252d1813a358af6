"""The files that chats are kept in: made, locked, added to, and read with care."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from ..whole_file import write_whole

SUFFIX = ".jsonl"


def attachment_path(folder: Path, sha256: str, name: str) -> Path:
    """Where an attachment is kept; its suffix is kept so that other programs can open it."""
    suffix = Path(name).suffix.lower()
    return folder / "attachments" / (sha256 + (suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""))


def store(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all, unless it is there."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, data, private=True)


def create(folder: Path, name: str) -> tuple[str, int]:
    """A new session file, locked; under a longer name if there is one of this name."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        path = unused(folder / f"{name}{SUFFIX}")
        with suppress(FileExistsError):  # another chat began at this moment
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            lock(file)
            return path.stem, file


def unused(path: Path) -> Path:
    """This path, or one like it that no file has."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")  # no space: the name goes into a shell as it is
    return free


def lock(file: int) -> bool:
    """Whether this process has the file to itself now; until it is closed, or the process ends in any way."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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


def read_regular(path: Path, most: int, only: int = -1) -> bytes:
    """A file's content, or its first `only` bytes, if it is a regular file of at most `most` bytes and no link.

    A chat may come from somebody else, and what is beside it may be a link to a device without end, or a pipe that
    nobody writes to.

    Raises:
        OSError: it is not, or it cannot be read.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(file, "rb") as stream:
        check_regular(file, path, most)
        return stream.read(only)


def check_regular(file: int, path: Path, most: int) -> None:
    """Raise OSError unless an open file is a regular one of at most `most` bytes."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MB", str(path))
