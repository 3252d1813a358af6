"""What has been written down of a long recording, on disk until it is finished: an interrupted run goes on there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .transcripts import json_line

if TYPE_CHECKING:
    from gemma4_mlx.speech import Segment


class UnfinishedTranscript:
    """The segments of one recording so far, beside the file the result will be in.

    Args:
        target: where the result will be.
        about: what must be the same for a later run to go on: the recording, the languages, the model.
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
        except (FileNotFoundError, ValueError, TypeError):
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
        # The first time all of it, in place of what half a crash or another recording left; then line by line.
        mode, text = ("a", "") if not self._lines else ("w", "".join(self._lines))
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(text + json_line(asdict(segment)))
        except OSError:
            self._gave_up = True
            self.forget()
            raise
        self._lines = []

    def forget(self) -> None:
        """The recording is finished."""
        self._path.unlink(missing_ok=True)


def _whole_lines(path: Path) -> list[str]:
    # A crash may have left half a line at the end.
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
