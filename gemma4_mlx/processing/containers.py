"""Sound and video files opened with PyAV, with its errors turned into ones that name the file.

What is read from them is up to `audio.py` and `video.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .sources import Pipe, Source, reason

if TYPE_CHECKING:
    from av.container import InputContainer


def _lenient_tags(pyav: str) -> dict[str, Any]:
    """What tells `av.open` of this version to accept titles and names that are not UTF-8; nobody reads them here.

    PyAV accepts them by itself from 19 on, and refuses this argument. 18 is the last that runs on Python 3.11.
    """
    return {"metadata_errors": "ignore"} if int(pyav.split(".")[0]) < 19 else {}


@contextmanager
def open_container(file: Source | Pipe, kind: str) -> Iterator[InputContainer]:
    """An open PyAV container; damage found while it is being read inside the `with` block is reported here too.

    Raises:
        InputError: the file is not sound or video, or breaks while it is read.
    """
    import av

    with file.open() as stream:
        try:
            # Read through a Python stream, with no protocols: a playlist that poses as a recording opens nothing else.
            container = av.open(stream, "r", options={"protocol_whitelist": ""}, **_lenient_tags(av.__version__))
        except av.FFmpegError as error:
            raise InputError(f"{file.name} is not a {kind} file that can be opened ({reason(error)})") from error
        with container:
            try:
                yield container
            # IndexError: PyAV loses count of the tracks when damage makes a new one appear half way.
            except (av.FFmpegError, IndexError) as error:
                raise InputError(f"{file.name} is damaged ({reason(error)}): export or record it again") from error
