"""Transcripts as text, subtitles or JSON, written while they grow: what has been heard is out before more is heard."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TextIO

from gemma4_mlx.speech.subtitles import VTT_HEADER, Spoken, captions, srt_cue, vtt_cue

from ..terminal import write

if TYPE_CHECKING:
    from gemma4_mlx.speech import Event

Format = Literal["text", "srt", "vtt", "json", "jsonl"]
SUFFIXES: dict[Format, str] = {"text": ".txt", "srt": ".srt", "vtt": ".vtt", "json": ".json", "jsonl": ".jsonl"}


class TranscriptWriter:
    """Writes events in one format to one stream; finals only, except in jsonl.

    JSON is one object, which nobody can read before its end: `close` writes it, in a file of its own every final does.

    Args:
        stream: stdout or an open file.
        is_file: `stream` is a file of this transcript alone, which may be written again from its beginning.
        name: what the JSON calls the sound.
        language: as the user gave it.
        translates: a translation was asked for.
    """

    def __init__(
        self, stream: TextIO, is_file: bool, format: Format, name: str, language: str | None, translates: bool
    ) -> None:
        self._stream = stream
        self._is_file = is_file
        self._name = name
        self._language = language
        self._translates = translates
        self._finals: list[Event] = []
        self._cues = 0
        self._duration = 0.0
        self._write: Callable[[Event], None] = {
            "text": self._text,
            "srt": self._srt,
            "vtt": self._vtt,
            "json": self._json,
            "jsonl": self._jsonl,
        }[format]
        self._is_one_object = format == "json"
        if format == "vtt":
            self._put(VTT_HEADER)

    def event(self, event: Event) -> None:
        """Take the next event."""
        if event.kind == "final" and (event.text or event.translation):
            self._finals.append(event)
        self._write(event)

    def close(self, duration: float) -> None:
        """The sound is over after `duration` seconds. The stream stays open."""
        self._duration = duration
        if self._is_one_object:
            self._put_object()

    def _text(self, event: Event) -> None:
        if event.kind == "final":
            self._put("".join(f"{line}\n" for line in (event.text, event.translation) if line))

    def _srt(self, event: Event) -> None:
        if event.kind == "final":
            for caption in captions(event):
                self._cues += 1
                self._put(srt_cue(self._cues, caption))

    def _vtt(self, event: Event) -> None:
        if event.kind == "final":
            self._put("".join(map(vtt_cue, captions(event))))

    def _jsonl(self, event: Event) -> None:
        self._put(json_line({"kind": event.kind, **segment_fields(event)}))

    def _json(self, event: Event) -> None:
        self._duration = max(self._duration, event.end)
        if event.kind == "final" and self._is_file:
            self._put_object()

    def _put_object(self) -> None:
        text = " ".join(event.text for event in self._finals if event.text)
        translation = " ".join(event.translation for event in self._finals if event.translation)
        line = recording_line(
            self._name, self._language, self._duration, text, translation if self._translates else None, self._finals
        )
        if self._is_file:
            self._stream.seek(0)
            self._stream.truncate()
        self._put(line)

    def _put(self, text: str) -> None:
        write(self._stream, text)


def json_line(fields: Mapping[str, object]) -> str:
    """One object on one line."""
    return json.dumps(fields, ensure_ascii=False) + "\n"


def recording_line(
    file: str,
    language: str | None,
    duration: float,
    text: str,
    translation: str | None,
    segments: Sequence[Spoken],
) -> str:
    """One line of JSON for a whole recording, as the command line's contract has it."""
    fields = {
        "file": file,
        "language": language,
        "duration": round(duration, 3),
        "text": text,
        "translation": translation,
        "segments": [segment_fields(segment) for segment in segments],
    }
    return json_line(fields)


def segment_fields(segment: Spoken) -> dict[str, object]:
    """A segment, or a final, as the command line's JSON has it."""
    return {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "translation": segment.translation,
    }
