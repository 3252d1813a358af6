"""Messages of the shapes that people send a chat: prose, paths, code, logs, lists, with and without files that exist.

Not a test itself.
"""

from __future__ import annotations

import random
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from command_line import picture

_TEXT = """
what is in the picture and why does it look like that please compare them both tell me isn't don't it's “quoted” naïve
Žluťoučký kůň 写真 हिन्दी 👨‍👩‍👧 C:\\Users a/b and/or 24/7 e.g. i.e. ... -- 3.14 x=y [1] (see) {x} https://example.com/a.png
git@github.com:a/b.git user@example.com ~ ./ ../ / // /* */ /help /usr/bin ~nobody/x *.png **bold** `code.py` $HOME
"""
WORDS = _TEXT.split()
CODE = (
    "// a comment with /usr/bin/x.png in it",
    "/* … */",
    "/** @see ./gone.png */",
    "#include <stdio.h>  // not /help",
    'with open("/no/such/data.json") as file:  # cat?',
    "import './gone.css'",
    "\tif (a / b > 2) { return './x'; }",
    "SELECT * FROM t WHERE path LIKE '/var/%.log';",
    "echo \"$HOME/gone.txt\" | sed 's/a/b/' > /dev/null",
    '    """Docstring."""',
    "x = 'it\\'s' + \"\\\"\"",
    "ls -la ../.. # ok",
)
LOG = (
    "2026-11-30 12:00:{0:02} ERROR /var/log/app/{0}.log: cannot open '/usr/lib/gone/{0}.py'",
    'Traceback (most recent call last):\n  File "/no/such/{0}.py", line {0}, in <module>',
    "/usr/bin/prog{0}: line {0}: /tmp/gone {0}.png: No such file or directory",
    "[{0}] GET /static/img/{0}.png HTTP/1.1 404 -",
    "make: *** [/build/{0}.o] Error {0}",
    "error TS{0}: in ./src/gone{0}.ts",
    "/usr/bin/x{0} is broken",
)
SPELLINGS: tuple[Callable[[Path], str], ...] = (
    str,
    lambda path: str(path).replace(" ", "\\ "),
    lambda path: shlex.quote(str(path)),
    lambda path: f'"{path}"',
    lambda path: f"./{path.name}".replace(" ", "\\ "),
)


@dataclass(frozen=True)
class Message:
    """What is typed, and what goes with it.

    Attributes:
        files: those that it names, in order, each once.
        is_files: it is nothing but their names.
    """

    text: str
    files: list[Path] = field(default_factory=list)
    is_files: bool = False


def pictures(folder: Path) -> list[Path]:
    """The files that messages may name: small pictures in a folder of 3,000 others."""
    folder.mkdir(exist_ok=True)
    for number in range(3_000):
        (folder / f"Screenshot 2026-11-24 at {number:04}\u202fPM.jpg").touch()
    names = ("cat.png", "two cats.png", "a.b.c.png", "UPPER.PNG", "猫.png")
    return [Path(shutil.copy(picture(), folder / name)) for name in names]


def random_message(chance: random.Random, files: list[Path]) -> Message:
    """One message. Names without a slash count in the folder of the files, which is the current one."""
    shape = chance.choice(
        (_prose, _prose, _prose_about_files, _prose_about_files, _files, _code, _log, _list, _mixture)
    )
    return shape(chance, files)


def _words(chance: random.Random, most: int) -> str:
    between = chance.choice((" ", " ", " ", "\n", "  ", "\t"))
    return between.join(chance.choice(WORDS) for _ in range(chance.randint(1, most)))


def _prose(chance: random.Random, files: list[Path]) -> Message:
    return Message("so " + _words(chance, chance.choice((10, 100, 2_000))))


def _prose_about_files(chance: random.Random, files: list[Path]) -> Message:
    named = chance.sample(files, chance.randint(1, 3))
    text = "so"
    for path in named:
        end = chance.choice((" ", ", ", "? ", ". ", " — "))
        text += f" {_words(chance, 8)} {chance.choice(SPELLINGS)(path)}{end}"
    return Message(text + "really", named)


def _files(chance: random.Random, files: list[Path]) -> Message:
    named = chance.sample(files, chance.randint(1, 4))
    spelling = chance.choice((SPELLINGS[1], SPELLINGS[2]))
    return Message(chance.choice((" ", "\n")).join(map(spelling, named)), named, is_files=True)


def _code(chance: random.Random, files: list[Path]) -> Message:
    return Message("\n".join(chance.choice(CODE) for _ in range(chance.choice((1, 5, 50, 1_500)))))


def _log(chance: random.Random, files: list[Path]) -> Message:
    lines = chance.choice((1, 12, 200, 1_000))
    return Message("\n".join(chance.choice(LOG).format(chance.randrange(100)) for _ in range(lines)))


def _list(chance: random.Random, files: list[Path]) -> Message:
    folder = chance.choice(("/usr/bin", "/etc/none", str(files[0].parent), "~/none"))
    suffix = chance.choice(("", ".png", ".py", "/"))
    return Message(
        "\n".join(f"{folder}/gone{chance.randrange(1_000)}{suffix}" for _ in range(chance.choice((1, 12, 900))))
    )


def _mixture(chance: random.Random, files: list[Path]) -> Message:
    about, code, log = (shape(chance, files) for shape in (_prose_about_files, _code, _log))
    return Message(f"{about.text}\n{code.text}\n{log.text}"[:100_000], about.files)
