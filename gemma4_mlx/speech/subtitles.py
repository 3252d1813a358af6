"""Segments of speech → SubRip (.srt) and WebVTT (.vtt) text. Pure: nothing is written to disk here.

The model gives no times within a segment. A segment too long to be read as one caption is shared out over several, each
as long as its share of the letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

# Two lines of 42 characters: the common limit for subtitles.
_MOST_CHARACTERS = 84
_LEAST_SECONDS = 0.001

VTT_HEADER = "WEBVTT\n\n"


class Spoken(Protocol):
    """A segment, or a final event: what was said from `start` to `end` (seconds)."""

    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def text(self) -> str: ...
    @property
    def translation(self) -> str | None: ...


@dataclass(frozen=True)
class Caption:
    """What is shown at one time: the words, and below them their translation, if there is one."""

    start: float
    end: float
    lines: tuple[str, ...]


def captions(segment: Spoken) -> Iterator[Caption]:
    """One segment as captions; none for a segment without words."""
    texts = [" ".join(text.split()) for text in (segment.text, segment.translation or "")]
    texts = [text for text in texts if text]
    count = max((-(-len(text) // _MOST_CHARACTERS) for text in texts), default=0)
    parts = [_shared_out(text, count) for text in texts]
    rows = [tuple(part[i] for part in parts if part[i]) for i in range(count)]
    rows = [row for row in rows if row]
    letters = [sum(map(len, row)) for row in rows]
    length = max(segment.end - segment.start, _LEAST_SECONDS * len(rows))
    done = 0
    for row, share in zip(rows, letters, strict=True):
        start = segment.start + length * done / sum(letters)
        done += share
        yield Caption(start, segment.start + length * done / sum(letters), row)


def srt_cue(number: int, caption: Caption) -> str:
    """One numbered caption of an .srt file, the empty line after it included."""
    # An arrow between dashes is what a parser knows a line of times by.
    text = "\n".join(line.replace("-->", "→") for line in caption.lines)
    return f"{number}\n{_time(caption.start, ',')} --> {_time(caption.end, ',')}\n{text}\n\n"


def vtt_cue(caption: Caption) -> str:
    """One caption of a .vtt file, the empty line after it included; the file begins with `VTT_HEADER`."""
    escaped = (line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in caption.lines)
    text = "\n".join(escaped)
    return f"{_time(caption.start, '.')} --> {_time(caption.end, '.')}\n{text}\n\n"


def to_srt(segments: Iterable[Spoken]) -> str:
    """A whole .srt file."""
    every = (caption for segment in segments for caption in captions(segment))
    return "".join(srt_cue(number, caption) for number, caption in enumerate(every, start=1))


def to_vtt(segments: Iterable[Spoken]) -> str:
    """A whole .vtt file."""
    return VTT_HEADER + "".join(vtt_cue(caption) for segment in segments for caption in captions(segment))


def _shared_out(text: str, count: int) -> list[str]:
    """`text` in `count` runs of whole words, about equally long; text without spaces is cut between characters."""
    words = text.split(" ")
    pieces, space = (words, " ") if len(words) >= count else (list(text), "")
    runs: list[list[str]] = [[] for _ in range(count)]
    total = sum(len(piece) + len(space) for piece in pieces)
    at = 0
    for piece in pieces:
        # A word goes where its middle lies.
        runs[min(count - 1, int((at + len(piece) / 2) * count / total))].append(piece)
        at += len(piece) + len(space)
    return [space.join(run).strip() for run in runs]


def _time(seconds: float, separator: str) -> str:
    milliseconds = round(max(seconds, 0.0) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    second, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02}:{minutes:02}:{second:02}{separator}{milliseconds:03}"
