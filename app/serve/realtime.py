"""`WS /v1/realtime?intent=transcription`: live sound in, in OpenAI's form; what is said out, while it is being said.

The same `LiveTranscriber` as the microphone's. An utterance is an item: it begins and ends by the voice detector, or
with `turn_detection: null` by the client's commit.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from .engine import Engine
from .fields import Fields, parse_object
from .refusals import Refusal, check_speech, json_text, refusal_of

if TYPE_CHECKING:
    from gemma4_mlx.speech import Event, LiveTranscriber

RATE = 24_000
_BYTES_PER_SECOND = 2 * RATE
_MOST_SECONDS = 120
"""Of sound that waits to be listened to."""
_PIECE = _BYTES_PER_SECOND // 4
"""Sound of one job, in bytes: events tell when somebody began to speak to a quarter of a second."""
_SILENCE_MS = 700


class Realtime:
    """The endpoint.

    Args:
        engine: listens.
        model: its name.
    """

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine = engine
        self._model = model

    async def __call__(self, socket: WebSocket) -> None:
        """Serve one connection."""
        await socket.accept("realtime" if "realtime" in socket.scope.get("subprotocols", []) else None)
        session = _Session(socket, self._engine, self._model)
        listening: asyncio.Task[None] | None = None
        try:
            if socket.query_params.get("intent", "transcription") != "transcription":
                raise Refusal("intent: only transcription is supported", param="intent")
            await session.created()
            listening = asyncio.create_task(session.listen())
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                await session.take(message.get("text") or message.get("bytes") or "")
        except Refusal as refusal:
            await session.error(refusal, None)
            await socket.close(1008)
        except WebSocketDisconnect:
            pass
        finally:
            session.gone = True
            session.woken.set()
            if listening is not None:
                await asyncio.gather(listening, return_exceptions=True)


class _Session:
    """One connection.

    Attributes:
        gone: the client is.
        woken: there is something to listen to, or to do.
    """

    def __init__(self, socket: WebSocket, engine: Engine, model: str) -> None:
        self.gone = False
        self.woken = asyncio.Event()
        self._socket = socket
        self._engine = engine
        self._model = model
        self._id = f"sess_{secrets.token_hex(10)}"
        self._language: str | None = None
        self._translate_to: str | None = None
        self._words: list[str] = []
        self._detects_turns = True
        self._threshold = 0.5
        self._silence_ms = _SILENCE_MS
        self._waiting = bytearray()
        self._commits = 0
        self._live: LiveTranscriber | None = None
        self._should_stop: Callable[[], bool] = lambda: False
        self._item: str | None = None
        self._previous: str | None = None
        self._sent = ""  # of the item's text
        self._committed: list[str] = []  # finals of an item that the client has not committed
        self._heard = 0  # bytes since the last commit

    async def created(self) -> None:
        """Say hello."""
        await self._send("session.created", session=self._described())

    async def error(self, refusal: Refusal, event_id: str | None) -> None:
        """Say what is wrong."""
        await self._send("error", error={**refusal.body()["error"], "event_id": event_id})

    async def take(self, data: str | bytes) -> None:
        """An event of the client's. What is wrong with it is said, and the connection stays."""
        event_id = None
        try:
            event = Fields(parse_object(data))
            event_id = event.take("event_id", str)
            match event.take("type", str, needed=True):
                case "session.update" | "transcription_session.update" as kind:
                    self._update(event)
                    await self._send(f"{kind}d", session=self._described())
                case "input_audio_buffer.append":
                    self._append(event)
                case "input_audio_buffer.commit":
                    self._commit()
                case "input_audio_buffer.clear":
                    self._waiting.clear()
                    self._live, self._item, self._sent, self._heard = None, None, "", 0
                    self._committed.clear()
                    await self._send("input_audio_buffer.cleared")
                case kind:
                    raise Refusal(f"type: {kind[:60]} is not an event of a transcription", param="type")
        except Refusal as refusal:
            await self.error(refusal, event_id)
        self.woken.set()

    async def listen(self) -> None:
        """Listen to what has come, piece by piece, until the client is gone."""
        while not self.gone:
            await self.woken.wait()
            self.woken.clear()
            while not self.gone and (self._waiting or self._commits):
                try:
                    await self._listen_once()
                except Exception as error:
                    self._waiting.clear()
                    self._live, self._commits = None, 0
                    if not self.gone:
                        await self.error(refusal_of(error), None)

    async def _listen_once(self) -> None:
        if self._waiting:
            piece = bytes(self._waiting[:_PIECE])
            del self._waiting[: len(piece)]
            ends = False
        else:
            piece, ends, self._commits = b"", True, self._commits - 1
        job, done = self._engine.job(lambda should_stop: self._feed(piece, ends, should_stop), is_short=True)
        try:
            events, speaking, seconds = await done
        finally:
            job.stop()
        if not self.gone:
            await self._tell(events, speaking, seconds)
            if ends and not self._detects_turns:
                await self._end_item(" ".join(self._committed), None)
                self._committed.clear()

    def _feed(self, piece: bytes, ends: bool, should_stop: Callable[[], bool]) -> tuple[list[Event], bool, float]:
        """In the model's thread."""
        import gemma4_mlx as g4

        self._should_stop = should_stop
        live = self._live
        if live is None:
            live = self._live = g4.LiveTranscriber(
                self._engine.model,
                self._engine.processor,
                self._language,
                self._translate_to,
                rate=RATE,
                threshold=self._threshold,
                silence=self._silence_ms / 1000,
                words=self._words,
                backlog=lambda: len(self._waiting) / _BYTES_PER_SECOND,
                should_stop=lambda: self._should_stop() or self.gone,
            )
        events = live.feed(np.frombuffer(piece, "<i2")) if piece else []
        if ends:
            events += live.finish()
        return events, live.speaking, live.seconds

    async def _tell(self, events: list[Event], speaking: bool, seconds: float) -> None:
        for event in events:
            if self._detects_turns:
                await self._begin_item(event.start)
            if event.kind == "partial":
                if self._detects_turns:
                    await self._delta(event.certain)
            elif self._detects_turns:
                await self._send("input_audio_buffer.speech_stopped", item_id=self._item, audio_end_ms=_ms(event.end))
                await self._end_item(event.text, event.translation)
            elif event.text:
                self._committed.append(event.text)
        if not self._detects_turns:
            return
        if speaking:
            await self._begin_item(seconds)
        elif self._item is not None:  # it was nothing
            await self._send("input_audio_buffer.speech_stopped", item_id=self._item, audio_end_ms=_ms(seconds))
            await self._end_item("", None)

    async def _begin_item(self, start: float) -> None:
        if self._item is None:
            self._item = f"item_{secrets.token_hex(10)}"
            await self._send("input_audio_buffer.speech_started", item_id=self._item, audio_start_ms=_ms(start))

    async def _delta(self, certain: str) -> None:
        if certain.startswith(self._sent) and certain != self._sent:
            new, self._sent = certain[len(self._sent) :], certain
            kind = "conversation.item.input_audio_transcription.delta"
            await self._send(kind, item_id=self._item, content_index=0, delta=new)

    async def _end_item(self, text: str, translation: str | None) -> None:
        """What was said in an item: it is over."""
        self._item = self._item or f"item_{secrets.token_hex(10)}"
        await self._send("input_audio_buffer.committed", item_id=self._item, previous_item_id=self._previous)
        await self._delta(text)
        said = {"transcript": text, **({} if translation is None else {"translation": translation})}
        seconds, self._heard = round(self._heard / _BYTES_PER_SECOND, 3), 0
        await self._send(
            "conversation.item.input_audio_transcription.completed",
            item_id=self._item,
            content_index=0,
            **said,
            usage={"type": "duration", "seconds": seconds},
        )
        self._previous, self._item, self._sent = self._item, None, ""

    def _append(self, event: Fields) -> None:
        audio = event.take("audio", str, needed=True)
        event.end()
        try:
            sound = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError):
            event.refuse("audio", "is not base64")
        if len(sound) % 2:
            event.refuse("audio", "is not 16-bit sound: it has an odd number of bytes")
        if len(self._waiting) + len(sound) > _MOST_SECONDS * _BYTES_PER_SECOND:
            event.refuse("audio", f"{_MOST_SECONDS} s of sound wait already: send it as it is spoken")
        self._waiting += sound
        self._heard += len(sound)

    def _commit(self) -> None:
        if not self._heard and not self._waiting:
            raise Refusal("there is no sound to commit: append some first", code="input_audio_buffer_commit_empty")
        self._commits += 1

    def _update(self, event: Fields) -> None:
        """Take over what a client wants, all of it or nothing."""
        session = event.inner("session", needed=True)
        assert session is not None
        event.end()
        session.choice("type", ("transcription",))
        session.ignore("include", "id", "object", "expires_at")
        audio = session.inner("audio")
        if audio is not None:  # as it is now; before, these stood in the session itself
            given = audio.inner("input")
            audio.end()
        else:
            given = None
        flat = given is None
        fields = session if given is None else given
        form = session.take("input_audio_format", str) if flat else fields.take("format", dict, str)
        if isinstance(form, dict):
            inner = Fields(form, fields.name("format."))
            inner.choice("type", ("audio/pcm",))
            if inner.whole("rate", 1) not in (None, RATE):
                inner.refuse("rate", f"must be {RATE}")
            inner.end()
        elif form not in (None, "pcm16"):
            fields.refuse("input_audio_format", "must be pcm16")
        language, translate_to, words = self._language, self._translate_to, self._words
        transcription = fields.inner("input_audio_transcription" if flat else "transcription")
        if transcription is not None:
            language = transcription.take("language", str) or None
            translate_to = transcription.take("translate_to", str) or None
            words = transcription.take("keywords", list) or []
            transcription.ignore("model", "prompt")
            transcription.end()
        detects, threshold, silence_ms = self._detects_turns, self._threshold, self._silence_ms
        if fields.has_null("turn_detection"):
            detects = False
        elif (detection := fields.inner("turn_detection")) is not None:
            detection.choice("type", ("server_vad",))
            detects = True
            threshold = detection.number("threshold", 0.05, 0.95) or 0.5
            silence_ms = detection.whole("silence_duration_ms", 100, 10_000) or _SILENCE_MS
            detection.ignore("prefix_padding_ms", "create_response", "interrupt_response", "idle_timeout_ms")
            detection.end()
        fields.ignore("input_audio_noise_reduction" if flat else "noise_reduction")
        fields.end()
        session.end()
        check_speech(language, translate_to, words, "session.audio.input.transcription")
        settings = (language, translate_to, words, detects, threshold, silence_ms)
        asked = (self._language, self._translate_to, self._words)
        if settings != (*asked, self._detects_turns, self._threshold, self._silence_ms):
            self._language, self._translate_to, self._words = language, translate_to, words
            self._detects_turns, self._threshold, self._silence_ms = detects, threshold, silence_ms
            self._live = None

    def _described(self) -> dict[str, Any]:
        detection = {
            "type": "server_vad",
            "threshold": self._threshold,
            "silence_duration_ms": self._silence_ms,
        }
        transcription = {
            "model": self._model,
            "language": self._language,
            "translate_to": self._translate_to,
            "keywords": self._words,
        }
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": self._id,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": RATE},
                    "transcription": transcription,
                    "turn_detection": detection if self._detects_turns else None,
                }
            },
        }

    async def _send(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "event_id": f"event_{secrets.token_hex(10)}", **fields}
        try:
            await self._socket.send_text(json_text(event).encode(errors="replace").decode())
        except (RuntimeError, WebSocketDisconnect):
            self.gone = True


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
