"""One hostile file of each kind, read as the command line reads it: the medium or one line, soon and in little memory.

`bench/hostile_media.py` has 500 of them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "hostile_media.py"
TOO_LARGE = "refused: .* has more pixels than can be unpacked safely: .*make it smaller"
NOT_A_PICTURE = "refused: .* is not a picture: give a PNG, JPEG, WebP, HEIC or GIF file"
NOT_OPENED = "refused: .* is not a (sound|video) file that can be opened"
NO_FRAME = "refused: .* has no frame that can be decoded, or frames of more than 40 megapixels: .* again, smaller"

ENDS = {
    "huge-2147483647.png": TOO_LARGE,
    "huge-65535.gif": TOO_LARGE,
    "huge-65535.jpg": TOO_LARGE,
    "clear-10000.webp": TOO_LARGE,
    "many-chunks.png": "read",
    "loop.tiff": "read",
    "eps.png": NOT_A_PICTURE,
    "65535-16000.wav": r"refused: .* is damaged \(.*\): export or record it again",
    "endless.wav": "read",
    "tracks-200.mkv": "read",
    "packed-1048576.mkv": "refused: .* is longer than the 30 s that one message part can hold: use .* or cut it",
    "deep-moov.m4a": NOT_OPENED,
    "counts-stsz.m4a": NOT_OPENED,
    "picture.mp3": NOT_OPENED,
    "wait-m3u8.wav": NOT_OPENED,
    "file.m3u8": NOT_OPENED,
    "http-m3u8.mp4": NOT_OPENED,
    "laughs-mpd.mp4": NOT_OPENED,
    "swapped.mov": NO_FRAME,
    "huge.gif": NO_FRAME,
    "frames-10000.gif": "read",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """In a process of its own: it forks, and this one has threads."""
    kept = tmp_path_factory.mktemp("hostile") / "results.jsonl"
    subprocess.run([sys.executable, BENCH, "--results", kept, *ENDS], capture_output=True, timeout=600, check=False)
    return {name: result for name, *result in map(json.loads, kept.read_text().splitlines())}


@pytest.mark.parametrize("name", ENDS)
def test_a_hostile_file_ends_in_the_medium_or_in_one_line(name: str, results: dict[str, list[object]]) -> None:
    said, seconds, _, memory = results[name]
    assert re.match(ENDS[name], str(said)), said
    assert float(str(seconds)) < 5
    assert float(str(memory)) < 500e6
