"""Where a picture, a sound or a video comes from: a path, a URL or bytes, made into something a decoder can open.

Knows nothing about what is inside; it names the source so that every later error can.
"""

from __future__ import annotations

import io
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from ..errors import reason as reason
from .downloads import decoded_data_url, download, shown_address


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


FileSource = str | Path | bytes | bytearray | memoryview | Source
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
        source: a path (`~` is the home folder), a `file:`, `http:`, `https:` or `data:` URL, or the bytes of a file.
        kind: "picture", "sound" or "video", for errors.

    Raises:
        InputError: there is no such file, it is a folder, it is empty, or it cannot be downloaded.
    """
    if isinstance(source, Source):
        return _checked(source, kind)
    name = source_name(source, kind)
    if isinstance(source, bytes | bytearray | memoryview):
        return _checked(Source(name, bytes(source)), kind)
    if not isinstance(source, str | Path):
        raise InputError(f"{name} cannot be a {type(source).__name__}: give a path, a URL or the bytes of a file")
    if isinstance(source, str):
        scheme = source.partition(":")[0].lower()
        if scheme in ("http", "https", "data"):
            fetch = decoded_data_url if scheme == "data" else download
            return _checked(Source(name, fetch(source, name)), kind)
        if scheme == "file":
            source = urllib.request.url2pathname(urllib.parse.urlsplit(source).path)
    return _checked(Source(name, _regular_file(Path(source), name, kind)), kind)


def source_name(source: object, kind: str) -> str:
    """What an error calls a source: a path or URL on one line, or words for what has no name."""
    if isinstance(source, Source):
        return source.name
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the {kind} given as bytes"
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
