"""A small copy of an attached picture in the terminal: in pixels where it can, in half blocks where it has colours.

Codes: kitty's graphics protocol (https://sw.kovidgoyal.net/kitty/graphics-protocol/) and iTerm2's inline images
(https://iterm2.com/documentation-images.html).
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TextIO

from .. import terminal
from ..terminal import console, shows_colour, terminal_size, terminal_stream
from .attachments import Attachment

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.text import Text

Protocol = Literal["kitty", "iterm2", "half-blocks"]

_ROWS = 6
_CELL = (10, 20)
"""Pixels of a cell, roughly; what is sent is scaled to the rows by the terminal."""
_CHUNK = 4096
"""Base64 characters of one of kitty's escape sequences."""


def picture_protocol(environment: Mapping[str, str] = os.environ) -> Protocol | None:
    """How this terminal shows pictures; None where it does not.

    Goes by the variables terminals set, because asking the terminal itself would eat what is typed meanwhile.
    """
    term = environment.get("TERM", "dumb")
    program = environment.get("TERM_PROGRAM", "")
    if term == "dumb" or environment.get("NO_COLOR"):
        return None
    # A multiplexer swallows both protocols unless it is set up to pass them on.
    if not (environment.get("TMUX") or environment.get("STY") or term.startswith(("tmux", "screen"))):
        if "kitty" in term or "ghostty" in term or environment.get("KITTY_WINDOW_ID") or program == "ghostty":
            return "kitty"
        if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
            return "iterm2"
    return "half-blocks" if environment.get("COLORTERM") in ("truecolor", "24bit") else None


def show_pictures(attachments: Sequence[Attachment]) -> None:
    """Draw the pictures among the attachments, one below the other, where the terminal can."""
    stream = terminal_stream()
    protocol = picture_protocol()
    if protocol is None or not shows_colour(stream):
        return
    for attachment in attachments:
        if attachment.kind == "image":
            draw(attachment.content, protocol, stream)


def draw(picture: Image, protocol: Protocol, stream: TextIO) -> None:
    """Draw a picture a few rows high; the cursor is at the beginning of the line below it afterwards."""
    columns = min(terminal_size(stream).columns - 1, 40)
    width, height = _cells(picture, columns)
    small = picture.resize((max(1, width * _CELL[0]), max(1, height * _CELL[1])))
    if protocol == "half-blocks":
        screen = console(stream, color_system="truecolor", force_terminal=True, width=columns + 1)
        screen.print(half_blocks(small, width, height))
        return
    if protocol == "kitty":
        output = _kitty(_png(small), height)
    else:
        data = base64.b64encode(_png(small)).decode()
        output = f"\x1b]1337;File=inline=1;height={height};preserveAspectRatio=1:{data}\x07"
    terminal.draw(stream, f"{output}\n")


def half_blocks(image: Image, columns: int, rows: int) -> Text:
    """A picture in `rows` rows of `columns` half blocks, each of them two pixels: its colour and its background's."""
    import numpy as np
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    pixels = np.asarray(image.convert("RGB").resize((columns, 2 * rows)))
    text = Text(no_wrap=True)
    for row in range(rows):
        for above, below in zip(pixels[2 * row], pixels[2 * row + 1], strict=True):
            text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        text.append("\n" if row < rows - 1 else "")
    return text


def _cells(picture: Image, columns: int) -> tuple[int, int]:
    """How many columns and rows a picture takes: six rows, or fewer when it is too wide for them."""
    width = round(_ROWS * picture.width / picture.height * _CELL[1] / _CELL[0])
    if width <= columns:
        return max(1, width), _ROWS
    return columns, max(1, round(columns * picture.height / picture.width * _CELL[0] / _CELL[1]))


def _kitty(png: bytes, rows: int) -> str:
    data = base64.b64encode(png).decode()
    chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    first = f"a=T,f=100,q=2,r={rows},"  # draw a PNG, do not answer, this many rows
    last = len(chunks) - 1
    return "".join(
        f"\x1b_G{first if number == 0 else ''}m={int(number < last)};{chunk}\x1b\\"
        for number, chunk in enumerate(chunks)
    )


def _png(picture: Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
