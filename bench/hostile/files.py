"""All hostile files in one row: the made ones of each kind, then honest files cut and mutated."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import NamedTuple

from .pictures import Bytes, heif, image, pictures
from .sounds import sound, sounds
from .videos import video, videos


class Hostile(NamedTuple):
    """One file.

    Attributes:
        name: with the suffix that it pretends to have.
        kind: what it is given as: "image", "audio" or "video".
        make: its bytes; it is called in a process of its own, for some take memory to make.
    """

    name: str
    kind: str
    make: Bytes


# Honest files, cut and mutated.


def _originals() -> dict[str, tuple[str, Callable[[], bytes]]]:
    found: dict[str, tuple[str, Callable[[], bytes]]] = {}
    for form in ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF"):
        found[f"a.{form.lower()}"] = "image", lambda form=form: image(form)
    for form in ("HEIF", "AVIF"):
        found[f"a.{form.lower()}"] = "image", lambda form=form: heif(form)
    for form, codec in (("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("mp4", "aac"), ("adts", "aac")):
        found[f"a.{form}"] = "audio", lambda a=(form, codec): sound(*a)
    for form, codec in (
        ("ogg", "libopus"),
        ("webm", "libopus"),
        ("caf", "pcm_s16le"),
        ("aiff", "pcm_s16be"),
        ("mpegts", "mp2"),
    ):
        found[f"b.{form}"] = "audio", lambda a=(form, codec): sound(*a, rate=48_000)
    for form, codec in (
        ("mp4", "libx264"),
        ("mov", "libx264"),
        ("matroska", "libx264"),
        ("webm", "libvpx"),
        ("mpegts", "mpeg2video"),
        ("avi", "mpeg4"),
        ("flv", "flv"),
        ("asf", "wmv2"),
    ):
        found[f"v.{form}"] = "video", lambda a=(form, codec): video(*a)
    return found


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Cut, with bytes turned over, with large numbers in it, with a part of it twice or with another's head."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 2, 8, 64))):
        at = chance.randrange(len(changed))
        match chance.randrange(5):
            case 0:
                changed[at] = chance.randrange(256)
            case 1:
                value = chance.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 1 << 24))
                changed[at : at + 4] = struct.pack(chance.choice("<>") + "I", value)
            case 2:
                changed[at:at] = changed[at : at + chance.randrange(4_000)]
            case 3:
                del changed[at : at + chance.randrange(1, 99)]
            case 4 if chance.random() < 0.2:
                del changed[at:]
        if not changed:
            return content[:1]
    return bytes(changed)


def hostile_files(count: int) -> list[Hostile]:
    """The first `count` of the set; all made ones come before the mutated ones in equal parts of each kind."""
    made = [Hostile(name, kind, make) for kind, all_of in _KINDS.items() for name, make in all_of()]
    originals = list(_originals().items())

    def mutation(number: int) -> Hostile:
        name, (kind, make) = originals[number % len(originals)]
        return Hostile(f"mutated-{number}-{name}", kind, lambda chance: mutated(make(), chance))

    if count < len(made):
        step = len(made) * 2 // count
        return made[::step] + [mutation(number) for number in range(count - len(made[::step]))]
    return made + [mutation(number) for number in range(count - len(made))]


_KINDS = {"image": pictures, "audio": sounds, "video": videos}
