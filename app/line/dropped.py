"""Files dragged into a terminal: found in the text that the terminal makes of them. Opens nothing.

Every terminal writes a dropped path in its own way (quoted, escaped, raw, as a URL, several on a line or one a line),
and macOS puts characters into names that do not survive the way: a narrow no-break space before "PM" in a
screenshot's name, accents in two parts. So a text is read in every way there is, and a path that does not exist may
still mean the one file in its folder whose name differs only in such characters.

A message may be any text of any length and name any folder. So a reading ends at the first word that is no path,
folders are listed only for a drop, each one once and a bounded number of names, and a sentence is searched only at
the suffixes in it.
"""

from __future__ import annotations

import os
import re
import unicodedata
import urllib.parse
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path

LONGEST_DROP = 100_000
"""Characters beyond which a text is no list of dropped files."""
_LONGEST_PATH = 4_096
_LONGEST_WORD = 3 * _LONGEST_PATH  # every letter of it escaped, or in a URL
_MOST_NAMES_LISTED = 20_000
"""Names in folders that are compared with those of one drop, all folders together."""
_MOST_FILES = 500
"""Paths in one drop."""
_MOST_MISSING = 50
"""Paths that are not there, before one is, in what may still be a drop."""
_MOST_CHECKS = 1_000
"""Times that a file is asked for in one message."""
_LONGEST_NAME = 1_024
"""Characters of one name in a sentence."""
_MOST_BEGINNINGS = 4
"""Words before a suffix that may begin an unquoted name with spaces."""

# A word as a shell reads it: quotes and escapes joined together.
_SHELL_WORD = re.compile(r"""(?:[^\s'"\\]++|\\.|'[^']*+'|"(?:[^"\\]++|\\.)*+")++""", re.DOTALL)
_SHELL_PART = re.compile(
    r"""[^'"\\]++|\\(?P<escaped>.)|'(?P<quoted>[^']*+)'|["](?P<double>(?:[^"\\]++|\\.)*+)["]""", re.DOTALL
)
# A word where quotes are letters, as WezTerm and escaping terminals write names with quotes in them.
_UNQUOTED_WORD = re.compile(r"(?:[^ \\\n]++|\\.)++")
# VS Code quotes every name, and writes a quote inside as a shell would not read it.
_VS_CODE_WORD = re.compile(r"'((?:\\'|[^'])*+)'")
# What VS Code leaves out of a name altogether.
_LEFT_OUT = str.maketrans("", "", "`$|&>#!^*;<")
_LOST_ON_SOME_WAY = b"`$|&>#!^*;< '\""
# Unicode's spaces (category Zs), and quotes that keyboards and macOS put in the place of plain ones.
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_ALIKE = str.maketrans(_SPACES + "‘’ʼ“”", " " * len(_SPACES) + "'''" + '""')
_PATH = r"(?:file://|~?/|\.\.?/)"
_BEGINS_PATH = re.compile(_PATH)
_PATH_IN_SENTENCE = re.compile(rf"""(?:^|(?<=[\s(\[{{<"'“‘«=:,]))(?=["']?{_PATH})""")
# What may be a path of something that is not there: not a command, and not a comment in a program.
_MAY_BE_PATH = re.compile(r"(?:file://|~/|/[^/\s])(?:.*/.|.*\.\w{1,5}$)", re.DOTALL)
_ENDS_IN_SUFFIX = re.compile(r"\.\w{1,5}$")
_OPENING = "([{<\"'“‘«="


@dataclass(frozen=True)
class Drop:
    """A text that is nothing but paths.

    Attributes:
        files: those that exist; folders and devices count.
        missing: those that do not.
    """

    files: list[Path]
    missing: list[str] = field(default_factory=list)


def read_drop(text: str) -> Drop | None:
    """The paths that a text is made of, if it has nothing else in it; None for anything else."""
    if not text.strip() or len(text) > LONGEST_DROP or "\0" in text:
        return None
    folders = _Folders()
    for find in (_literally, folders.find):
        for reading in _readings(text):
            found = _all(map(find, reading))
            if found:
                return Drop(found)
    return _with_some_missing(text, folders)


def dropped_files(text: str) -> list[Path] | None:
    """The files that a text names and has nothing else in it but them; None when it is anything else.

    Folders count: whoever opens them says what is wrong.
    """
    drop = read_drop(text)
    return None if drop is None or drop.missing else drop.files


def files_within(line: str, suffixes: Iterable[str]) -> Iterator[tuple[int, int, Path]]:
    """Files named somewhere in a sentence: where the name begins and ends, and the file.

    Args:
        suffixes: of the files that are looked for, in lower case and with their dots.
    """
    checks = 0
    after = 0  # where the last name ended
    paths = [match.start() for match in _PATH_IN_SENTENCE.finditer(line)]
    for suffix in _suffix_pattern(tuple(suffixes)).finditer(line):
        end = suffix.end()
        for start, stop, name in _names_that_end(line, max(after, end - _LONGEST_NAME), end, paths):
            checks += 1
            if checks > _MOST_CHECKS:
                return
            path = _literally(name)
            if path is not None and path.is_file():
                if start > after and stop < len(line) and line[start - 1] == line[stop] and line[stop] in "'\"":
                    start, stop = start - 1, stop + 1
                yield start, stop, path
                after = stop
                break


@cache
def _suffix_pattern(suffixes: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = "|".join(re.escape(suffix[1:]) for suffix in sorted(suffixes, key=len, reverse=True))
    return re.compile(rf"\.(?:{longest_first})(?![\w/]|\.\w|-\w)", re.IGNORECASE)


def _names_that_end(line: str, first: int, end: int, paths: list[int]) -> Iterator[tuple[int, int, str]]:
    """What may be a name that ends in the suffix at `end`: where it stands, and what it means. The nearest first.

    Args:
        first: where it may begin.
        paths: where words begin that a path may begin with.
    """
    first = max(first, line.rfind("\n", first, end) + 1)
    last = bisect_left(paths, end)
    starts = [start for start in reversed(paths[max(0, last - _MOST_BEGINNINGS) : last]) if start >= first]
    word = _word_start(line, first, end)
    bare = word + len(line[word:end]) - len(line[word:end].lstrip(_OPENING))
    quote = line.rfind(line[end], first, end) if line[end : end + 1] in ("'", '"') else -1
    tried = set()
    for start in (*starts, word, bare, quote):
        if start < 0 or start >= end:
            continue
        readings = [(end, line[start:end])]
        if "\\" in line[start:end]:
            readings += [(end, line[start:end].replace("\\ ", " ")), (end, _unescaped(line[start:end]))]
        if line[start] in "'\"" or "'" in line[start:end] or '"' in line[start:end]:
            closed = end + 1 if line[end : end + 1] in ("'", '"') else end
            shell_word = _SHELL_WORD.match(line, start, closed)
            if shell_word is not None and shell_word.end() == closed:
                readings.append((closed, _unquoted(shell_word[0])))
            vs_code_word = _VS_CODE_WORD.match(line, start, closed)
            if vs_code_word is not None and vs_code_word.end() == closed:
                readings.append((closed, vs_code_word[1].replace("\\'", "'")))
        for stop, name in readings:
            if name not in tried:
                tried.add(name)
                yield start, stop, name


def _word_start(line: str, first: int, end: int) -> int:
    """Where the word that ends at `end` begins; a space with a backslash before it is part of the word."""
    space = end
    while space > first:
        space = max(line.rfind(" ", first, space), line.rfind("\t", first, space))
        if space <= first or line[space - 1] != "\\":
            break
    return max(space + 1, first)


def _all(found: Iterable[Path | None]) -> list[Path] | None:
    """Everything found; None as soon as something was not, or when it is too much."""
    paths: list[Path] = []
    for path in found:
        if path is None or len(paths) >= _MOST_FILES:
            return None
        paths.append(path)
    return paths


def _readings(text: str) -> Iterator[Iterable[str]]:
    """The names a text may stand for, likeliest reading first; a word that cannot be read is "", no file's name."""
    stripped = text.strip()
    yield [text]
    yield [stripped]
    yield _lines(stripped)
    yield _shell_words(stripped)
    yield (word.replace("\\ ", " ") for word in _words(stripped))
    yield map(_unescaped, _words(stripped))
    if stripped[0] == "'":
        yield _vs_code_words(stripped)
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        yield [_unescaped(stripped[1:-1])]


def _lines(text: str) -> Iterator[str]:
    return (line.strip("\r") for line in text.split("\n") if line.strip())


def _words(text: str) -> Iterator[str]:
    return (word[0] if len(word[0]) <= _LONGEST_WORD else "" for word in _UNQUOTED_WORD.finditer(text))


def _shell_words(text: str) -> Iterator[str]:
    end = 0
    while end < len(text):
        word = _SHELL_WORD.match(text, end)
        # A quote that never closes is part of a name.
        if word is None or len(word[0]) > _LONGEST_WORD or (word.end() < len(text) and not text[word.end()].isspace()):
            yield ""
            return
        yield _unquoted(word[0])
        end = word.end()
        while end < len(text) and text[end].isspace():
            end += 1


def _unquoted(word: str) -> str:
    """What a shell makes of a word."""
    parts = []
    for part in _SHELL_PART.finditer(word):
        if part["double"] is not None:
            parts.append(re.sub(r'\\(["\\])', r"\1", part["double"]))
        else:
            parts.append(part["escaped"] or (part[0] if part["quoted"] is None else part["quoted"]))
    return "".join(parts)


def _vs_code_words(text: str) -> Iterator[str]:
    end = 0
    while end < len(text):
        word = _VS_CODE_WORD.match(text, end)
        if word is None:
            yield ""
            return
        yield word[1].replace("\\'", "'")
        end = word.end()
        while end < len(text) and text[end].isspace():
            end += 1


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _with_some_missing(text: str, folders: _Folders) -> Drop | None:
    """The reading in which every word is a path and most of them exist."""
    best: Drop | None = None
    lines = [line for line in _lines(text.strip()) if _ENDS_IN_SUFFIX.search(line) and ": " not in line]
    spaced = [lines] if len(lines) == text.strip().count("\n") + 1 else []
    words = (_shell_words(text.strip()), map(_unescaped, _words(text.strip())), _vs_code_words(text.strip()))
    for reading in (*spaced, *words):
        files: list[Path] = []
        missing: list[str] = []
        for name in reading:
            is_too_much = len(files) + len(missing) >= _MOST_FILES or (len(missing) >= _MOST_MISSING and not files)
            path = None if is_too_much else folders.find(name)
            if is_too_much or not _BEGINS_PATH.match(name) or (path is None and not _MAY_BE_PATH.match(name)):
                break
            if path is None:
                missing.append(name)
            else:
                files.append(path)
        else:
            if best is None or len(files) > len(best.files):
                best = Drop(files, missing)
    return best


def _path(candidate: str) -> str:
    if candidate.startswith("file://"):
        address = candidate.removeprefix("file://").removeprefix("localhost")
        return os.fsdecode(urllib.parse.unquote_to_bytes(address))
    return os.path.expanduser(candidate)


def _literally(candidate: str) -> Path | None:
    if not candidate or len(candidate) > _LONGEST_PATH:
        return None
    path = _path(candidate)
    return Path(path) if os.path.exists(path) else None  # False also for what cannot be a path, such as one with a NUL


class _Folders:
    """The folders that one drop names, each listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[bytes, list[str]]] = {}
        self._folded: dict[tuple[Path, bytes, Callable[[str], str]], dict[str, list[str]]] = {}
        self._left = _MOST_NAMES_LISTED

    def find(self, candidate: str) -> Path | None:
        """The only file in the named folder whose name is the same but for what gets lost on the way."""
        if path := _literally(candidate):
            return path
        if not _BEGINS_PATH.match(candidate) or not _ENDS_IN_SUFFIX.search(candidate):
            return None
        if len(candidate) > _LONGEST_PATH:
            return None
        path = Path(_path(candidate))
        for fold in (_folded, _folded_as_vs_code):
            alike = self._alike(path, fold).get(fold(path.name), [])
            if len(alike) == 1:
                return path.parent / alike[0]
        return None

    def _alike(self, path: Path, fold: Callable[[str], str]) -> dict[str, list[str]]:
        """The names beside a path that are nearly its own, by what is left of them."""
        key = _skeleton(path.name)
        if (path.parent, key, fold) not in self._folded:
            folded = self._folded[path.parent, key, fold] = {}
            for name in self._names(path.parent).get(key, []):
                folded.setdefault(fold(name), []).append(name)
        return self._folded[path.parent, key, fold]

    def _names(self, folder: Path) -> dict[bytes, list[str]]:
        """The names in a folder that are not hidden, by skeleton; as many as one drop may have compared."""
        if folder not in self._listed:
            names = self._listed[folder] = {}
            try:
                with os.scandir(folder) as entries:
                    for entry in islice(entries, self._left):
                        self._left -= 1
                        if not entry.name.startswith("."):
                            names.setdefault(_skeleton(entry.name), []).append(entry.name)
            except (OSError, ValueError):  # no such folder, or not for us
                pass
        return self._listed[folder]


def _skeleton(name: str) -> bytes:
    """What of a name no way changes: quick to make, and the same for all names that fold to one."""
    if not name.isascii():
        name = unicodedata.normalize("NFD", name)
    return name.encode("ascii", "ignore").translate(None, _LOST_ON_SOME_WAY)


def _folded(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name).translate(_ALIKE)


def _folded_as_vs_code(name: str) -> str:
    return _folded(name).translate(_LEFT_OUT)
