"""How many scans a JPEG has, counted without decoding one.

A scan of a few bytes makes a decoder go over the whole picture once more, so a small file can take hours.
"""

from __future__ import annotations

import re

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# 0xFF and what is neither a stuffed zero, nor one of the markers without a length, nor more filling.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")


def jpeg_scans(content: bytes) -> int:
    """The scans of the first JPEG in `content`; what follows its end, such as a film, is not looked at."""
    scans, place = 0, 2
    while found := _MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN
        place += int.from_bytes(content[place : place + 2], "big")  # each of these has a length; it counts itself
    return scans
