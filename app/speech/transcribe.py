"""`gemma4-mlx transcribe FILE`: recordings in, text, subtitles or JSON out, to stdout or one file each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gemma4_mlx.errors import Gemma4Error, InputError

from ..endings import FAILED, one_line
from ..models.model_choice import VARIABLE, open_model
from ..terminal import note, write
from ..whole_file import write_whole
from .file_progress import FileProgress
from .transcripts import SUFFIXES, Format, clock, json_line, recording_line, segment_fields
from .unfinished import UnfinishedTranscript

if TYPE_CHECKING:
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor
    from gemma4_mlx.speech import Segment, Transcription


@dataclass(frozen=True)
class FileOptions:
    """How recordings are listened to; what all of them have in common.

    Attributes:
        language, translate_to, threshold, silence, max_utterance: as for `gemma4_mlx.transcribe`.
    """

    language: str | None
    translate_to: str | None
    threshold: float
    silence: float
    max_utterance: float


def transcribe_files(
    files: list[str],
    options: FileOptions,
    *,
    format: Format,
    output_dir: Path | None,
    model_name: str | None,
) -> None:
    """Transcribe `files` in order. One that fails is reported and the next one goes on; at the end the command fails.

    Raises:
        typer.BadParameter: two results would have the same name.
        Gemma4Error: the model cannot be loaded.
        ValueError: a language that is not one.
        OSError: `output_dir` cannot be made, or stdout cannot be written to.
        SystemExit: a file failed.
    """
    from gemma4_mlx.speech.prompts import speech_prompt

    speech_prompt(
        options.language, options.translate_to
    )  # a misspelt language is worth knowing before gigabytes are loaded
    targets = _targets(files, output_dir, SUFFIXES[format])
    present = [file for file in files if _is_there(file)]
    failures = len(files) - len(present)
    if present:
        model, processor = open_model(model_name, hearing=True)
        for file in present:
            keep = partial(_keep, file, format, targets[file])
            unfinished = _unfinished(file, targets[file], (*astuple(options), model_name))
            try:
                _listen(model, processor, file, options, keep, unfinished)
            except (Gemma4Error, ValueError) as error:
                note(f"error: {one_line(error)}")
                failures += 1
    if failures:
        raise SystemExit(FAILED)


def _targets(files: list[str], output_dir: Path | None, suffix: str) -> dict[str, Path | None]:
    """Where each file's result goes; None is stdout."""
    if output_dir is None:
        return dict.fromkeys(files)
    targets: dict[str, Path | None] = {}
    for file in files:
        target = output_dir / f"{Path(file).stem}{suffix}"
        if target in targets.values():
            raise typer.BadParameter(f"two of the files would be written to {target}: give them in two runs")
        targets[file] = target
    output_dir.mkdir(parents=True, exist_ok=True)
    return targets


def _unfinished(file: str, target: Path | None, settings: tuple[object, ...]) -> UnfinishedTranscript | None:
    """What an interrupted run left of a file; None for what has no place on disk, or comes from elsewhere."""
    path = Path(file).expanduser()
    if target is None or not path.is_file():
        return None
    status = path.stat()
    about = {"file": str(path.resolve()), "size": status.st_size, "changed": status.st_mtime_ns}
    return UnfinishedTranscript(target, {**about, "settings": [*settings, os.environ.get(VARIABLE)]})


def _is_there(file: str) -> bool:
    from gemma4_mlx.processing.sources import resolve_source

    if file.startswith(("http://", "https://")):
        return True  # whether it is will be known once it is fetched, and that is done only once
    try:
        resolve_source(file, "sound")
    except InputError as error:
        note(f"error: {one_line(error)}")
        return False
    return True


def _listen(
    model: Gemma4,
    processor: Processor,
    file: str,
    options: FileOptions,
    keep: Callable[[Transcription], None],
    unfinished: UnfinishedTranscript | None,
) -> None:
    """Transcribe one file, showing how far it is, and `keep` the result; what is written down when it fails as well."""
    import gemma4_mlx as g4
    from gemma4_mlx.speech import Transcription, TranscriptionError

    heard: list[Segment] = [] if unfinished is None else unfinished.segments()
    if heard:
        note(f"note: {file}: going on at {clock(heard[-1].end)}, where an earlier run ended")
    before = tuple(heard)
    progress = FileProgress(Path(file).name, begun_at=before[-1].end if before else 0.0)

    def show(seconds: float, total: float | None, segment: Segment | None) -> None:
        progress.show(seconds, total)
        if segment is not None:
            heard.append(segment)
            if unfinished is not None:
                _remember(unfinished, segment, file)

    try:
        with progress:
            result = g4.transcribe(model, processor, file, on_progress=show, after=before, **asdict(options))
    except TranscriptionError as error:
        keep(error.partial)
        if unfinished is not None:
            unfinished.forget()  # it would break at the same place again
        raise
    except BaseException:  # Ctrl-C, or memory ran out: an hour of text must not be lost with it
        if heard:
            text = " ".join(segment.text for segment in heard)
            translation = " ".join(segment.translation or "" for segment in heard) if options.translate_to else None
            note(f"note: {file}: only the first {clock(heard[-1].end)} were transcribed")
            try:
                keep(Transcription(text, tuple(heard), options.language, heard[-1].end, translation))
            except InputError as error:  # said, but not in place of what ended the run
                note(f"error: {one_line(error)}")
        raise
    if unfinished is not None:
        unfinished.forget()  # what cannot be written to its file goes to stdout
    keep(result)
    if not result.segments:
        note(f"note: {file}: no speech in it")
    if doubtful := [clock(segment.start) for segment in result.segments if segment.doubtful]:
        note(f"note: {file}: the model may have made up what it wrote at {', '.join(doubtful)}")


def _remember(unfinished: UnfinishedTranscript, segment: Segment, file: str) -> None:
    try:
        unfinished.add(segment)
    except OSError as error:
        note(f"note: {file}: an interrupted run could not be gone on with ({one_line(error)}): make room on the disk")


def _keep(file: str, format: Format, target: Path | None, result: Transcription) -> None:
    """Write a result to its file, or to stdout when it has none or cannot be written there.

    Raises:
        InputError: it could not be written to its file.
    """
    rendered = render(file, result, format)
    if target is None:
        write(sys.stdout, rendered)
        return
    try:
        write_whole(target, rendered)
    except OSError as error:
        write(sys.stdout, rendered)
        raise InputError(
            f"{target}: {error.strerror}; its text went to stdout instead: make room, or name another folder"
        ) from error


def render(file: str, result: Transcription, format: Format) -> str:
    """A finished transcription in any of the formats."""
    from gemma4_mlx.speech.subtitles import to_srt, to_vtt

    match format:
        case "text":
            return as_text(result)
        case "srt":
            return to_srt(result.segments)
        case "vtt":
            return to_vtt(result.segments)
        case "json":
            return as_json(file, result)
        case "jsonl":
            return "".join(json_line({"kind": "final", **segment_fields(segment)}) for segment in result.segments)


def as_json(file: str, result: Transcription) -> str:
    """A finished transcription as `recording_line` has it."""
    return recording_line(file, result.language, result.duration, result.text, result.translation, result.segments)


def as_text(result: Transcription) -> str:
    """What was said on one line; below it the translation, if one was asked for."""
    lines = [result.text] if result.translation is None else [result.text, result.translation]
    return "".join(f"{line}\n" for line in lines)
