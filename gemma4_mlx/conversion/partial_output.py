"""A folder that appears whole or not at all, and work on it that can be taken up again.

Beside the target `out` stands `out.partial/` while work goes on: `model/` grows into the output, and `progress.json`
records each file that is finished, with size and SHA-256. The end is one rename of `model/` to `out`.

An archive may bring an `out.partial` of its own, with links in it. Nothing is read, written or deleted through one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from types import TracebackType

from ..errors import CheckpointError

_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK)


class PartialOutput:
    """The unfinished form of a folder; a context manager that holds it against a second writer.

    Args:
        target: the folder to be made.
        fingerprint: of everything the output depends on. Work begun under another one is begun again.

    Attributes:
        target: as given.
        folder: where the files go until `publish`.

    Raises (on entering):
        CheckpointError: the target exists, cannot be written, or is being written by another process.
    """

    def __init__(self, target: Path, fingerprint: str):
        self.target = target
        self._fingerprint = fingerprint
        self._place = target.with_name(f"{target.name}.partial")
        self._progress = self._place / "progress.json"
        self._finished: dict[str, dict[str, object]] = {}
        self._lock: int | None = None
        self.folder = self._place / "model"

    def __enter__(self) -> PartialOutput:
        if os.path.lexists(self.target):
            raise CheckpointError(f"{self.target} exists already: remove it, or name another folder")
        _refuse_links(self._place)
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._place, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise CheckpointError(f"cannot write {self.target} ({error.strerror}): name another folder") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            raise CheckpointError(f"{self.target} is being written by another conversion: wait for it") from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:  # a network volume without locks is used without one
                self._release()
                raise
        try:
            self._take_up()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_up(self) -> None:
        """Keep what an earlier run finished, if it was on the way to the same output; clear the rest away."""
        _refuse_links(self._place, self.folder)
        found = sorted(path.name for path in self._place.iterdir())
        if not self._progress.is_file():
            # progress.json is the first thing written and the last removed: without it this folder is somebody else's.
            if found not in ([], ["progress.json.new"]):
                raise CheckpointError(f"{self._place} is in the way and not an interrupted conversion: remove it")
        else:
            fingerprint, files = _read_progress(self._progress)
            if fingerprint == self._fingerprint:
                self._finished = files
            else:
                shutil.rmtree(self.folder, ignore_errors=True)  # which follows no links
        self._save()
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            if path.name not in self._finished:
                path.unlink()

    def is_finished(self, name: str) -> bool:
        """Whether an earlier run finished the file `name` and it still is what it was then."""
        record, path = self._finished.get(name), self.folder / name
        return record is not None and path.is_file() and record == _record(path)

    def finish(self, name: str) -> None:
        """Record that the file `name` is complete."""
        self._finished[name] = _record(self.folder / name)
        self._save()

    def publish(self) -> None:
        """Turn the finished work into the target.

        Raises:
            CheckpointError: something has taken the target's name meanwhile.
        """
        if os.path.lexists(self.target):
            raise CheckpointError(f"{self.target} has appeared meanwhile: remove it and run the same again")
        for path in self.folder.iterdir():
            _sync(path)
        _sync(self.folder)
        self.folder.rename(self.target)
        _sync(self.target.parent)
        shutil.rmtree(self._place)

    def _save(self) -> None:
        new = self._place / "progress.json.new"
        new.write_text(json.dumps({"fingerprint": self._fingerprint, "files": self._finished}))
        _sync(new)
        new.replace(self._progress)


def _refuse_links(place: Path, folder: Path | None = None) -> None:
    """Make sure that `place` and what is in it, and in `folder` in it, are files and folders of their own.

    Raises:
        CheckpointError: one is a link, or a folder where a file should be.
    """
    entries = list(place.iterdir()) if place.is_dir() and not place.is_symlink() else []
    files = [path for path in entries if path != folder]
    if folder in entries and folder.is_dir() and not folder.is_symlink():
        files += folder.iterdir()
    links = [path for path in (place, *entries, *files) if path.is_symlink()]
    if folder is not None:
        links += [path for path in files if not path.is_symlink() and not path.is_file()]
    if links:
        raise CheckpointError(
            f"{place} is in the way and not an interrupted conversion ({links[0]} is a link or a folder): remove it"
        )


def remove_leftovers(target: Path, fingerprint: str) -> bool:
    """Whether `target` is whole and comes from a run of this fingerprint that was stopped right after its last rename.

    What that run left beside it is removed then.
    """
    place = target.with_name(f"{target.name}.partial")
    progress = place / "progress.json"
    if not target.is_dir() or (place / "model").exists() or not progress.is_file():
        return False
    _refuse_links(place)
    if _read_progress(progress)[0] != fingerprint:
        return False
    shutil.rmtree(place)
    return True


def _read_progress(path: Path) -> tuple[str, dict[str, dict[str, object]]]:
    try:
        progress = json.loads(path.read_text())
        return progress["fingerprint"], progress["files"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path} is damaged: remove {path.parent} and run the same again") from None


def _record(path: Path) -> dict[str, object]:
    with path.open("rb") as stream:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _sync(path: Path) -> None:
    """Have the disk hold what was written; where a volume cannot do that for a folder, its own care has to do."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if sys.platform == "darwin":  # there fsync(2) leaves it to the drive when it writes
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)
