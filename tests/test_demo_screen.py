"""How `gemma4-mlx demo` looks, without a model: pictures of blocks, lines that fit, plain text without a terminal."""

from __future__ import annotations

import io
import random
import re

import numpy as np
import pytest
from gemma4_mlx.app.demo.demo_picture import COLOURS, SHAPES, draw_two_shapes, random_things
from gemma4_mlx.app.demo.demo_screen import Answer, Part, PlainScreen, TerminalScreen, waveform
from gemma4_mlx.app.line.preview import half_blocks
from gemma4_mlx.app.models.model_choice import ModelChoice, largest_that_fits
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

CHOICE = largest_that_fits(16 * 2**30, hearing=True)
SAMPLES = np.sin(np.arange(16_000, dtype=np.float32)) * np.linspace(0, 1, 16_000, dtype=np.float32)


def whole_demo(screen):
    """Every part once, with answers as the model gives them."""
    picture = draw_two_shapes((("orange", "triangle"), ("yellow", "triangle")), random.Random(0))
    screen.opening(5_900_000, 0.21)
    screen.show(
        Part("Looks at a picture drawn just now", asked="What is in this picture?", image=picture.image),
        lambda: [Answer(picture.sentence, expected=picture.sentence)],
    )
    screen.show(
        Part("Listens to 2.5 s of a voice it has never heard", samples=SAMPLES),
        lambda: [Answer("call 4 2 7", expected="call 4 2 7 1")],
    )
    screen.show(
        Part("Translates what it heard", continues=True),
        lambda: [Answer("appelle quatre", "French"), Answer("llama cuatro", "Spanish"), Answer("", "Italian")],
    )
    screen.show(
        Part("Answers a question", asked="Does my data leave this Mac?"),
        lambda: [Answer("No. Everything runs on this Mac; nothing is sent anywhere.")],
    )
    screen.ending(CHOICE)


def shown_in_a_terminal(columns: int, rows: int) -> list[Text]:
    """The lines a terminal ends up with."""
    screen = io.StringIO()
    console = Console(
        file=screen, force_terminal=True, width=columns, height=rows, color_system="truecolor", highlight=False
    )
    whole_demo(TerminalScreen(console))
    # A line that is there for the time being goes when its row is cleared from below.
    there: list[str] = []
    for line in screen.getvalue().replace("\r", "").split("\n"):
        if taken_back := line.count("\x1b[1A"):
            del there[len(there) - taken_back :]
        there.append(re.sub(r"\x1b\[(2K|1A|\?7[hl])|\r", "", line))
    return [Text.from_ansi(line) for line in there[:-1]]


def test_all_of_it_fits_80_columns_and_24_rows_with_the_prompt_below():
    lines = shown_in_a_terminal(80, 24)
    assert len(lines) <= 23
    words = "\n".join(line.plain.rstrip() for line in lines)
    assert "an orange triangle and a yellow triangle ✓" in words
    assert "call 4 2 7 (not quite: it should be call 4 2 7 1)" in words
    assert "gemma4-mlx chat --model e4b" in words
    assert len(re.findall(r" 0\.00 s$", words, flags=re.MULTILINE)) == 4  # the time each part took


@pytest.mark.parametrize(("columns", "rows"), [(200, 60), (80, 24), (68, 24), (67, 24), (40, 12), (20, 8)])
def test_no_line_is_wider_than_the_terminal(columns, rows):
    assert max(cell_len(line.plain) for line in shown_in_a_terminal(columns, rows)) <= columns


def test_a_narrow_terminal_has_the_picture_above_the_words():
    lines = [line.plain.rstrip() for line in shown_in_a_terminal(40, 12)]
    blocks = [number for number, line in enumerate(lines) if line.startswith("▀")]
    assert {lines[number] for number in blocks} == {"▀" * 18}
    assert len(blocks) == 6
    assert lines[blocks[-1] + 1].startswith("Looks at a picture")


def test_plain_text_has_no_codes_and_no_drawings(capsys):
    whole_demo(PlainScreen())
    written = capsys.readouterr().out
    assert "\x1b" not in written
    assert "▀" not in written
    assert "  an orange triangle and a yellow triangle ✓\n" in written
    assert "  Italian: (nothing)\n" in written
    assert f"  gemma4-mlx chat --model e4b\n  ({CHOICE.reason})\n" in written


@given(st.text())
def test_whatever_the_model_says_is_one_line_that_moves_no_cursor(text):
    line = Answer(text).line
    assert line
    assert line.isprintable()


def test_what_is_right_is_marked_and_what_is_wrong_is_said_in_words_where_it_is_known():
    assert Answer("call 4", expected="call 4").verdict == " ✓"
    assert Answer(" call  4\n", expected="call 4").verdict == " ✓"
    assert Answer("call 5", expected="call 4").verdict == " (not quite: it should be call 4)"
    assert Answer("", expected="call 4").verdict == " (not quite: it should be call 4)"
    assert Answer("hello").verdict == ""


def test_half_blocks_carry_two_pixels_each():
    image = Image.new("RGB", (4, 4), "red")
    image.paste((0, 0, 255), (0, 1, 4, 2))
    text = half_blocks(image, 4, 2)
    assert text.plain == "▀▀▀▀\n▀▀▀▀"
    first = text.spans[0].style
    assert (first.color.triplet, first.bgcolor.triplet) == ((255, 0, 0), (0, 0, 255))
    last = text.spans[-1].style
    assert (last.color.triplet, last.bgcolor.triplet) == ((255, 0, 0), (255, 0, 0))


def test_a_waveform_grows_with_the_sound():
    above, below = waveform(SAMPLES, 16, 2).plain.split("\n")
    assert len(above) == len(below) == 16
    levels = [" ▁▂▃▄▅▆▇█".index(low) + " ▁▂▃▄▅▆▇█".index(high) for low, high in zip(below, above, strict=True)]
    assert levels == sorted(levels)
    assert levels[-1] == 16


def test_silence_has_a_flat_waveform():
    assert set(waveform(np.zeros(40_000, np.float32), 12, 2).plain) == {" ", "\n"}


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("other", COLOURS)
def test_both_colours_are_on_their_side_of_the_picture(colour, other):
    image = draw_two_shapes(((colour, "square"), (other, "circle")), random.Random(3)).image
    left, right = (image.crop((x, 0, x + 180, 240)) for x in (0, 180))
    for half, name in ((left, colour), (right, other)):
        painted = {pixel: count for count, pixel in half.getcolors(maxcolors=10_000)}
        assert painted[COLOURS[name]] > 5_000  # of 43,200 pixels


def test_no_two_shapes_look_alike():
    drawn = {shape: draw_two_shapes((("red", shape), ("blue", shape)), random.Random(1)).image for shape in SHAPES}
    for first in SHAPES:
        for second in SHAPES:
            difference = np.mean(np.asarray(drawn[first]) != np.asarray(drawn[second]))
            assert (difference > 0.02) == (first != second)


def test_random_things_differ_and_are_everything_in_time():
    rng = random.Random(5)
    pairs = [random_things(rng) for _ in range(2_000)]
    assert all(first != second for first, second in pairs)
    assert {thing for pair in pairs for thing in pair} == {(c, s) for c in COLOURS for s in SHAPES}


def test_an_unknown_shape_is_refused_by_name():
    with pytest.raises(ValueError, match="no shape 'blob'"):
        draw_two_shapes((("red", "blob"), ("red", "star")), random.Random(0))


def test_the_ending_names_a_model_that_hears_and_fits():
    assert largest_that_fits(64 * 2**30, hearing=True).name == "12b"
    assert largest_that_fits(8 * 2**30, hearing=True).name == "e2b"
    assert isinstance(largest_that_fits(2 * 2**30, hearing=True), ModelChoice)
