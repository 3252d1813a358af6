"""Files dragged into a terminal: found in the text that the terminal makes of them.

Every terminal writes a dropped path in its own way (quoted, escaped, raw, as a URL, several on a line or one a line),
and macOS puts characters into names that do not survive the way: a narrow no-break space before "PM" in a
screenshot's name, accents in two parts. So a text is read in every way there is, and a path that does not exist may
still mean the one file in its folder whose name differs only in such characters. Opens nothing.
"""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

LONGEST_DROP = 20_000
"""Characters beyond which a text is no list of dropped files."""

# A word, quoted from its beginning to its end or not at all (an apostrophe begins nothing), with backslash escapes.
_WORD = re.compile(
    r"""(?:'(?:\\'|[^'\n])*'|"(?:\\.|[^"\\\n])*"|\\.)+(?=[\s.,;:!?)\]}]|$)|(?:[^\s\\]|\\.|\\$)+""",
)
# A word where quotes are letters, as WezTerm and escaping terminals write names with quotes in them.
_UNQUOTED_WORD = re.compile(r"(?:[^ \\\n]|\\.)+")
# VS Code quotes every name, and writes a quote inside as a shell would not read it.
_VS_CODE_WORD = re.compile(r"'((?:\\'|[^'])*)'")
# What VS Code leaves out of a name altogether.
_LEFT_OUT = str.maketrans("", "", "`$|&>#!^*;<")
_APOSTROPHES = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "“": '"', "”": '"'})
_BEGINS_PATH = re.compile(r"""["']?(?:file://|~?/|\.\.?/)""")
_PUNCTUATION = ".,;:!?)]}\"'"
_MOST_WORDS = 24
"""Words that one unquoted name in the middle of a sentence may have."""


def dropped_files(text: str) -> list[Path] | None:
    """The files that a text names and has nothing else in it but them; None when it is anything else.

    Folders count: whoever opens them says what is wrong.
    """
    if not text.strip() or len(text) > LONGEST_DROP or "\0" in text:
        return None
    for find in (_literally, _by_folded_name):
        for reading in _readings(text):
            found = [find(candidate) for candidate in reading]
            if found and None not in found:
                return [path for path in found if path is not None]
    return None


def file_in(text: str) -> Path | None:
    """The one file that a text names."""
    found = dropped_files(text)
    return found[0] if found is not None and len(found) == 1 else None


def files_within(line: str, counts: Callable[[Path, str], bool]) -> Iterator[tuple[int, int, Path]]:
    """Files named somewhere in a sentence: where the name begins and ends, and the file.

    Args:
        counts: whether a file, and the word that names it, is meant; asked for existing files only.
    """
    if len(line) > LONGEST_DROP:
        return
    words = list(_WORD.finditer(line))
    number = 0
    while number < len(words):
        start = words[number].start()
        for last, end in _ends(line, words, number):
            path = file_in(line[start:end])
            if path is not None and path.is_file() and counts(path, line[start:end]):
                yield start, end, path
                number = last
                break
        number += 1


def names_only_paths(text: str) -> bool:
    """Whether a text can be nothing but paths, though perhaps of files that are not there.

    A space in front makes words of it.
    """
    if not _BEGINS_PATH.match(text):
        return False
    text = text.strip()
    if "://" not in text and text.count("/") < 2 and "." not in text:
        return False  # a command that does not exist
    words = _WORD.findall(text)
    one_name = re.search(r"\.\w{1,5}['\"]?$", text) is not None and "\n" not in text
    return one_name or all(_BEGINS_PATH.match(word) for word in words)


def _ends(line: str, words: list[re.Match[str]], number: int) -> Iterator[tuple[int, int]]:
    """Where a name that begins with a word may end, farthest first: which word is its last, and the position."""
    farthest = number
    if _BEGINS_PATH.match(words[number][0]):
        farthest = min(len(words), number + _MOST_WORDS) - 1
    for last in range(farthest, number - 1, -1):
        end = words[last].end()
        yield last, end
        bare = len(line[:end].rstrip(_PUNCTUATION))
        if words[last].start() < bare < end:
            yield last, bare


def _readings(text: str) -> Iterator[list[str]]:
    """The names a text may stand for, likeliest reading first."""
    stripped = text.strip()
    yield [text]
    yield [stripped]
    yield [line.strip("\r") for line in stripped.split("\n") if line.strip()]
    with suppress(ValueError):  # a quote that never closes: part of a name
        yield shlex.split(text)
    words = _UNQUOTED_WORD.findall(stripped)
    yield [word.replace("\\ ", " ") for word in words]
    yield [re.sub(r"\\(.)", r"\1", word) for word in words]
    if re.fullmatch(rf"(?:{_VS_CODE_WORD.pattern}\s*)+", stripped):
        yield [word.replace("\\'", "'") for word in _VS_CODE_WORD.findall(stripped)]
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        yield [re.sub(r"\\(.)", r"\1", stripped[1:-1])]


def _path(candidate: str) -> Path:
    if candidate.startswith("file://"):
        address = candidate.removeprefix("file://").removeprefix("localhost")
        return Path(os.fsdecode(urllib.parse.unquote_to_bytes(address)))
    return Path(candidate).expanduser()


def _literally(candidate: str) -> Path | None:
    try:
        path = _path(candidate)
        return path if candidate and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long for a name, a NUL in it, "~nobody"
        return None


def _by_folded_name(candidate: str) -> Path | None:
    """The only file in the named folder whose name is the same but for what gets lost on the way."""
    if path := _literally(candidate):
        return path
    if "/" not in candidate:
        return None
    try:
        path = _path(candidate)
        beside = [other for other in path.parent.iterdir() if not other.name.startswith(".")]
    except (OSError, ValueError, RuntimeError):
        return None
    for fold in (_folded, _folded_as_vs_code):
        alike = [other for other in beside if fold(other.name) == fold(path.name)]
        if len(alike) == 1:
            return alike[0]
    return None


def _folded(name: str) -> str:
    name = unicodedata.normalize("NFC", name).translate(_APOSTROPHES)
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in name)


def _folded_as_vs_code(name: str) -> str:
    return _folded(name).translate(_LEFT_OUT)
