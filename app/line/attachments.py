"""Pictures, sounds, videos and texts that go with a message: read at once, and checked.

Read at once because a file dragged from a screenshot's thumbnail is gone a second later, and checked at once because
nobody wants to hear of a damaged picture after the question is typed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gemma4_mlx.config import DEFAULT_IMAGE_TOKENS
from gemma4_mlx.errors import InputError
from gemma4_mlx.shown import clock

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gemma4_mlx.config import AudioConfig
    from gemma4_mlx.config_unified import UnifiedAudioConfig
    from gemma4_mlx.processing import CachedSource
    from gemma4_mlx.processing.sources import Source
    from gemma4_mlx.processing.video import VideoSize

Kind = Literal["image", "audio", "video", "text"]

LARGEST = {"image": 100 << 20, "audio": 256 << 20, "video": 512 << 20, "text": 1 << 20}
"""Bytes of a file. Cameras stay far below; a text of 1 MiB is more than any Gemma 4 reads at once."""

SUFFIXES: dict[str, Kind] = dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif", ".gif", ".bmp"), "image")
SUFFIXES |= dict.fromkeys((".tif", ".tiff", ".avif"), "image")
SUFFIXES |= dict.fromkeys((".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".aac", ".aiff", ".aif", ".caf"), "audio")
SUFFIXES |= dict.fromkeys((".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi"), "video")
SUFFIXES |= dict.fromkeys((".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".xml"), "text")
SUFFIXES |= dict.fromkeys((".html", ".css", ".py", ".js", ".ts", ".c", ".h", ".cpp", ".rs", ".go", ".java"), "text")
SUFFIXES |= dict.fromkeys((".swift", ".rb", ".sh", ".sql", ".tex", ".log", ".ini", ".srt", ".vtt"), "text")

_NOUNS = {"image": "picture", "audio": "sound", "video": "video", "text": "text"}


@dataclass(frozen=True)
class Attachment:
    """A file that goes with a message, opened.

    Attributes:
        name: the file's name.
        description: its size, for people.
        content: a Pillow image; float32 samples `[n]` at 16 kHz; a video's `Source`; or a text.
        data: the file's bytes as they were read.
        path: where it was read from, if that was a file.
        video: of a video, how large and how long it is.
    """

    kind: Kind
    name: str
    description: str
    content: Any = field(compare=False, repr=False)
    data: bytes = field(default=b"", repr=False)
    path: Path | None = None
    video: VideoSize | None = None

    def part(self) -> dict[str, object]:
        """The message part that carries it. A text goes in as text, beneath its name."""
        if self.kind == "text":
            language = Path(self.name).suffix.removeprefix(".")
            return {"type": "text", "text": f"{self.name}:\n{fenced(self.content.rstrip(), language)}\n"}
        return {"type": self.kind, self.kind: self._source}

    @cached_property
    def _source(self) -> CachedSource:
        """For the model: every later turn of the conversation has it again."""
        from gemma4_mlx.processing import CachedSource

        return CachedSource(self.content)

    def soft_tokens(
        self, image_tokens: int = DEFAULT_IMAGE_TOKENS, audio: AudioConfig | UnifiedAudioConfig | None = None
    ) -> int | None:
        """How many soft tokens it takes of the prompt, without their borders and times; None for a text.

        Args:
            image_tokens: the most soft tokens a picture may take.
            audio: of the model that will hear it; None: not known yet. The 12B may take one token more than others.
        """
        match self.kind:
            case "image":
                from gemma4_mlx.processing.images import token_grid

                try:
                    rows, columns = token_grid(self.content.height, self.content.width, image_tokens)
                except InputError:  # too narrow for so few tokens: said when it is sent
                    return 0
                return rows * columns
            case "audio":
                from gemma4_mlx.log_mel import soft_token_count
                from gemma4_mlx.sound_features import soft_token_count as tokens_of

                return soft_token_count(len(self.content)) if audio is None else tokens_of(len(self.content), audio)
            case "video":
                from gemma4_mlx.processing.images import token_grid
                from gemma4_mlx.processing.video import FRAMES, TOKENS_PER_FRAME

                assert self.video is not None
                rows, columns = token_grid(self.video.height, self.video.width, TOKENS_PER_FRAME)
                return min(self.video.frames, FRAMES) * rows * columns
        return None


def fenced(text: str, language: str) -> str:
    """A text as a block of code in Markdown, with a fence that is longer than any in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def open_attachment(
    source: str | Path | bytes,
    kind: Kind | None = None,
    name: str | None = None,
    image_tokens: int = DEFAULT_IMAGE_TOKENS,
) -> Attachment:
    """Read a file and make sure that the model can be given it.

    Args:
        source: a path, a URL, or the bytes of a file.
        kind: what it is; None to go by its suffix, or by what is in it.
        name: what to call it. Default: the file's own name.
        image_tokens: the soft tokens a picture must be fit for.

    Raises:
        InputError: there is no such file, it is too large, or it is nothing the model can be given.
    """
    from gemma4_mlx.processing.sources import Source, resolve_source, source_name

    kind = kind or suffix_kind(Path(name or (source if not isinstance(source, bytes) else "")))
    noun = _NOUNS[kind] if kind else "file"
    file = resolve_source(source, noun)  # a URL is fetched here and nowhere else
    kind = kind or _kind(file, name or (str(source) if not isinstance(source, bytes) else "this"))
    path = file.content if isinstance(file.content, Path) else None
    if kind == "audio" and path is not None:
        _refuse_long_sound(path, file.name)
    data = _read(file, kind)
    shown = name or (source_name(source, noun) if isinstance(source, bytes) else _last_part(str(source)))
    called = name or file.name  # in errors
    read = Source(called, data)
    if kind == "image":
        return _picture(read, shown, path, image_tokens)
    if kind == "audio":
        return _sound(read, shown, path)
    if kind == "video":
        return _video(read, shown, path)
    return _text(read, shown, path)


def recorded(samples: npt.NDArray[np.float32], name: str) -> Attachment:
    """A sound that was heard and is no file yet: float32 `[n]` at 16 kHz, kept as 16-bit WAV."""
    import wave

    import numpy as np

    from gemma4_mlx.log_mel import SAMPLE_RATE

    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return Attachment("audio", name, _seconds(len(samples) / SAMPLE_RATE), np.asarray(samples), data=stream.getvalue())


def suffix_kind(path: Path) -> Kind | None:
    """What a file is by its name alone; None if that does not tell."""
    return SUFFIXES.get(path.suffix.lower())


def _kind(file: Source, called: str) -> Kind:
    """What a file is by what is in it."""
    with file.open() as stream:
        head = stream.read(LARGEST["text"])
    if b"\0" not in head[:4096] and _is_text(head):
        return "text"
    from gemma4_mlx.processing.images import is_picture

    if is_picture(head):
        return "image"
    raise InputError(f"{called} is neither a picture, a sound, a video nor a text: give a file that is one of them")


def _is_text(head: bytes) -> bool:
    import codecs

    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _read(file: Any, kind: Kind) -> bytes:
    limit = LARGEST[kind]
    refusal = f"{file.name} is larger than the {limit >> 20} MB a {_NOUNS[kind]} may have: "
    refusal += {"image": "make it smaller", "text": "give a part of it"}.get(kind, "cut it or save it smaller")
    if isinstance(file.content, Path) and file.content.stat().st_size > limit:
        raise InputError(refusal)
    with file.open() as stream:
        data: bytes = stream.read(limit + 1)
    if len(data) > limit:
        raise InputError(refusal)
    return data


def _refuse_long_sound(path: Path, name: str) -> None:
    """By what the file says of its length, so that an hour is not read and decoded only to be refused."""
    from gemma4_mlx.processing.audio import CLIP_SECONDS, audio_duration

    seconds = audio_duration(path)
    if seconds is not None and seconds > CLIP_SECONDS + 1:
        raise InputError(
            f"{name} is {clock(seconds)} long, and the model takes up to {CLIP_SECONDS} s in a message: "
            f"`gemma4-mlx transcribe` writes down sound of any length"
        )


def _picture(file: Source, name: str, path: Path | None, image_tokens: int) -> Attachment:
    from gemma4_mlx.processing.images import load_image, token_grid

    picture = load_image(file)
    token_grid(picture.height, picture.width, image_tokens, file.name)
    return Attachment("image", name, f"{picture.width}×{picture.height}", picture, _bytes(file), path)


def _sound(file: Source, name: str, path: Path | None) -> Attachment:
    from gemma4_mlx.log_mel import SAMPLE_RATE
    from gemma4_mlx.processing.audio import load_audio

    samples = load_audio(file)
    return Attachment("audio", name, _seconds(len(samples) / SAMPLE_RATE), samples, _bytes(file), path)


def _video(file: Source, name: str, path: Path | None) -> Attachment:
    """Its frames are counted and the first one is decoded; the others when the model looks at them."""
    from gemma4_mlx.processing.images import token_grid
    from gemma4_mlx.processing.video import TOKENS_PER_FRAME, video_size

    video = video_size(file)
    token_grid(video.height, video.width, TOKENS_PER_FRAME, file.name)
    size = f"{video.width}×{video.height} {_seconds(video.seconds)}"
    return Attachment("video", name, size, file, _bytes(file), path, video)


def _bytes(file: Source) -> bytes:
    assert isinstance(file.content, bytes)
    return file.content


def _text(file: Any, name: str, path: Path | None) -> Attachment:
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file.name} is not UTF-8 text: save it as UTF-8") from None
    lines = len(text.splitlines())
    return Attachment("text", name, "1 line" if lines == 1 else f"{lines} lines", text, file.content, path)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _last_part(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2]
