"""The files that chats are kept in: made, locked, replaced, removed, and read with care."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ..whole_file import append, unfinished_name, write_whole

SUFFIX = ".jsonl"
_SHA256 = re.compile(rb"[0-9a-f]{64}")


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


def open_locked(path: Path) -> int | None:
    """A session's file, which this process has to itself now; None if another one has it. Raises OSError."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NONBLOCK)
        try:
            if not lock(file):
                os.close(file)
                return None
            if is_at(file, path):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # another process has just put a new one in its place


def is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one of that name. Raises OSError if there is none."""
    return os.path.samestat(os.fstat(file), path.stat())


def replace_content(file: int, path: Path, content: bytes) -> None:
    """Put a new session file in the place of one that this process has to itself; `file` is the new one then.

    At any moment there is the old one or the new one, and it is locked.

    Raises:
        OSError: it cannot be written; the old one is there.
    """
    path = Path(os.path.realpath(path))
    unfinished = unfinished_name(path)
    new = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        lock(new)
        append(new, content, sync=True)
        unfinished.replace(path)
        sync_folder(path.parent)
    finally:
        if is_at(new, path):  # also when Ctrl-C comes at this moment
            os.dup2(new, file, inheritable=False)
        os.close(new)
        unfinished.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have names that were changed in a folder on disk when this returns."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def damaged_copies(path: Path) -> Iterator[Path]:
    """What was kept of a session's file when it was found damaged."""
    numbered = re.compile(re.escape(path.stem) + r"(-\d+)?")
    for copy in path.parent.glob("*.damaged"):
        if numbered.fullmatch(copy.stem) and (copy.stem == path.stem or not copy.with_suffix(SUFFIX).exists()):
            yield copy


def sweep_attachments(folder: Path, instead: Mapping[Path, bytes]) -> None:
    """Remove every attachment that no chat names; the folder must be locked.

    Args:
        instead: what some of the sessions' files are going to hold.

    Raises:
        OSError: one cannot be removed, or a session's file cannot be read: nobody knows then what that needs.
    """
    try:
        kept = [file for file in (folder / "attachments").iterdir() if not file.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return
    if not kept:
        return
    named: set[bytes] = set()
    for path in (*folder.glob(f"*{SUFFIX}"), *folder.glob("*.damaged")):
        content = instead.get(path)
        if content is None:
            if not path.is_file():
                continue
            content = path.read_bytes()
        named.update(_SHA256.findall(content))
    for attachment in kept:
        if attachment.name[:64].encode() not in named:
            attachment.unlink(missing_ok=True)


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
