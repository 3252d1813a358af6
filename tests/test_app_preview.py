"""Pictures in a terminal: which way each terminal takes them, and what it is sent."""

from __future__ import annotations

import base64
import io
import re

import pytest
from gemma4_mlx.app.line.preview import draw, picture_protocol
from PIL import Image

PICTURE = Image.effect_noise((1200, 900), 90).convert("RGB")


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty", "COLORTERM": "truecolor"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app", "COLORTERM": "truecolor"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm", "COLORTERM": "truecolor"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "vscode", "COLORTERM": "truecolor"}, "half-blocks"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "tmux-256color", "TMUX": "x", "TERM_PROGRAM": "tmux", "COLORTERM": "truecolor"}, "half-blocks"),
        ({"TERM": "screen", "STY": "x", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, None),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, None),
        ({}, None),
    ],
)
def test_the_way_follows_from_what_the_terminal_says_of_itself(environment, protocol):
    assert picture_protocol(environment) == protocol


def drawn(protocol) -> str:
    stream = io.StringIO()
    draw(PICTURE, protocol, stream)
    return stream.getvalue()


def test_kitty_gets_a_png_in_pieces_it_takes():
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", drawn("kitty"))
    assert len(pieces) > 1
    assert all(len(data) <= 4096 for _, data in pieces)
    assert [control.rpartition("m=")[2] for control, _ in pieces] == ["1"] * (len(pieces) - 1) + ["0"]
    assert pieces[0][0] == "a=T,f=100,q=2,r=6,m=1"
    png = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces))))
    assert (png.format, png.size) == ("PNG", (160, 120))


def test_iterm2_gets_one_inline_file():
    (height, data) = re.fullmatch(
        r"\x1b\]1337;File=inline=1;height=(\d+);preserveAspectRatio=1:([^\x07]*)\x07\n", drawn("iterm2")
    ).groups()
    assert height == "6"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (160, 120)


def test_anything_else_gets_two_pixels_in_each_half_block():
    lines = drawn("half-blocks").rstrip("\n").split("\n")
    assert [line.count("▀") for line in lines] == [16] * 6
    assert all("\x1b[38;2;" in line and line.endswith("\x1b[0m") for line in lines)


def test_a_wide_picture_takes_fewer_rows_and_fits_into_the_terminal():
    stream = io.StringIO()
    draw(Image.new("RGB", (4000, 300)), "half-blocks", stream)
    lines = stream.getvalue().rstrip("\n").split("\n")
    assert [line.count("▀") for line in lines] == [40, 40]
