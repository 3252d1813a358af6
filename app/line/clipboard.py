"""The system's clipboard: a picture, a file or text out of it, text into it."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gemma4_mlx.config import DEFAULT_IMAGE_TOKENS
from gemma4_mlx.errors import InputError

from ..printable import printable
from ..terminal import draw, terminal_stream
from .attachments import Attachment, open_attachment

if TYPE_CHECKING:
    from PIL.Image import Image

_SECONDS = 5.0
_PASTE = (["pbpaste"], ["wl-paste", "--no-newline"], ["xclip", "-selection", "clipboard", "-out"])
_COPY = (["pbcopy"], ["wl-copy"], ["xclip", "-selection", "clipboard", "-in"])
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
        stream = io.BytesIO()
        held.save(stream, "PNG")
        return [open_attachment(stream.getvalue(), "image", "clipboard.png", image_tokens)]
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
                subprocess.run(command, input=text.encode(), check=True, timeout=_SECONDS, stderr=subprocess.DEVNULL)
                return
            except (OSError, subprocess.SubprocessError):  # no display to reach: the next way
                continue
    stream = terminal_stream()
    encoded = base64.b64encode(text.encode()).decode()
    if not stream.isatty() or len(encoded) > _LONGEST_ESCAPE:
        raise InputError("there is no clipboard here (pbcopy, wl-copy or xclip): select the text instead")
    draw(stream, f"\x1b]52;c;{encoded}\x07")


def _picture_or_file() -> Image | Path | None:
    from PIL import ImageGrab

    if sys.platform == "darwin" and (path := _file_copied_in_finder()):
        return path
    try:
        held = ImageGrab.grabclipboard()
    except NotImplementedError:
        raise InputError("there is no clipboard here: install wl-clipboard or xclip") from None
    # Pillow runs a helper and opens what it gives: no display, nothing in it, something that is no picture.
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return None if isinstance(held, list) else held


def _file_copied_in_finder() -> Path | None:
    """Beside such a file the clipboard holds its icon and its bare name, neither of which is meant."""
    script = "POSIX path of (the clipboard as «class furl»)"
    try:
        finished = subprocess.run(["osascript", "-e", script], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    path = Path(finished.stdout.rstrip("\n"))
    # Plain text in the clipboard may pass for the path of something that is not there.
    return path if finished.returncode == 0 and path.is_file() else None


def _text() -> str:
    for command in _PASTE:
        if shutil.which(command[0]):
            try:
                finished = subprocess.run(command, capture_output=True, check=True, timeout=_SECONDS)
                return finished.stdout.decode("utf-8", "replace")
            except (OSError, subprocess.SubprocessError):  # no display to reach, or nothing in it
                continue
    return ""
