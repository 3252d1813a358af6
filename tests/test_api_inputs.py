"""What scripts give `generate` and the processor: open files, samples of any kind, strings that end an answer."""

from __future__ import annotations

import io
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gemma4_mlx as g4
from gemma4_mlx.processing.attached import with_media
from gemma4_mlx.processing.audio import load_audio
from gemma4_mlx.processing.images import load_image

TONE = np.sin(np.arange(16_000) / 20) / 4


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo")


def png() -> io.BytesIO:
    file = io.BytesIO()
    Image.new("RGB", (96, 48), "red").save(file, "PNG")
    return file


def wav(channels: int = 1) -> io.BytesIO:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(np.repeat((TONE * 32768).astype("<i2"), channels).tobytes())
    return file


def test_a_picture_in_memory_is_taken_as_often_as_it_is_given_and_stays_open():
    file = png()
    for _ in range(2):
        assert load_image(file).getpixel((95, 47)) == (255, 0, 0)
    assert not file.closed


def test_a_file_opened_in_binary_is_read_whole_wherever_it_stands(tmp_path: Path):
    path = tmp_path / "tone.wav"
    path.write_bytes(wav().getvalue())
    with path.open("rb") as file:
        file.read(30)
        assert load_audio(file) == pytest.approx(load_audio(path))


def test_a_stream_that_cannot_be_wound_back_is_read_to_its_end():
    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.rest = io.BytesIO(data)

        def read(self, size: int = -1) -> bytes:
            return self.rest.read(min(size, 1000))

    assert load_image(Pipe(png().getvalue())).size == (96, 48)


def test_a_temporary_file_is_transcribed_like_its_path(demo):
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(wav().getvalue())
        file.flush()
        assert g4.transcribe(*demo, file).text == g4.transcribe(*demo, file.name).text


@pytest.mark.parametrize("load", [load_audio, load_image])
def test_a_file_opened_as_text_is_refused_by_name(load):
    with open(__file__) as file, pytest.raises(g4.InputError, match=r"test_api_inputs.py does not give bytes.*'rb'"):
        load(file)


@pytest.mark.parametrize("load", [load_audio, load_image])
def test_a_closed_file_is_refused(load):
    file = png()
    file.close()
    with pytest.raises(g4.InputError, match="cannot be read"):
        load(file)


def test_an_open_file_without_end_is_refused_before_memory_is_full(monkeypatch):
    monkeypatch.setattr("gemma4_mlx.processing.sources.OPEN_FILE_BYTES", 2**21)
    with open("/dev/zero", "rb") as file, pytest.raises(g4.InputError, match="larger than 2 MiB: save it"):
        load_image(file)


@pytest.mark.parametrize(
    "samples",
    [
        (TONE * 32768).astype(np.int16),
        (TONE * 32768).astype(">i2"),
        (TONE * 2**31).astype(np.int32),
        np.stack([TONE, TONE]),
        np.stack([TONE * 32768] * 2, axis=1).astype(np.int16),
        (TONE.tolist(), 16_000),
    ],
    ids=["int16", "big endian", "int32", "channels first", "int16, channels last", "list"],
)
def test_samples_of_every_usual_kind_sound_alike(samples):
    assert load_audio(samples) == pytest.approx(load_audio(TONE), abs=1e-3)


@pytest.mark.parametrize(
    ("sound", "says"),
    [
        ((16_000, TONE), r"is \(rate, samples\): give \(samples, rate\)"),
        ({1, 2}, "cannot be a set"),
        (3, "cannot be a int"),
        (["a.wav", "b.wav"], "has <U5 samples: give float"),
        (TONE.astype(complex), "has complex128 samples"),
        ((TONE * 9).astype(np.int64), "has int64 samples"),
    ],
)
def test_what_is_no_sound_is_refused_by_its_kind(sound, says):
    with pytest.raises(g4.InputError, match=says):
        load_audio(sound)


@pytest.mark.parametrize("stop", [[1], 1, b"end", {"end": 1}, ["end", None]])
def test_a_stop_that_is_no_string_is_refused_in_a_line_that_says_what_to_give(demo, stop):
    with pytest.raises(ValueError, match="stop must be a string or a list of strings, not"):
        g4.generate(*demo, "Hello", stop=stop)


def test_numbers_of_numpy_are_numbers(demo):
    plain = g4.generate(*demo, "Hello", max_tokens=4, top_k=3, seed=7, temperature=0.5, top_p=0.5)
    numpy = g4.generate(
        *demo,
        "Hello",
        max_tokens=np.int64(4),
        top_k=np.int32(3),
        seed=np.int64(7),
        temperature=np.float32(0.5),
        top_p=np.float64(0.5),
        image_tokens=np.int64(280),
    )
    assert numpy.tokens == plain.tokens


def test_pictures_and_sounds_of_a_one_liner_come_before_its_words(demo):
    parts = [{"type": "image", "image": png()}, {"type": "audio", "audio": TONE}, {"type": "text", "text": "What?"}]
    written = g4.generate(*demo, [{"role": "user", "content": parts}], max_tokens=3, temperature=0)
    out = g4.generate(*demo, "What?", images=[png()], audio=[TONE], max_tokens=3, temperature=0)
    assert (out.tokens, out.stats.prompt_tokens) == (written.tokens, written.stats.prompt_tokens)
    with g4.stream_generate(*demo, "What?", images=(png(),), audio=iter([TONE]), max_tokens=3, temperature=0) as stream:
        assert "".join(chunk.text for chunk in stream) == out.text


def test_they_belong_to_the_last_user_message_and_leave_the_list_as_it_was():
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": ["And this?"]},
        {"role": "assistant", "content": "Let me"},
    ]
    before = repr(messages)
    told = with_media(messages, ["a.png"], ["b.wav"])
    assert told[2]["content"] == [{"type": "image", "image": "a.png"}, {"type": "audio", "audio": "b.wav"}, "And this?"]
    assert told[0] == messages[0]
    assert repr(messages) == before


@pytest.mark.parametrize(
    "given",
    [{"images": "a.png"}, {"images": Path("a.png")}, {"images": png()}, {"audio": (TONE, 16_000)}, {"audio": 3}],
)
def test_one_picture_or_sound_without_a_list_is_refused_with_what_to_write(demo, given):
    with pytest.raises(ValueError, match=r"must be a list, not a \w+: give (images|audio)=\[…\]"):
        g4.generate(*demo, "What is this?", **given)


def test_pictures_need_a_user_message(demo):
    with pytest.raises(g4.InputError, match="no user message to put the pictures"):
        g4.generate(*demo, [{"role": "system", "content": "Be brief."}], images=[png()])
