"""What the arrow keys bring back: lines of this run and of earlier ones, with files' paths in place of tokens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable

import platformdirs
from prompt_toolkit.history import History

from ..terminal import note
from .history_file import NAME, HistoryFile, Place
from .line_tokens import Tokens


class LineHistory(History):
    """Lines, kept across runs but for those of private chats.

    Args:
        tokens: what stands for attachments and long pastes in the line.
        place: where a line is typed now; None: it is not written down.
        say: puts a note above the line.
    """

    def __init__(self, tokens: Tokens, place: Callable[[], Place | None], say: Callable[[str], None]) -> None:
        super().__init__()
        self._tokens = tokens
        self._place = place
        self._say = say
        self._file = HistoryFile(platformdirs.user_data_path("gemma4-mlx") / NAME)
        self._version = self._file.version()
        self._fails = False

    async def load(self) -> AsyncGenerator[str, None]:
        """The lines, the last one first; none that was forgotten meanwhile, here or in another chat."""
        if self._loaded and not self._fails and self._version is not None and self._file.version() != self._version:
            self._loaded = False
            self._version = self._file.version()
        async for line in super().load():
            yield line

    def load_history_strings(self) -> Iterable[str]:
        """The lines of earlier runs, the last one first."""
        try:
            lines = self._file.lines()
        except OSError as error:
            self._tell(error, note)
            return []
        return map(self._tokens.recalled, reversed(lines))

    def store_string(self, string: str) -> None:
        """Write a line down; a full disk is no reason to lose the message itself."""
        place = self._place()
        if place is None or self._fails:
            return
        try:
            self._file.add(self._tokens.remembered(string), place)
        except OSError as error:
            self._tell(error, self._say)
        self._version = self._version or self._file.version()

    def _tell(self, error: OSError, say: Callable[[str], None]) -> None:
        if not self._fails:
            say(f"note: what you type is not remembered ({self._file.path}: {error.strerror})")
        self._fails = True
