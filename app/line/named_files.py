"""Which files a message names, and which of them are attached to it.

A message is a message. A file that exists is attached when it was dropped, when its name is all that was typed, or when
it is named in a sentence that somebody typed. Everything else is words, and stays as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gemma4_mlx.config import DEFAULT_IMAGE_TOKENS
from gemma4_mlx.errors import Gemma4Error

from ..exit_codes import one_line
from ..printable import printable
from ..terminal import shortened
from .attachments import SUFFIXES, Attachment, open_attachment, suffix_kind
from .dropped import dropped_files, files_within, read_drop

_MOST_UNTOLD = 4
"""Files dropped at once whose names do not tell what they are; they are opened to see."""
_MOST_TOLD = 3
"""Files that a note names one by one."""


@dataclass(frozen=True)
class Dropped:
    """What a text is that was dropped or pasted.

    Attributes:
        attachments: the files in it; none when it is words.
        refused: why other files in it are not attached, a line each.
        is_words: it may be meant as words.
    """

    attachments: list[Attachment] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    is_words: bool = False


@dataclass(frozen=True)
class Typed:
    """What a text is that was typed.

    Attributes:
        pieces: words, and attachments with their names as they are spelled in the words.
        refused: why other files in it are not attached, a line each.
        is_files: it is nothing but the names of files; none of them is words.
    """

    pieces: list[str | tuple[Attachment, str]]
    refused: list[str] = field(default_factory=list)
    is_files: bool = False


def read_dropped(text: str, image_tokens: int = DEFAULT_IMAGE_TOKENS) -> Dropped:
    """Open the files in what was dropped or pasted."""
    drop = read_drop(text)
    if drop is None or not _are_meant(drop.files, text):
        return Dropped(is_words=True)
    attachments, refused = open_files(drop.files, image_tokens)
    refused += map(_missing, drop.missing)
    # Somebody who pastes paths of folders, programs or things elsewhere may want to talk about them.
    is_words = not attachments and not (drop.files and all(_is_attachable(path) for path in drop.files))
    return Dropped(attachments, refused, is_words)


def read_typed(
    text: str, image_tokens: int = DEFAULT_IMAGE_TOKENS, is_foreign: Callable[[str], bool] = lambda _: False
) -> Typed:
    """Open the files that a typed text names.

    In a sentence only files count whose suffix tells what they are; a text only with its folder, because `README.md`
    may be no more than a word.

    Args:
        is_foreign: whether a name, as it is spelled, came into the line by other ways than typing.
    """
    drop = read_drop(text)
    if drop is not None and drop.files and _are_meant(drop.files, text) and not is_foreign(text.strip()):
        attachments, refused = open_files(drop.files, image_tokens)
        if attachments:
            return Typed(
                [(attachment, "") for attachment in attachments],
                [*refused, *map(_missing, drop.missing)],
                is_files=True,
            )
        if any(map(_is_attachable, drop.files)):
            return Typed([text], refused, is_files=True)
        return Typed([text])
    pieces: list[str | tuple[Attachment, str]] = []
    refused = []
    seen: set[Path] = set()
    end = 0
    for name, stop, path in _named(text):
        if path in seen or is_foreign(name):
            continue
        seen.add(path)
        attachments, refusals = open_files([path], image_tokens)
        refused += refusals
        if attachments:
            pieces += [text[end : stop - len(name)], (attachments[0], name)]
            end = stop
    return Typed([*pieces, text[end:]], refused)


def names_in(text: str) -> list[tuple[str, Path]]:
    """The files that a pasted text names and that could be attached: as they are spelled, and where they are."""
    named = {path: name for name, _, path in _named(text)}
    return [(name, path) for path, name in named.items()]


def open_files(files: Iterable[Path], image_tokens: int = DEFAULT_IMAGE_TOKENS) -> tuple[list[Attachment], list[str]]:
    """The files that can be attached, and for each of the others a line that says why not."""
    attachments = []
    refused = []
    for file in files:
        try:
            attachments.append(open_attachment(file, image_tokens=image_tokens))
        except (Gemma4Error, OSError) as error:
            refused.append(one_line(error))
    return attachments, refused


def refusal(refused: list[str]) -> str:
    """A note that names what is not attached."""
    told = "; ".join(refused[:_MOST_TOLD])
    more = len(refused) - _MOST_TOLD
    return f"not attached: {told}" + (f"; and {more} more" if more > 0 else "")


def unquoted(text: str) -> str:
    """A path as it was meant: without the quotes and backslashes a terminal puts in when a file is dropped on it."""
    files = dropped_files(text)
    return str(files[0]) if files is not None and len(files) == 1 else text.strip()


def _missing(name: str) -> str:
    return f"{shortened(printable(name), 300)} does not exist"


def _named(text: str) -> Iterable[tuple[str, int, Path]]:
    """Names in a sentence as they are spelled, where they end, and their files."""
    for start, end, path in files_within(text, SUFFIXES):
        name = text[start:end]
        if suffix_kind(path) != "text" or "/" in name:
            yield name, end, path


def _are_meant(files: list[Path], text: str) -> bool:
    """Whether a text that is nothing but names means files.

    Every folder is full of names that are words, and a list of programs or folders is a text about them.
    """
    few = "/" in text and len(files) <= _MOST_UNTOLD
    return few or all(_is_attachable(path) for path in files)


def _is_attachable(path: Path) -> bool:
    return suffix_kind(path) is not None and path.is_file()
