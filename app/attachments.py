"""Pictures and sounds a person names by path: found in what they typed, and read at once.

Read at once because a file dragged from a screenshot's thumbnail is gone a second later. Decoding them is not done
here.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["image", "audio"]

IMAGE_TOKENS = 280  # soft tokens of a picture, as the processor has it when nobody says

KINDS: dict[str, Kind] = dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif", ".gif", ".bmp"), "image")
KINDS |= dict.fromkeys((".tif", ".tiff"), "image")
KINDS |= dict.fromkeys((".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".aac", ".aiff", ".aif", ".caf"), "audio")

# A word as a shell reads it: plain characters, backslash escapes and quoted stretches, up to a space.
WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:\\.|[^"\\])*")+""")


@dataclass(frozen=True)
class Attachment:
    """A picture or a sound, opened.

    Attributes:
        name: the file's name.
        description: its size, for people.
        content: a Pillow image, or float32 samples `[n]` at 16 kHz.
    """

    kind: Kind
    name: str
    description: str
    content: object

    def part(self) -> dict[str, object]:
        """The message part that carries it."""
        return {"type": self.kind, self.kind: self.content}


def open_attachment(source: str, kind: Kind) -> Attachment:
    """Open a picture or a sound.

    Args:
        source: a path or a URL.

    Raises:
        InputError: there is no such file, or it is not a picture or a sound the model can be given.
    """
    name = source.rstrip("/").rpartition("/")[2]
    if kind == "image":
        from gemma4_mlx.processing.images import load_image, token_grid
        from gemma4_mlx.processing.sources import source_name

        picture = load_image(source)
        token_grid(picture.height, picture.width, IMAGE_TOKENS, source_name(source, "picture"))  # refused by its name
        return Attachment(kind, name, f"{picture.width}×{picture.height}", picture)
    from gemma4_mlx.log_mel import SAMPLE_RATE
    from gemma4_mlx.processing.audio import load_audio

    samples = load_audio(source)
    return Attachment(kind, name, f"{len(samples) / SAMPLE_RATE:.1f} s", samples)


def attachments_in(line: str) -> tuple[str, list[Attachment]]:
    """Split a typed line into its words and the pictures and sounds it names.

    The whole line may be one path, or words of it may be; only files that exist and whose suffix tells what they are
    count. The rest of the line is left as it was typed.

    Raises:
        InputError: such a file cannot be opened.
    """
    if kind := _kind_of_file(line):
        return "", [open_attachment(unquoted(line), kind)]
    found: list[Attachment] = []
    rest: list[str] = []
    end = 0
    for word in WORD.finditer(line):
        if kind := _kind_of_file(word[0]):
            found.append(open_attachment(unquoted(word[0]), kind))
            rest.append(line[end : word.start()].rstrip())
            end = word.end()
    rest.append(line[end:])
    return "".join(rest).strip() if found else line, found


def unquoted(text: str) -> str:
    """A path as it was meant: without the quotes and backslashes a terminal puts in when a file is dropped on it."""
    text = text.strip()
    if Path(text).expanduser().exists():
        return text
    try:
        return " ".join(shlex.split(text))
    except ValueError:  # a quote that never closes: part of the name
        return text


def _kind_of_file(text: str) -> Kind | None:
    """What the file at this path is, if there is one and its suffix tells."""
    try:
        path = Path(unquoted(text)).expanduser()
        return KINDS.get(path.suffix.lower()) if path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long for a name, a NUL in it, "~nobody"
        return None
