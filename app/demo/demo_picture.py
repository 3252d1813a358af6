"""The picture the demonstration shows its model: two coloured shapes side by side, other ones every time.

Drawn here and not in the model's own recipe (`tools/demo_model`), so that the model is shown another hand's work.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]
Point = tuple[float, float]
Thing = tuple[str, str]
"""A colour's name and a shape's."""

WIDTH, HEIGHT = 360, 240
COLOURS: dict[str, Colour] = {
    "red": (215, 40, 40),
    "green": (45, 155, 65),
    "blue": (45, 85, 215),
    "yellow": (245, 210, 50),
    "orange": (245, 140, 30),
    "purple": (135, 55, 165),
    "black": (25, 25, 25),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond")

_BACKGROUNDS: tuple[Colour, ...] = ((250, 250, 250), (60, 60, 66), (150, 150, 150))
_CONTRAST = 160
"""How far, summed over red, green and blue, a shape's colour is from what is behind it."""
_RADIUS = 62
_OVERSAMPLING = 3


@dataclass(frozen=True)
class TwoShapes:
    """A picture and what is in it, from left to right."""

    image: Image
    things: tuple[Thing, Thing]

    @property
    def sentence(self) -> str:
        """What there is to say about it, such as "a red circle and an orange star"."""
        return " and ".join(f"{_article(colour)} {colour} {shape}" for colour, shape in self.things)


def random_things(rng: random.Random) -> tuple[Thing, Thing]:
    """Two things that are not the same."""
    everything = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    first, second = rng.sample(everything, 2)
    return first, second


def draw_two_shapes(things: tuple[Thing, Thing], rng: random.Random) -> TwoShapes:
    """Draw two things beside each other, 360×240, each a little off its place."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, HEIGHT), _background([COLOURS[colour] for colour, _ in things]))
    for side, (colour, shape) in enumerate(things):
        middle = (WIDTH * (1 + 2 * side) / 4 + rng.uniform(-14, 14), HEIGHT / 2 + rng.uniform(-30, 30))
        mask = Image.new("L", (WIDTH * _OVERSAMPLING, HEIGHT * _OVERSAMPLING))
        pen = ImageDraw.Draw(mask)
        pen.polygon([_placed(point, middle) for point in _outline(shape)], fill=255)
        image.paste(COLOURS[colour], mask=mask.reduce(_OVERSAMPLING))
    return TwoShapes(image, things)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _background(colours: list[Colour]) -> Colour:
    """The first background that every colour stands out from; black and white leave only the last one."""
    for background in _BACKGROUNDS:
        if all(sum(abs(a - b) for a, b in zip(background, colour, strict=True)) > _CONTRAST for colour in colours):
            return background
    raise AssertionError(f"no background for {colours}")


def _placed(point: Point, middle: Point) -> Point:
    x, y = point
    return (middle[0] + _RADIUS * x) * _OVERSAMPLING, (middle[1] + _RADIUS * y) * _OVERSAMPLING


def _outline(shape: str) -> list[Point]:
    """Corners in radii around the middle, y downwards."""
    match shape:
        case "circle":
            return _regular(72)
        case "square":
            return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
        case "diamond":
            return [(0, -1), (0.75, 0), (0, 1), (-0.75, 0)]
        case "triangle":
            return [(0, -0.95), (0.95, 0.75), (-0.95, 0.75)]
        case "star":
            tips, notches = _regular(5), _regular(5, -0.42)  # a notch lies opposite a tip
            return [point for i in range(5) for point in (tips[i], notches[(i + 3) % 5])]
    raise ValueError(f"no shape {shape!r}: one of {', '.join(SHAPES)}")


def _regular(corners: int, radius: float = 1.0) -> list[Point]:
    """A regular polygon with a corner at the top; with a negative radius at the bottom."""
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for angle in angles]
