"""Where a picture, a sound or a video comes from: a path, a URL, an open file or bytes, for a decoder to open.

Knows nothing about what is inside; it names the source so that every later error can.
"""

from __future__ import annotations

import io
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from ..errors import InputError
from ..errors import reason as reason
from .downloads import decoded_data_url, download, shown_address
from .limits import OPEN_FILE_BYTES


@dataclass(frozen=True)
class Source:
    """A file on disk or bytes in memory, with the name errors call it by.

    Attributes:
        name: what the user called it, or what it is (for bytes).
        content: an absolute path of a regular file, or the bytes.
    """

    name: str
    content: Path | bytes

    def open(self) -> BinaryIO:
        """A binary stream at its start; the caller closes it.

        Raises:
            InputError: the file went away or may not be read.
        """
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        try:
            return self.content.open("rb")
        except OSError as error:
            raise InputError(f"{self.name} cannot be read ({reason(error)}): check the file") from error


class _HasRead(type(Protocol)):  # type: ignore[misc]
    def __instancecheck__(cls, instance: object) -> bool:
        # Temporary files have `read` from the file within, where Protocol's own check does not look.
        return callable(getattr(instance, "read", None))


@runtime_checkable
class OpenFile(Protocol, metaclass=_HasRead):
    """A file opened in binary, `io.BytesIO`, or anything else that is read like them."""

    def read(self, size: int = ..., /) -> Any:
        """The next bytes, none at its end."""


FileSource = str | Path | bytes | bytearray | memoryview | OpenFile | Source
"""What a person names; or what has been found and named already."""


@dataclass(frozen=True)
class Pipe:
    """A binary stream that can be read once.

    Attributes:
        name: what errors call it.
        stream: where its bytes come from.
    """

    name: str
    stream: BinaryIO

    def open(self) -> BinaryIO:
        """The stream itself."""
        return self.stream


def resolve_source(source: FileSource, kind: str) -> Source:
    """Find `source`, without decoding it.

    Args:
        source: a path (`~` is the home folder), a `file:`, `http:`, `https:` or `data:` URL, the bytes of a file, or an
            open file. One that can be wound back is read from its start, and may be given again; it stays open.
        kind: "picture", "sound" or "video", for errors.

    Raises:
        InputError: there is no such file, it is a folder, it is empty, or it cannot be downloaded or read.
    """
    if isinstance(source, Source):
        return _checked(source, kind)
    name = source_name(source, kind)
    if isinstance(source, bytes | bytearray | memoryview):
        return _checked(Source(name, bytes(source)), kind)
    if isinstance(source, OpenFile):
        return _checked(Source(name, _read(source, name)), kind)
    if not isinstance(source, str | Path):
        raise InputError(f"{name} cannot be a {type(source).__name__}: give {FORMS}")
    if isinstance(source, str):
        scheme = source.partition(":")[0].lower()
        if scheme in ("http", "https", "data"):
            fetch = decoded_data_url if scheme == "data" else download
            return _checked(Source(name, fetch(source, name)), kind)
        if scheme == "file":
            source = urllib.request.url2pathname(urllib.parse.urlsplit(source).path)
    return _checked(Source(name, _regular_file(Path(source), name, kind)), kind)


FORMS = "a path, a URL, the bytes of a file, or a file opened with 'rb'"
"""What every kind of source may be, for errors."""


def _read(file: OpenFile, name: str) -> bytes:
    try:
        if getattr(file, "seekable", lambda: False)():
            file.seek(0)  # type: ignore[attr-defined]  # as Pillow does: what has only just been written counts
        pieces, left = [], OPEN_FILE_BYTES
        while left >= 0 and (piece := file.read(min(left + 1, 1 << 20))):
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise InputError(f"{name} does not give bytes but a {type(piece).__name__}: open it with 'rb'")
            pieces.append(bytes(piece))
            left -= len(piece)
    except (OSError, ValueError, TypeError) as error:  # a closed file is a ValueError
        raise InputError(f"{name} cannot be read ({reason(error)}): open it with 'rb'") from error
    if left < 0:
        raise InputError(f"{name} is larger than {OPEN_FILE_BYTES >> 20} MiB: save it and give the path")
    return b"".join(pieces)


def source_name(source: object, kind: str) -> str:
    """What an error calls a source: a path or URL on one line, or words for what has no name."""
    if isinstance(source, Source):
        return source.name
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the {kind} given as bytes"
    if isinstance(source, OpenFile):
        path = getattr(source, "name", None)  # a number, for what has no path
        source = path if isinstance(path, str) and path else source
    if not isinstance(source, str | Path):
        return f"the {kind}"
    name = shown_address(str(source))
    # A data URL holds a whole file, and a path may hold a line break.
    name = name if len(name) <= 300 else name[:60] + "…"
    return name if name.isprintable() else repr(name)


def _regular_file(path: Path, name: str, kind: str) -> Path:
    # Only looking at the disk shows a NUL, a name that is too long, or a home folder that is not there.
    try:
        path = path.expanduser().resolve()
        is_file, is_folder, exists = path.is_file(), path.is_dir(), path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is not a usable path ({reason(error)}): check the path of the {kind}") from error
    if is_folder:
        raise InputError(f"{name} is a folder, not a {kind}: give the file itself")
    if not exists:
        raise InputError(f"{name} does not exist: check the path of the {kind}")
    if not is_file:
        raise InputError(f"{name} is not a regular file: save the {kind} to a file first")
    return path


def _checked(source: Source, kind: str) -> Source:
    size = len(source.content) if isinstance(source.content, bytes) else source.content.stat().st_size
    if size == 0:
        raise InputError(f"{source.name} is empty (0 bytes): give a {kind} that has something in it")
    return source
