"""A picture, sound or video that is used in many prompts, such as every later turn of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class CachedSource:
    """Wraps the source of a picture, sound or video in a message; the source is read once.

    The file must not change: it is not opened a second time. Only the latest result is kept, so another
    `image_tokens` replaces the one before.

    Args:
        source: a picture, sound or video in any form that `Processor` takes.

    Attributes:
        source: the source it was given.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self._prepared: tuple[Hashable, Any] | None = None

    def prepared(self, way: Hashable, prepare: Callable[[Any], T]) -> T:
        """The result of `prepare(source)`; the last one again, if `way` is the same as then."""
        if self._prepared is None or self._prepared[0] != way:
            self._prepared = (way, prepare(self.source))
        prepared: T = self._prepared[1]
        return prepared
