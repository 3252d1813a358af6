"""`gemma4-mlx serve` listens live: the events that dictation apps send and get over a WebSocket."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
import soxr
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from demo_inputs import RECORDINGS
from gemma4_mlx.processing.audio import load_audio
from served import address, wait_until_idle

TRANSCRIBED = "conversation.item.input_audio_transcription"


def opened(**headers: str) -> ClientConnection:
    return connect(f"ws://{urlsplit(address()).netloc}/v1/realtime?intent=transcription", additional_headers=headers)


def send(socket: ClientConnection, kind: str, **fields) -> None:
    socket.send(json.dumps({"type": kind, **fields}))


def until(socket: ClientConnection, kind: str) -> list[dict]:
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(socket.recv(timeout=30)))
    return events


def update(socket: ClientConnection, **given) -> dict:
    transcription = {"model": "demo", "language": "en"}
    audio = {"input": {"format": {"type": "audio/pcm", "rate": 24000}, "transcription": transcription, **given}}
    send(socket, "session.update", session={"type": "transcription", "audio": audio})
    return until(socket, "session.updated")[-1]["session"]


def spoken(number: int) -> np.ndarray:
    samples = soxr.resample(load_audio(RECORDINGS[number].path), 16_000, 24_000)
    silence = np.zeros(36_000, np.float32)
    return np.concatenate([silence[:12_000], samples, silence])


def speak(socket: ClientConnection, samples: np.ndarray) -> None:
    data = (samples * 32767).astype("<i2").tobytes()
    for start in range(0, len(data), 4800):
        send(socket, "input_audio_buffer.append", audio=base64.b64encode(data[start : start + 4800]).decode())


def test_what_is_said_comes_as_it_is_said_utterance_by_utterance():
    with opened() as socket:
        assert until(socket, "session.created")[-1]["session"]["type"] == "transcription"
        assert update(socket)["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        previous = None
        for number in (0, 1):
            speak(socket, spoken(number))
            events = until(socket, f"{TRANSCRIBED}.completed")
            kinds = [event["type"] for event in events]
            assert kinds[0] == "input_audio_buffer.speech_started"
            assert kinds[-3 if kinds[-2].endswith("delta") else -2] == "input_audio_buffer.committed"
            assert "input_audio_buffer.speech_stopped" in kinds
            deltas = "".join(event["delta"] for event in events if event["type"].endswith("delta"))
            assert events[-1]["transcript"] == RECORDINGS[number].transcript
            assert deltas == events[-1]["transcript"]
            assert len({event["item_id"] for event in events}) == 1
            [committed] = [event for event in events if event["type"].endswith("committed")]
            assert committed["previous_item_id"] == previous
            previous = committed["item_id"]


def test_without_turn_detection_the_client_says_when_it_is_over():
    with opened() as socket:
        assert update(socket, turn_detection=None)["audio"]["input"]["turn_detection"] is None
        speak(socket, spoken(0))
        send(socket, "input_audio_buffer.commit")
        assert until(socket, f"{TRANSCRIBED}.completed")[-1]["transcript"] == RECORDINGS[0].transcript
        speak(socket, spoken(1)[:30_000])
        send(socket, "input_audio_buffer.clear")
        until(socket, "input_audio_buffer.cleared")
        speak(socket, spoken(1))
        send(socket, "input_audio_buffer.commit")
        assert until(socket, f"{TRANSCRIBED}.completed")[-1]["transcript"] == RECORDINGS[1].transcript


def test_the_older_form_of_the_session_is_understood():
    with opened() as socket:
        session = {
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": "whisper-1", "language": "en", "keywords": ["MLX"]},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
        }
        send(socket, "transcription_session.update", session=session)
        assert until(socket, "transcription_session.updated")
        speak(socket, spoken(0))
        assert until(socket, f"{TRANSCRIBED}.completed")[-1]["transcript"] == RECORDINGS[0].transcript


def test_two_are_listened_to_at_once():
    def dictate(number: int) -> str:
        with opened() as socket:
            update(socket)
            speak(socket, spoken(number))
            return until(socket, f"{TRANSCRIBED}.completed")[-1]["transcript"]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(dictate, (0, 1))) == [RECORDINGS[0].transcript, RECORDINGS[1].transcript]
    wait_until_idle()


@pytest.mark.parametrize(
    "event",
    [
        "no json",
        "[]",
        '{"type": 1}',
        '{"type": "response.create"}',
        '{"type": "input_audio_buffer.append"}',
        '{"type": "input_audio_buffer.append", "audio": "AAA"}',
        '{"type": "input_audio_buffer.append", "audio": "QQ=="}',
        '{"type": "input_audio_buffer.commit"}',
        '{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}}',
        '{"type": "session.update", "session": {"instructions": "sing"}}',
        '{"type": "session.update", "session": {"audio": {"input": {"transcription": {"keywords": [1]}}}}}',
        '{"type": "session.update", "session": {"turn_detection": {"type": "semantic_vad"}}}',
    ],
)
def test_what_is_wrong_is_said_and_the_session_goes_on(event):
    with opened() as socket:
        until(socket, "session.created")
        socket.send(event)
        assert until(socket, "error")[-1]["error"]["type"] == "invalid_request_error"
        assert update(socket)


def test_a_page_of_another_origin_cannot_listen():
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        opened(Origin="https://evil.example").recv()


def test_who_leaves_in_the_middle_of_a_word_is_forgotten():
    for _ in range(3):
        with opened() as socket:
            update(socket)
            speak(socket, spoken(0)[:40_000])
    wait_until_idle()
