"""`gemma4-mlx transcribe FILE`: recordings in, text, subtitles or JSON out, to stdout or one file each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gemma4_mlx.errors import Gemma4Error, InputError
from gemma4_mlx.shown import clock

from ..awake import kept_awake
from ..exit_codes import FAILED, one_line
from ..interrupts import Interrupts
from ..models.model_choice import VARIABLE, open_model
from ..printable import printable
from ..terminal import note, write
from ..whole_file import check_free, write_whole
from .file_progress import FileProgress
from .transcript_formats import SUFFIXES, Format, json_line, recording_line, segment_fields
from .unfinished_transcript import UnfinishedTranscript

if TYPE_CHECKING:
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor
    from gemma4_mlx.speech import Segment, Transcription


@dataclass(frozen=True)
class FileOptions:
    """How recordings are listened to; what all of them have in common.

    Attributes:
        language, translate_to, threshold, silence, max_utterance, words: as for `gemma4_mlx.transcribe`.
    """

    language: str | None
    translate_to: str | None
    threshold: float
    silence: float
    max_utterance: float
    words: list[str] | None = None


@kept_awake()
def transcribe_files(
    files: list[str],
    options: FileOptions,
    *,
    format: Format,
    output_dir: Path | None,
    overwrite: bool,
    model_name: str | None,
) -> None:
    """Transcribe `files` in order. One that fails is reported and the next one goes on; at the end the command fails.

    A file whose result would replace another is reported as well, before anything is loaded.

    Args:
        overwrite: results may replace what is there.

    Raises:
        typer.BadParameter: two results would have the same name, or subtitles of several files go to stdout.
        Gemma4Error: the model cannot be loaded.
        ValueError: a language that is not one, or words that cannot be used.
        OSError: `output_dir` cannot be made, or stdout cannot be written to.
        SystemExit: a file failed.
    """
    from gemma4_mlx.speech.prompts import speech_prompt

    # A misspelt language is worth knowing before gigabytes are loaded.
    speech_prompt(options.language, options.translate_to, options.words)
    several = output_dir is None and len(files) > 1
    if several and format in ("srt", "vtt"):
        raise typer.BadParameter(
            "subtitles of several files are several files: name a folder with --output-dir", param_hint="--format"
        )
    targets = _targets(files, output_dir, SUFFIXES[format])
    paths: dict[str, Path | None] = {}
    work = []
    for file in files:
        try:
            paths[file] = _path(file)
        except InputError as error:
            note(f"error: {one_line(error)}")
    recordings = [path.stat() for path in paths.values() if path is not None]
    for file in [file for file in files if file in paths]:
        target = targets[file]
        unfinished = _unfinished(paths[file], target, (*astuple(options), model_name))
        going_on = _is_what_an_interrupted_run_left(target, unfinished, file, options, format)
        check = partial(check_free, overwrite=overwrite or going_on, recordings=recordings)
        try:
            if target is not None:
                check(target)
            work.append((file, partial(_keep, file, format, target, check, named=several), unfinished))
        except InputError as error:
            note(f"error: {one_line(error)}")
    failures = len(files) - len(work)
    if work:
        model, processor = open_model(model_name, hearing=True)
        for file, keep, unfinished in work:
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


def _path(file: str) -> Path | None:
    """Where a recording is on disk; None for what comes from elsewhere. Raises InputError if there is none."""
    from gemma4_mlx.processing.sources import resolve_source

    if file.startswith(("http://", "https://")):
        return None  # whether it is there will be known once it is fetched, and that is done only once
    content = resolve_source(file, "sound").content
    return content if isinstance(content, Path) else None


def _unfinished(path: Path | None, target: Path | None, settings: tuple[object, ...]) -> UnfinishedTranscript | None:
    """What an interrupted run left of a file; None for what has no place on disk, or comes from elsewhere."""
    if target is None or path is None:
        return None
    status = path.stat()
    about = {"file": str(path.resolve()), "size": status.st_size, "changed": status.st_mtime_ns}
    return UnfinishedTranscript(target, {**about, "settings": [*settings, os.environ.get(VARIABLE)]})


def _is_what_an_interrupted_run_left(
    target: Path | None, unfinished: UnfinishedTranscript | None, file: str, options: FileOptions, format: Format
) -> bool:
    """Whether a result is there that Ctrl-C left and nobody has touched since: this run goes on from it."""
    if target is None or unfinished is None or not target.is_file():
        return False
    segments = unfinished.segments()
    with suppress(OSError, ValueError):
        return bool(segments) and target.read_text("utf-8") == render(file, _so_far(segments, options), format)
    return False


def _so_far(segments: list[Segment], options: FileOptions) -> Transcription:
    from gemma4_mlx.speech import Transcription

    text = " ".join(segment.text for segment in segments)
    translation = " ".join(segment.translation or "" for segment in segments) if options.translate_to else None
    return Transcription(text, tuple(segments), options.language, segments[-1].end, translation)


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
    from gemma4_mlx.speech import TranscriptionError

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
        with Interrupts() as interrupts, progress:
            result = g4.transcribe(
                *(model, processor, file), on_progress=show, after=before, should_stop=interrupts, **asdict(options)
            )
        if result.stopped:
            raise KeyboardInterrupt
    except TranscriptionError as error:
        keep(error.partial)
        if unfinished is not None:
            unfinished.forget()  # it would break at the same place again
        raise
    except BaseException:  # Ctrl-C, or memory ran out: an hour of text must not be lost with it
        if heard:
            note(f"note: {file}: only the first {clock(heard[-1].end)} were transcribed")
            try:
                keep(_so_far(heard, options))
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
    if interrupts.count:  # it was all written down by then: no further file
        raise KeyboardInterrupt


def _remember(unfinished: UnfinishedTranscript, segment: Segment, file: str) -> None:
    try:
        unfinished.add(segment)
    except OSError as error:
        note(f"note: {file}: once interrupted, this run cannot be continued ({one_line(error)}): make room on the disk")


def _keep(
    file: str,
    format: Format,
    target: Path | None,
    check: Callable[[Path], None],
    result: Transcription,
    *,
    named: bool,
) -> None:
    """Write a result to its file, or to stdout when it has none or cannot be written there.

    Args:
        check: raises InputError if something is in its place by now.
        named: several results go to stdout, and each says whose it is.

    Raises:
        InputError: it could not be written to its file.
    """
    rendered = render(file, result, format)
    if target is None:
        if named:
            rendered = _with_name(file, rendered, format)
        write(sys.stdout, rendered)
        return
    try:
        check(target)
        write_whole(target, rendered)
    except (InputError, OSError) as error:
        write(sys.stdout, rendered)
        if isinstance(error, InputError):
            raise InputError(f"{one_line(error)}; its text went to stdout instead") from error
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


def _with_name(file: str, rendered: str, format: Format) -> str:
    """A result each line of which says of which file it is, among those of other files."""
    match format:
        case "text":
            return "".join(f"{printable(file)}: {line}\n" for line in rendered.splitlines())
        case "jsonl":
            return "".join(json_line({"file": file, **json.loads(line)}) for line in rendered.splitlines())
        case _:  # the others do so by themselves
            return rendered


def as_json(file: str, result: Transcription) -> str:
    """A finished transcription as `recording_line` has it."""
    return recording_line(file, result.language, result.duration, result.text, result.translation, result.segments)


def as_text(result: Transcription) -> str:
    """What was said on one line; below it the translation, if one was asked for."""
    lines = [result.text] if result.translation is None else [result.text, result.translation]
    return "".join(f"{line}\n" for line in lines)
