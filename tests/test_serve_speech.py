"""`gemma4-mlx serve` listens: recordings as OpenAI's own client sends them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

import gemma4_mlx as g4
from demo_inputs import RECORDINGS
from served import address, wait_until_idle


@pytest.fixture(scope="module")
def client():
    return openai.OpenAI(base_url=f"{address()}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def heard():
    return g4.transcribe(*g4.load("demo"), RECORDINGS[0].path, language="en")


def settings(**more) -> dict:
    return {"model": "demo", "file": RECORDINGS[0].path, "language": "en", **more}


def test_a_recording_is_written_down_in_every_form(client, heard):
    assert heard.text == RECORDINGS[0].transcript
    create = client.audio.transcriptions.create
    assert create(**settings()).text == heard.text
    assert create(**settings(), response_format="text").strip() == heard.text
    assert create(**settings(), response_format="srt") == heard.srt()
    assert create(**settings(), response_format="vtt") == heard.vtt()
    verbose = create(**settings(), response_format="verbose_json", timestamp_granularities=["segment"])
    assert verbose.duration == pytest.approx(heard.duration, abs=0.01)
    assert [segment.text for segment in verbose.segments] == [segment.text for segment in heard.segments]
    assert [segment.start for segment in verbose.segments] == pytest.approx([s.start for s in heard.segments], abs=0.01)


def test_a_stream_adds_up_to_the_text(client, heard):
    events = list(client.audio.transcriptions.create(**settings(), stream=True))
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == heard.text
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == heard.text


def test_a_recording_is_translated(client):
    translated = client.audio.translations.create(model="demo", file=RECORDINGS[0].path, response_format="verbose_json")
    assert translated.task == "translate"
    assert translated.text == " ".join(segment.text for segment in translated.segments)


def test_answers_go_on_while_a_recording_is_written_down(client, heard):
    with ThreadPoolExecutor(4) as pool:
        sounds = [pool.submit(client.audio.transcriptions.create, **settings()) for _ in range(2)]
        messages = [{"role": "user", "content": "Hello!"}]
        answers = [
            pool.submit(client.chat.completions.create, model="demo", messages=messages, temperature=0)
            for _ in range(2)
        ]
        assert [sound.result().text for sound in sounds] == [heard.text] * 2
        assert {answer.result().choices[0].message.content for answer in answers} == {"Hello! Ask me about gemma4-mlx."}


def test_own_words_go_into_the_prompt(client):
    words = ["Grafana", "MLX"]
    expected = g4.transcribe(*g4.load("demo"), RECORDINGS[1].path, language="en", words=words).text
    given = settings(file=RECORDINGS[1].path, extra_body={"keywords": words})
    assert client.audio.transcriptions.create(**given).text == expected


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"file": ("evil/../../name.mp3", b"no sound")}, "name.mp3"),
        ({"file": ("empty.wav", b"")}, "empty.wav"),
        ({"response_format": "html"}, "response_format"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"extra_body": {"diarize": "yes"}}, "diarize"),
        ({"extra_body": {"keywords": ["w" * 61]}}, "at most 60 characters"),
        ({"response_format": "srt", "stream": True}, "response_format"),
    ],
)
def test_what_is_wrong_with_a_recording_is_said(client, wrong, said):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.audio.transcriptions.create(**settings(**wrong))
    assert "/tmp" not in str(caught.value)


def test_a_client_that_goes_away_is_not_listened_for(client):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.05).audio.transcriptions.create(**settings())
    wait_until_idle()
