"""The system's clipboard: a picture, a file or text out of it, text into it."""

from __future__ import annotations

import base64
import io
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from gemma4_mlx.config import DEFAULT_IMAGE_TOKENS
from gemma4_mlx.errors import InputError

from ..printable import printable
from ..terminal import draw, terminal_stream
from .attachments import Attachment, open_attachment

_SECONDS = 5.0
_PASTE = (["pbpaste"], ["wl-paste", "--no-newline"], ["xclip", "-selection", "clipboard", "-out"])
_COPY = (["pbcopy"], ["wl-copy"], ["xclip", "-selection", "clipboard", "-in"])
_FILE, _PICTURE = b"file ", "«data PNGf".encode()
# One question for all: each costs a start of `osascript`. Beside a file that was copied in the Finder the clipboard
# holds the file's icon and its bare name, neither of which is meant: so the file is asked for first.
_WHAT_IS_HELD = """\
try
    return "file " & POSIX path of (the clipboard as «class furl»)
end try
try
    return the clipboard as «class PNGf»
end try
return ""
"""
_LONGEST_ESCAPE = 100_000
"""Base64 characters that terminals take in one escape sequence."""


def read(image_tokens: int = DEFAULT_IMAGE_TOKENS) -> str | list[Attachment]:
    """What is in the clipboard: a picture or a file as an attachment, else its text.

    Raises:
        InputError: nothing is in it, what is in it cannot be used, or there is no clipboard.
    """
    held = _picture_or_file()
    if isinstance(held, Path):
        return [open_attachment(held, image_tokens=image_tokens)]
    if held is not None:
        return [open_attachment(held, "image", "clipboard.png", image_tokens)]
    if text := _text():
        return text
    raise InputError("the clipboard is empty: copy a picture, a file or text first")


def attachments(image_tokens: int = DEFAULT_IMAGE_TOKENS) -> list[Attachment]:
    """The picture or the file in the clipboard.

    Raises:
        InputError: there is none, it cannot be used, or there is no clipboard.
    """
    held = read(image_tokens)
    if isinstance(held, str):
        raise InputError("the clipboard holds text and no picture: paste it into the line with Ctrl-V")
    return held


def copy(text: str) -> None:
    """Put text into the clipboard: with the system's own command, else through the terminal.

    What no screen shows is left out: pasted into a shell, an ESC [201~ would end the paste and begin a command.

    Raises:
        InputError: neither is there, or the text is too long for the terminal.
    """
    text = printable(text)
    for command in _COPY:
        if shutil.which(command[0]):
            try:
                _run(command, text.encode())
                return
            except (OSError, subprocess.SubprocessError):  # no display to reach: the next way
                continue
    stream = terminal_stream()
    encoded = base64.b64encode(text.encode()).decode()
    if not stream.isatty() or len(encoded) > _LONGEST_ESCAPE:
        raise InputError("there is no clipboard here (pbcopy, wl-copy or xclip): select the text instead")
    draw(stream, f"\x1b]52;c;{encoded}\x07")


def _picture_or_file() -> bytes | Path | None:
    if shutil.which("osascript"):
        return _held_by_a_mac()
    from PIL import ImageGrab

    try:
        held = ImageGrab.grabclipboard()
    except NotImplementedError:
        raise InputError("there is no clipboard here: install wl-clipboard or xclip") from None
    # Pillow runs a helper and opens what it gives: no display, nothing in it, something that is no picture.
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if held is None or isinstance(held, list):
        return None
    stream = io.BytesIO()
    held.save(stream, "PNG")
    return stream.getvalue()


def _held_by_a_mac() -> bytes | Path | None:
    """AppleScript writes a file's path as text, and data as `«data PNGf89504E47…»`."""
    try:
        answer = _run(["osascript", "-e", _WHAT_IS_HELD]).rstrip(b"\n")
    except (OSError, subprocess.SubprocessError):
        return None
    if answer.startswith(_FILE):
        # Plain text in the clipboard may pass for the path of something that is not there.
        path = Path(os.fsdecode(answer.removeprefix(_FILE)))
        return path if path.is_file() else None
    if answer.startswith(_PICTURE):
        with suppress(ValueError):  # cut off
            return bytes.fromhex(answer.removeprefix(_PICTURE).removesuffix("»".encode()).decode())
    return None


def _text() -> str:
    for command in _PASTE:
        if shutil.which(command[0]):
            try:
                return _run(command).decode("utf-8", "replace")
            except (OSError, subprocess.SubprocessError):  # no display to reach, or nothing in it
                continue
    return ""


def _run(command: list[str], given: bytes | None = None) -> bytes:
    """What a command of the system answers.

    Without a UTF-8 locale (over ssh, in an editor's task) macOS' commands would speak MacRoman.
    """
    return (
        subprocess.run(
            command,
            input=given,
            # What takes something stays behind to offer it, and keeps its output open.
            stdout=subprocess.PIPE if given is None else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=_SECONDS,
            env={**os.environ, "LC_ALL": "en_US.UTF-8"},
        ).stdout
        or b""
    )
