"""Pictures of one or two coloured shapes, drawn on the spot, with what is in them.

``draw`` gives the picture, its sentence, and a mask per shape (for the throw-away head that trains the vision tower).
Some pairs of shapes are held out: training never sees them together, evaluation sees only them.
"""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .prompts import COLOURS

# The words of prompts.SHAPES that are drawn. Hearts, crosses and rings can be drawn too, but so small a tower takes
# them for circles, squares and stars for longer than there is time.
DRAWN = ("circle", "square", "triangle", "star", "diamond")

RGB = {
    "red": (220, 35, 35), "green": (40, 160, 60), "blue": (40, 80, 220), "yellow": (245, 215, 40),
    "orange": (245, 140, 25), "purple": (140, 50, 170), "black": (20, 20, 20), "white": (245, 245, 245),
}  # fmt: skip
Thing = tuple[str, str]  # colour, shape


@dataclass
class Picture:
    """``masks``: one L image per shape, in the order of the sentence."""

    image: Image.Image
    things: list[Thing]
    masks: list[Image.Image]

    @property
    def sentence(self) -> str:
        return " and ".join(f"{_article(colour)} {colour} {shape}" for colour, shape in self.things)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def held_out(first: Thing, second: Thing) -> bool:
    """One pair in eight, whichever of the two comes first."""
    key = "/".join(sorted([" ".join(first), " ".join(second)]))
    return zlib.crc32(key.encode()) % 8 == 0


def random_things(rng: random.Random, count: int, from_held_out: bool = False) -> list[Thing]:
    """``count`` things; two differ in colour or shape, and are a held-out pair exactly when asked for."""
    while True:
        things = [(rng.choice(COLOURS), rng.choice(DRAWN)) for _ in range(count)]
        if count == 1 or (things[0] != things[1] and held_out(*things) == from_held_out):
            return things


def draw(things: list[Thing], size: tuple[int, int], rng: random.Random) -> Picture:
    """Shapes side by side (sentence from the left) or one above the other (from the top), never touching."""
    width, height = size
    background = _background(size, {colour for colour, _ in things}, rng)
    image = background
    places = _places(len(things), width, height, rng)
    masks = []
    for (colour, shape), (x, y, radius) in zip(things, places, strict=True):
        mask = _mask(shape, size, x, y, radius, rng)
        shade = tuple(int(min(255, max(0, c + rng.gauss(0, 12)))) for c in RGB[colour])
        image.paste(Image.new("RGB", size, shade), (0, 0), mask)
        masks.append(mask)
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    if rng.random() < 0.3:
        pixels = np.asarray(image, dtype=np.float32)
        grain = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 10), pixels.shape)
        image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    return Picture(image, things, masks)


def random_size(rng: random.Random) -> tuple[int, int]:
    """From a thumbnail to a screenful, up to 2.6 times as wide as high and the other way round."""
    area = rng.uniform(110, 620) ** 2
    aspect = math.exp(rng.uniform(-0.95, 0.95))
    return max(64, int(math.sqrt(area * aspect))), max(64, int(math.sqrt(area / aspect)))


def random_picture(rng: random.Random) -> Picture:
    """One of the training pictures."""
    return draw(random_things(rng, rng.choice([1, 2, 2])), random_size(rng), rng)


def small_picture(rng: random.Random, close_ups: float) -> Picture:
    """A picture of 12 to 56 soft tokens if taken as it is: sides are multiples of 48.

    ``close_ups`` of them show one thing as large as it is in a whole picture of 280 tokens, the others two things,
    of which it is to be learnt which one is named first.
    """
    if rng.random() < close_ups:
        size = rng.choice([(288, 288), (336, 288), (288, 336), (336, 336), (384, 336)])
        return draw(random_things(rng, 1), size, rng)
    size = rng.choice([(144, 192), (192, 144), (192, 192), (240, 192), (192, 288), (288, 192), (336, 192)])
    return draw(random_things(rng, 2), size, rng)


def _background(size: tuple[int, int], colours: set[str], rng: random.Random) -> Image.Image:
    """Plain or shaded, never the colour of a shape."""
    while True:
        if rng.random() < 0.5:
            base = (255, 255, 255)
        elif rng.random() < 0.6:
            level = rng.randrange(30, 250)
            base = (level, level, level)
        else:
            base = tuple(rng.randrange(40, 256) for _ in range(3))
        if all(sum(abs(a - b) for a, b in zip(base, RGB[colour], strict=True)) > 150 for colour in colours):
            break
    image = Image.new("RGB", size, base)
    if rng.random() < 0.25:
        end = tuple(max(0, min(255, c + rng.randrange(-30, 31))) for c in base)
        ramp = Image.linear_gradient("L").rotate(rng.choice([0, 90, 180, 270])).resize(size)
        image = Image.composite(image, Image.new("RGB", size, end), ramp)
    return image


def _places(count: int, width: int, height: int, rng: random.Random) -> list[tuple[float, float, float]]:
    """Centre and radius of each shape, in the order they are named.

    Two of them lie clearly beside or clearly above each other: on a slant, which is first would be anybody's guess.
    """
    if count == 1:
        radius = min(width, height) * rng.uniform(0.2, 0.42)
        return [(rng.uniform(radius, width - radius), rng.uniform(radius, height - radius), radius)]
    beside = rng.random() < width / (width + height) * 1.6 - 0.3
    long, short = (width, height) if beside else (height, width)
    room, middle = min(long / 2, short), short / 2
    while True:
        places = []
        for part in range(2):
            radius = room * rng.uniform(0.24, 0.42)
            low, high = long * part / 2 + radius, long * (part + 1) / 2 - radius
            along = rng.uniform(low, high) if high > low else (low + high) / 2
            slack = min(middle - radius, long * 0.18)
            places.append((along, middle + rng.uniform(-slack, slack), radius))
        (along, across, _), (further, beyond, _) = places
        if abs(beyond - across) < 0.7 * (further - along):
            return [(x, y, r) if beside else (y, x, r) for x, y, r in places]


def _mask(shape: str, size: tuple[int, int], x: float, y: float, radius: float, rng: random.Random) -> Image.Image:
    """The shape, antialiased: drawn at twice the size."""
    scale = 2
    mask = Image.new("L", (size[0] * scale, size[1] * scale))
    pen = ImageDraw.Draw(mask)
    x, y, r = x * scale, y * scale, radius * scale * 0.95
    turn = rng.gauss(0, 0.06)

    def polygon(points: list[tuple[float, float]]) -> None:
        c, s = math.cos(turn), math.sin(turn)
        pen.polygon([(x + r * (px * c - py * s), y + r * (px * s + py * c)) for px, py in points], fill=255)

    if shape == "circle":
        pen.ellipse([x - r, y - r, x + r, y + r], fill=255)
    elif shape == "ring":
        pen.ellipse([x - r, y - r, x + r, y + r], fill=255)
        hole = r * rng.uniform(0.45, 0.65)
        pen.ellipse([x - hole, y - hole, x + hole, y + hole], fill=0)
    elif shape == "square":
        polygon([(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)])
    elif shape == "diamond":
        polygon([(0, -1), (0.75, 0), (0, 1), (-0.75, 0)])
    elif shape == "triangle":
        polygon([(0, -0.95), (0.95, 0.75), (-0.95, 0.75)])
    elif shape == "cross":
        t = rng.uniform(0.22, 0.34)
        polygon(
            [(-t, -1), (t, -1), (t, -t), (1, -t), (1, t), (t, t), (t, 1), (-t, 1), (-t, t), (-1, t), (-1, -t), (-t, -t)]
        )
    elif shape == "star":
        inner = rng.uniform(0.38, 0.46)
        polygon([(math.sin(k * math.pi / 5) * (1 if k % 2 == 0 else inner),
                  -math.cos(k * math.pi / 5) * (1 if k % 2 == 0 else inner)) for k in range(10)])  # fmt: skip
    else:
        steps = [k * math.pi / 30 for k in range(60)]
        heights = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in steps]
        polygon([(math.sin(t) ** 3, -height / 16) for t, height in zip(steps, heights, strict=True)])
    return mask.resize(size, Image.Resampling.BOX)
