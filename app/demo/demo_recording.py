"""The recording the demonstration plays to its model: a voice it has never heard (whose, says recording.txt)."""

from __future__ import annotations

from pathlib import Path

RECORDING = Path(__file__).with_name("recording.flac")


def what_is_said() -> str:
    """In the recording, as the model should write it down."""
    return RECORDING.with_suffix(".txt").read_text(encoding="utf-8").partition("\n")[0]
