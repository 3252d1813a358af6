"""Text files that a person names and that are read whole: bounded, for /dev/zero and a disk image are files too."""

from __future__ import annotations

from pathlib import Path

from gemma4_mlx.errors import InputError

_MOST_BYTES = 16 << 20


def small_text(path: Path) -> str:
    """What stands in a file, or comes out of a pipe.

    Raises:
        InputError: it is larger than 16 MB.
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    with path.open("rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise InputError(f"{path} is larger than {_MOST_BYTES >> 20} MB: give another file")
    return content.decode("utf-8")
