"""Files that go with a message: found in what is typed, read at once, and refused when the model cannot take them."""

from __future__ import annotations

import io
import os
import shutil
import threading
import wave
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from gemma4_mlx.app.line.attachments import open_attachment, recorded
from gemma4_mlx.app.line.named_files import read_typed, unquoted
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import gemma4_mlx as g4
from command_line import picture
from gemma4_mlx.config_unified import UnifiedAudioConfig
from gemma4_mlx.errors import InputError
from gemma4_mlx.processing.audio import load_audio
from gemma4_mlx.processing.video import load_video
from gemma4_mlx.sound_features import sound_features


def sound(path: Path, seconds: float) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * round(seconds * 16_000)))
    return path


def video(path: Path, frames: int, size: tuple[int, int] = (96, 64)) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, (number % 256, 80, 80)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], tuple[str, list[str]]]]:
    servers: list[HTTPServer] = []

    def start(content: bytes) -> tuple[str, list[str]]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.command)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/shared/42", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("cat.png", "two cats.png", "it's.png"):
        shutil.copy(picture(), tmp_path / name)
    (tmp_path / "notes.md").write_text("# Notes\n```sh\nls\n```\n")
    (tmp_path / "fake.jpg").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def split(line: str) -> tuple[str, list[str]]:
    found = read_typed(line).pieces
    words = [
        piece if isinstance(piece, str) else f"<{piece[1]}>" for piece in found if isinstance(piece, str) or piece[1]
    ]
    return "".join(words), [piece[0].name for piece in found if not isinstance(piece, str)]


@pytest.mark.parametrize(
    ("line", "words", "names"),
    [
        ("cat.png", "", ["cat.png"]),
        ("two cats.png", "", ["two cats.png"]),
        ("it's.png", "", ["it's.png"]),
        ("two\\ cats.png ", "", ["two cats.png"]),
        ("'two cats.png'", "", ["two cats.png"]),
        ("cat.png it\\'s.png", "", ["cat.png", "it's.png"]),
        ("notes.md", "", ["notes.md"]),
        (
            'look at "two cats.png" and cat.png please',
            'look at <"two cats.png"> and <cat.png> please',
            ["two cats.png", "cat.png"],
        ),
        ("cat.png what is this?", "<cat.png> what is this?", ["cat.png"]),
        ("what's in cat.png?", "what's in <cat.png>?", ["cat.png"]),
        ("what's in cat.png, isn't it?", "what's in <cat.png>, isn't it?", ["cat.png"]),
        ("what is a dog.png?", "what is a dog.png?", []),
        ("read  notes.md", "read  notes.md", []),
        ("read ./notes.md", "read <./notes.md>", ["notes.md"]),
        ("folder.png", "folder.png", []),
        ("don't", "don't", []),
        ("", "", []),
    ],
)
def test_files_are_found_in_what_is_typed(folder, line, words, names):
    assert split(line) == (words, names)


def test_words_that_are_names_of_files_without_a_suffix_stay_words(folder):
    (folder / "hello").write_text("a file")
    (folder / "world").mkdir()
    assert [split(line) for line in ("hello", "world", "hello world")] == [
        ("hello", []),
        ("world", []),
        ("hello world", []),
    ]


@given(st.text(st.characters(exclude_characters="/"), max_size=50))
def test_words_without_files_come_back_as_they_were_typed(line):
    assert read_typed(line).pieces == [line]


def test_a_picture_keeps_its_bytes_and_is_decoded_once(folder):
    attachment = open_attachment("cat.png")
    (folder / "cat.png").unlink()
    assert (attachment.kind, attachment.name, attachment.description) == ("image", "cat.png", "120×90")
    assert attachment.data == picture().read_bytes()
    assert attachment.part()["image"].source is attachment.content
    again = open_attachment(attachment.data, "image", "cat.png")
    assert (again.name, again.description, again.data) == ("cat.png", "120×90", attachment.data)


def test_a_sound_is_described_by_its_length_and_its_soft_tokens(tmp_path):
    attachment = open_attachment(sound(tmp_path / "memo.wav", 12.3))
    assert (attachment.kind, attachment.description, attachment.soft_tokens()) == ("audio", "12.3 s", 308)


@pytest.mark.parametrize("samples", [640, 641, 800, 801, 16_001])
def test_a_sound_takes_what_the_model_that_hears_it_makes_of_it(samples, tmp_path):
    attachment = open_attachment(sound(tmp_path / "memo.wav", samples / 16_000))
    audio = UnifiedAudioConfig(samples_per_token=640)
    clip = np.zeros(samples, np.float32)
    assert attachment.soft_tokens(audio=audio) == len(sound_features(clip, audio))
    assert attachment.soft_tokens() == -(-((samples - 1) // 160) // 4)


def test_a_video_is_counted_as_the_processor_will(tmp_path):
    path = video(tmp_path / "clip.mp4", frames=50)
    attachment = open_attachment(path)
    frames = load_video(path).frames
    assert (attachment.kind, attachment.description) == ("video", "96×64 5.0 s")
    assert attachment.soft_tokens() == sum(frame.height // 48 * (frame.width // 48) for frame in frames)
    assert attachment.part()["video"].source.content == path.read_bytes()
    assert attachment.part()["video"] is attachment.part()["video"]  # so that only its first turn decodes it


def test_a_text_goes_in_as_text_beneath_its_name_and_cannot_end_its_own_fence(folder):
    attachment = open_attachment("notes.md")
    assert (attachment.kind, attachment.description, attachment.soft_tokens()) == ("text", "4 lines", None)
    assert attachment.part() == {"type": "text", "text": "notes.md:\n````md\n# Notes\n```sh\nls\n```\n````\n"}


def test_a_file_without_a_telling_name_is_told_by_what_is_in_it(tmp_path):
    shutil.copy(picture(), tmp_path / "picture")
    (tmp_path / "Makefile").write_text("all:\n\techo")
    (tmp_path / "program").write_bytes(b"\x7fELF\0\0")
    assert open_attachment(tmp_path / "picture").kind == "image"
    assert open_attachment(tmp_path / "Makefile").kind == "text"
    with pytest.raises(InputError, match=r"program is neither a picture, a sound, a video nor a text"):
        open_attachment(tmp_path / "program")


def test_a_file_without_a_suffix_is_a_picture_only_in_a_format_that_is_read_and_may_be_too_large(
    tmp_path: Path,
) -> None:
    path = tmp_path / "photo"
    one_pixel = b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0\x3b"
    path.write_bytes(b"GIF89a" + b"\xff" * 4 + b"\x80\0\0" + bytes(6) + one_pixel)  # 65,535 × 65,535
    with pytest.raises(InputError, match=r"photo has more pixels than can be unpacked safely: make it smaller"):
        open_attachment(path)
    path.write_bytes(b"8BPS\0\1" + bytes(6) + b"\0\3" + b"\0\0\0\x09" * 2 + b"\0\x08\0\3" + bytes(99))  # Photoshop's
    with pytest.raises(InputError, match=r"photo is neither a picture, a sound, a video nor a text"):
        open_attachment(path)
    Image.new("RGB", (64, 64)).save(path, "AVIF")
    assert open_attachment(path).kind == "image"


def test_what_was_heard_becomes_a_sound_that_a_session_can_keep():
    samples = np.sin(np.arange(16_000) / 20).astype(np.float32)
    attachment = recorded(samples, "what you said")
    assert (attachment.kind, attachment.name, attachment.description) == ("audio", "what you said", "1.0 s")
    np.testing.assert_allclose(load_audio(attachment.data), samples, atol=1e-4)


def large(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: f / "gone.png", r"gone\.png does not exist"),
        (lambda f: f / "folder.png", r"folder\.png is a folder, not a picture"),
        (lambda f: large(f / "empty.png", 0), r"empty\.png is empty"),
        (lambda f: large(f / "huge.png", 300 << 20), r"huge\.png is larger than the 100 MB a picture may have"),
        (lambda f: large(f / "huge.mov", 600 << 20), r"huge\.mov is larger than the 512 MB a video may have"),
        (lambda f: large(f / "huge.txt", 2 << 20), r"huge\.txt is larger than the 1 MB a text may have: give a part"),
        (lambda f: f / "fake.jpg", r"fake\.jpg is not a picture"),
        (lambda f: shutil.copy(f / "fake.jpg", f / "fake.mp4"), r"fake\.mp4 (is not a video|has no video)"),
        (lambda f: shutil.copy(f / "cat.png", f / "cat.txt"), r"cat\.txt is not UTF-8 text"),
        (
            lambda f: sound(f / "hour.wav", 3600),
            r"hour\.wav is 1:00:00 long, and the model takes up to 30 s in a message: `gemma4-mlx transcribe`",
        ),
    ],
)
def test_what_the_model_cannot_be_given_is_refused_by_name(folder, make, said):
    with pytest.raises(InputError, match=said):
        open_attachment(make(folder))


def test_a_file_that_is_too_large_is_not_read(folder, monkeypatch):
    path = large(folder / "huge.png", 300 << 20)
    monkeypatch.setattr(io, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(InputError, match="larger"):
        open_attachment(path)


def test_a_picture_of_one_pixel_is_a_picture_and_a_line_of_pixels_is_refused(folder):
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (1, 5000)).save(folder / "line.png")
    assert open_attachment("dot.png").soft_tokens() == 256
    with pytest.raises(InputError, match=r"line\.png is too narrow \(1×5000"):
        open_attachment("line.png")


def test_a_picture_must_be_fit_for_the_tokens_that_were_chosen(folder):
    Image.new("RGB", (100, 10_000)).save(folder / "tall.png")
    attachment = open_attachment("tall.png", image_tokens=280)
    assert attachment.soft_tokens(70) == 0
    with pytest.raises(InputError, match=r"tall\.png is too narrow"):
        open_attachment("tall.png", image_tokens=70)


def test_bytes_are_called_by_the_name_they_are_given():
    with pytest.raises(InputError, match=r"^clipboard\.png is not a picture"):
        open_attachment(b"nothing", "image", "clipboard.png")


@pytest.mark.parametrize("typed", ["two\\ cats.png", "'two cats.png' ", "two cats.png"])
def test_a_commands_path_is_meant_without_its_quotes(folder, typed):
    assert unquoted(typed) == "two cats.png"


def test_an_address_without_a_telling_name_is_fetched_once(serve: Callable[[bytes], tuple[str, list[str]]]) -> None:
    for content, kind in ((picture().read_bytes(), "image"), (b"# Notes", "text")):
        address, asked = serve(content)
        assert open_attachment(address).kind == kind
        assert asked == ["GET"]


@pytest.mark.parametrize("frames", [1, 2, 31, 32, 33, 100])
def test_the_processor_says_of_a_videos_size_what_it_takes_in_the_prompt(frames: int, tmp_path: Path) -> None:
    _, processor = g4.load("demo")
    attachment = open_attachment(video(tmp_path / "clip.mp4", frames, (96, 64)))
    assert attachment.video is not None
    without = [{"role": "user", "content": [{"type": "text", "text": "Say"}]}]
    with_it = [{"role": "user", "content": [attachment.part(), {"type": "text", "text": "Say"}]}]
    real = processor(with_it).input_ids.shape[1]
    one_placeholder = len(processor.tokenizer.encode(processor.render(with_it)))
    assert one_placeholder + processor.video_tokens(attachment.video) - 1 == real
    assert real - processor(without).input_ids.shape[1] > (attachment.soft_tokens() or 0)
