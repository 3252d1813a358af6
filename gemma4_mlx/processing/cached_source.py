"""A picture, sound or video that is used in many prompts, such as every later turn of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class CachedSource:
    """Wraps the source of a picture, sound or video in a message; the source is read once.

    The file must not change: it is not opened a second time. Only the latest result is kept, so another
    `image_tokens` replaces the one before. Any number of threads may use it.

    Args:
        source: a picture, sound or video in any form that `Processor` takes.

    Attributes:
        source: the source it was given.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self._prepared: tuple[Hashable, Any] | None = None

    def __repr__(self) -> str:
        return f"CachedSource({getattr(self.source, 'name', None) or type(self.source).__name__})"

    def prepared(self, way: Hashable, prepare: Callable[[Any], T]) -> T:
        """The result of `prepare(source)`; the last one again, if `way` is the same as then."""
        remembered = self._prepared  # another thread may remember another way meanwhile
        if remembered is None or remembered[0] != way:
            self._prepared = remembered = (way, prepare(self.source))
        prepared: T = remembered[1]
        return prepared
