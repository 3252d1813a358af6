"""What has been written down of a long recording, on disk until it is finished: an interrupted run goes on there."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..whole_file import write_whole
from .transcript_formats import json_line

if TYPE_CHECKING:
    from gemma4_mlx.speech import Segment


class UnfinishedTranscript:
    """The segments of one recording so far, beside the file the result will be in.

    Args:
        target: where the result will be.
        about: what must be the same for a later run to go on: the recording, the languages, the words, the model.
    """

    def __init__(self, target: Path, about: Mapping[str, object]) -> None:
        self._path = target.with_name(f".{target.name}.unfinished")
        self._about = dict(about)
        self._lines: list[str] = []  # to be written before the next segment
        self._gave_up = False

    def segments(self) -> list[Segment]:
        """Those of an earlier run that was about the same; what is left of any other is dropped."""
        from gemma4_mlx.speech import Segment

        found: list[Segment] = []
        try:
            about, *lines = map(json.loads, _whole_lines(self._path))
            if about == self._about:
                found = [Segment(**line) for line in lines]
        except (OSError, ValueError, TypeError):
            pass  # none, or not one of ours
        # Before the first segment there is nothing to keep, and no file: a full disk is met with something in hand.
        self._lines = [json_line(self._about), *(json_line(asdict(segment)) for segment in found)]
        return found

    def add(self, segment: Segment) -> None:
        """One more; on disk when this returns.

        Raises:
            OSError: it cannot be written. Nothing is left on disk, and nothing more is written: the recording can
                still be finished, only not be gone on with.
        """
        if self._gave_up:
            return
        try:
            if self._lines:  # in place of what half a crash or another recording left
                write_whole(self._path, "".join([*self._lines, json_line(asdict(segment))]))
            else:
                with open(self._path, "a", encoding="utf-8", opener=_never_through_a_link) as file:
                    file.write(json_line(asdict(segment)))
        except OSError:
            self._gave_up = True
            self.forget()
            raise
        self._lines = []

    def forget(self) -> None:
        """The recording is finished."""
        self._path.unlink(missing_ok=True)


def _never_through_a_link(path: str, flags: int) -> int:
    """The name is known beforehand, and somebody may have planted something there."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _whole_lines(path: Path) -> list[str]:
    # A crash may have left half a line at the end.
    with open(path, encoding="utf-8", opener=_never_through_a_link) as file:
        text = file.read() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else ""
    return text[: text.rfind("\n") + 1].splitlines()
