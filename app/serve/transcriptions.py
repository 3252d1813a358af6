"""`POST /v1/audio/transcriptions` and `/translations`: a recording of any length, written down."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Message

from .chat import server_event
from .engine import Engine, Job
from .fields import Fields, check_size, too_large
from .refusals import Refusal, check_speech, json_response, refusal_of

if TYPE_CHECKING:
    from gemma4_mlx.speech import Segment, Transcription

MOST_FILE_BYTES = 512 * 2**20
_FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
# What clients send and what changes nothing here.
_IGNORED = ("model", "prompt", "temperature", "chunking_strategy")


@dataclass(frozen=True)
class _Asked:
    """What a client asks for."""

    language: str | None
    translate_to: str | None
    words: tuple[str, ...]
    format: str
    stream: bool


class Transcriptions:
    """The two endpoints.

    Args:
        engine: listens.
        translate_to: for the one that translates.
    """

    def __init__(self, engine: Engine, translate_to: str | None) -> None:
        self._engine = engine
        self._translate_to = translate_to

    async def __call__(self, request: Request) -> Response:
        """Write a recording down. Raises Refusal."""
        check_size(request, MOST_FILE_BYTES)
        bounded = Request(request.scope, _bounded(request.receive))
        form = await bounded.form(max_files=1, max_fields=32, max_part_size=2**16)
        try:
            asked, file = self._read(form)
            folder = await asyncio.to_thread(_kept, file)
        finally:
            await form.close()
        news: asyncio.Queue[Segment | None] = asyncio.Queue()
        try:
            job, done = self._engine.job(self._work(folder, file.filename or "the file", asked, news))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if asked.stream:
            return StreamingResponse(self._stream(job, done, news), media_type="text/event-stream")
        watching = asyncio.create_task(_stop_when_gone(job, request))
        try:
            return _response(await asyncio.shield(done), asked)
        except Exception as error:
            raise refusal_of(error) from error
        finally:
            job.stop()
            watching.cancel()

    def _read(self, form: FormData) -> tuple[_Asked, UploadFile]:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Refusal("file: is missing: send a recording as multipart/form-data", param="file")
        granularities = [*form.getlist("timestamp_granularities[]"), *form.getlist("timestamp_granularities")]
        if any(value != "segment" for value in granularities):
            raise Refusal("timestamp_granularities: only segment is supported", param="timestamp_granularities")
        if form.getlist("include[]") or form.getlist("include"):
            raise Refusal("include: is not supported here: leave it out", param="include")
        words = [value for name in ("keywords[]", "keywords") for value in form.getlist(name) if isinstance(value, str)]
        known = {name: value for name, value in form.items() if isinstance(value, str) and value}
        fields = Fields(known)
        fields.ignore("timestamp_granularities[]", "timestamp_granularities", "keywords[]", "keywords", *_IGNORED)
        language = fields.take("language", str) if self._translate_to is None else None
        stream = fields.choice("stream", ("true", "false", "True", "False")) or "false"
        kind = fields.choice("response_format", _FORMATS) or "json"
        fields.end()
        streams = stream.lower() == "true"
        if streams and kind not in ("json", "text"):
            raise Refusal("response_format: a stream is json", param="response_format")
        check_speech(language, self._translate_to, words, "keywords")
        return _Asked(language, self._translate_to, tuple(words), kind, streams), file

    def _work(
        self, folder: Path, name: str, asked: _Asked, news: asyncio.Queue[Segment | None]
    ) -> Callable[[Callable[[], bool]], Transcription]:
        loop = asyncio.get_running_loop()

        def listen(should_stop: Callable[[], bool]) -> Transcription:
            import gemma4_mlx as g4
            from gemma4_mlx.processing.sources import Source

            def progress(at: float, length: float | None, segment: Segment | None) -> None:
                if segment is not None:
                    loop.call_soon_threadsafe(news.put_nowait, _shown(segment, asked.translate_to))

            source = Source(Path(name).name, folder / "sound")
            try:
                result = g4.transcribe(
                    self._engine.model,
                    self._engine.processor,
                    source,
                    asked.language,
                    asked.translate_to,
                    progress,
                    words=asked.words,
                    should_stop=should_stop,
                )
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            if asked.translate_to is None:
                return result
            segments = tuple(_shown(segment, asked.translate_to) for segment in result.segments)
            return replace(result, text=result.translation or "", segments=segments, translation=None)

        return listen

    async def _stream(
        self, job: Job, done: asyncio.Future[Transcription], news: asyncio.Queue[Segment | None]
    ) -> AsyncIterator[bytes]:
        done.add_done_callback(lambda _: news.put_nowait(None))
        said = ""
        try:
            while (segment := await news.get()) is not None:
                delta = f" {segment.text}" if said else segment.text
                said += delta
                yield server_event({"type": "transcript.text.delta", "delta": delta})
            try:
                result = done.result()
            except Exception as error:
                yield server_event({"type": "error", **refusal_of(error).body()})
                return
            yield server_event({"type": "transcript.text.done", "text": result.text, "usage": _usage(result)})
        finally:
            job.stop()


def _response(result: Transcription, asked: _Asked) -> Response:
    match asked.format:
        case "text":
            return PlainTextResponse(f"{result.text}\n")
        case "srt":
            return PlainTextResponse(result.srt(), media_type="application/x-subrip")
        case "vtt":
            return PlainTextResponse(result.vtt(), media_type="text/vtt")
        case "json":
            return json_response({"text": result.text, "usage": _usage(result)})
    segments = [
        {"id": number, "start": round(s.start, 3), "end": round(s.end, 3), "text": s.text}
        for number, s in enumerate(result.segments)
    ]
    return json_response(
        {
            "task": "transcribe" if asked.translate_to is None else "translate",
            "language": result.language or "unknown",
            "duration": round(result.duration, 3),
            "text": result.text,
            "segments": segments,
            "usage": _usage(result),
        }
    )


def _shown(segment: Segment, translate_to: str | None) -> Segment:
    """A segment as the client asked for it."""
    return segment if translate_to is None else replace(segment, text=segment.translation or "", translation=None)


def _usage(result: Transcription) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(result.duration, 3)}


def _bounded(receive: Callable[[], Any]) -> Callable[[], Any]:
    """Receive no more than a file may have."""
    left = MOST_FILE_BYTES

    async def bounded() -> Message:
        nonlocal left
        message: Message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_large(MOST_FILE_BYTES)
        return message

    return bounded


def _kept(file: UploadFile) -> Path:
    """A folder with the file in it, which outlives the request."""
    folder = Path(tempfile.mkdtemp(prefix="gemma4-mlx-"))
    try:
        file.file.seek(0)
        with (folder / "sound").open("wb") as copy:
            shutil.copyfileobj(file.file, copy)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


async def _stop_when_gone(job: Job, request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.stop()
