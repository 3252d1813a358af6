"""Stopping is a question: long work asks its caller between two steps, and nobody has to break into it."""

from __future__ import annotations

from collections.abc import Callable


class StopAsked:
    """A caller's `should_stop`, which is not asked again once it has said yes. Asking it is asking the caller.

    Attributes:
        said_yes: whether it has. Another thread may say it for the caller.
    """

    def __init__(self, should_stop: Callable[[], bool] | None) -> None:
        self.said_yes = False
        self._should_stop = should_stop

    def __call__(self) -> bool:
        if not self.said_yes and self._should_stop is not None and self._should_stop():
            self.said_yes = True
        return self.said_yes
