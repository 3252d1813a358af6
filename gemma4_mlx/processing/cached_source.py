"""A picture, sound or video that is part of many prompts, as it is of every later turn of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class CachedSource:
    """Wraps the source of a picture, sound or video in a message; it is read and prepared once, then remembered.

    What stands behind it must not change: a file is not opened a second time. Only the latest way of preparing it is
    remembered, so another `image_tokens` takes the place of the one before. Any number of threads may use it.

    Args:
        source: what a message may have without this, see `Processor`.

    Attributes:
        source: what it was given.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self._prepared: tuple[Hashable, Any] | None = None

    def __repr__(self) -> str:
        return f"CachedSource({getattr(self.source, 'name', None) or type(self.source).__name__})"

    def prepared(self, way: Hashable, prepare: Callable[[Any], T]) -> T:
        """`prepare(source)`, or what that gave the last time, if `way` is the same."""
        remembered = self._prepared  # another thread may remember another way meanwhile
        if remembered is None or remembered[0] != way:
            self._prepared = remembered = (way, prepare(self.source))
        prepared: T = remembered[1]
        return prepared
