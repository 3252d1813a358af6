"""What each terminal makes of the path of a file that is dropped on it (its own documentation and source say so).

Not a test itself.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path

NAMES = (
    "cat.png",
    "two cats.png",
    "it's a cat.png",
    "it’s a cat.png",
    'a "quoted" cat.png',
    "cat (1) [final].png",
    "50% & more; $HOME.png",
    "back\\slash and space.png",
    "Screenshot 2026-11-24 at 8.24.28\u202fPM.png",
    "Snímek obrazovky 2026-11-24 v\u00a08.24.28.png",
    unicodedata.normalize("NFD", "Žluťoučký kůň.png"),
    "cat#1?.png",
    "-cat.png",
    "猫 の 写真.png",
    "`tick` | <pipe>.png",
)


def backslashed(characters: str) -> Callable[[Path], str]:
    return lambda path: re.sub(f"([{re.escape(characters)}])", r"\\\1", str(path))


GHOSTTY = backslashed("\\ ()[]{}<>\"'`!#$&;|*?\t")
SHELL = backslashed("\\ ()[]{}<>\"'`!#$&;|*?~=%^\t")


def vs_code(path: Path) -> str:
    kept = "".join(c for c in str(path) if c not in "`$|&>#!^*;<")
    return "'" + kept.replace("'", "\\'") + "'"


# What arrives for several dropped files, by terminal (docs: what each one really sends).
TERMINALS: dict[str, Callable[[Sequence[Path]], str]] = {
    "iTerm2": lambda paths: " ".join(SHELL(path) for path in paths) + " ",
    "Ghostty": lambda paths: " ".join(GHOSTTY(path) for path in paths),
    "kitty": lambda paths: "\n".join(map(str, paths)),
    "WezTerm": lambda paths: " ".join(str(path).replace(" ", "\\ ") for path in paths) + " ",
    "VS Code": lambda paths: " ".join(vs_code(path) for path in paths),
    "Terminal.app, escaped": lambda paths: " ".join(SHELL(path) for path in paths) + " ",
    "Terminal.app, raw": lambda paths: "\n".join(map(str, paths)),
    "GNOME Terminal": lambda paths: " ".join(shlex.quote(str(path)) for path in paths) + " ",
    "a URL": lambda paths: "\n".join(f"file://{urllib.parse.quote(str(path))}" for path in paths),
    "a URL with a host": lambda paths: "\r\n".join(f"file://localhost{urllib.parse.quote(str(p))}" for p in paths),
    "double quotes": lambda paths: " ".join('"' + re.sub(r'(["\\])', r"\\\1", str(p)) + '"' for p in paths),
}
