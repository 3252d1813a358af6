"""What `--words` names: words with commas between them, or a file of one word a line."""

from __future__ import annotations

import os

from gemma4_mlx.errors import InputError

_LARGEST_FILE = 64 << 10  # bytes; ten times as many as a prompt takes


def named_words(value: str) -> list[str]:
    """The words of a list or of a file, empty ones left out.

    A value that is a file's path is that file; any other value is a list.

    Raises:
        InputError: the file is not there, cannot be read, is not text, or is too large; or no word is named.
    """
    path = os.path.expanduser(value)
    is_file = os.path.exists(path) and not os.path.isdir(path)
    if not is_file and "," not in value and value.lower().endswith(".txt"):
        raise InputError(f"{value} is not there: check the path of --words")
    named = _lines(path) if is_file else value.split(",")
    words = [word for word in map(str.strip, named) if word]
    if not words:
        where = f"{value} has no words in it" if is_file else "--words names no word"
        raise InputError(f'{where}: give names and terms, as in --words "MLX, Grafana", or a file of one a line')
    return words


def _lines(path: str) -> list[str]:
    try:
        with open(path, "rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _LARGEST_FILE:
        raise InputError(f"{path} is too large for a list of words: at most 64 KB, one word a line")
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: --words takes a file of one word a line") from error
