"""What a chat template may still take of time and memory, counted while it renders.

One rule holds it together: no value is larger than `Budget.largest`, a list in itself any number of times counted every
time. So whatever Python or Jinja does to one in a single step (writes it out, compares, sorts, hashes it) takes a
bounded time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import chain
from sys import getsizeof
from typing import Any

# All beyond what the messages themselves take: no template copies a conversation a hundred times.
_LARGEST_VALUE = 1 << 20  # bytes
_LARGEST_TIMES = 8  # the size of the messages
_ALL_VALUES = 128 << 20
_ALL_TIMES = 128
# 200 turns take a third of a second where two other programs want the same cores.
_SECONDS = 5.0
_SECONDS_A_MESSAGE = 0.01
_DEEPEST = 200
LONGEST_INTEGER = 20_000  # bits

_LOOK_AT_THE_CLOCK = 256  # steps
LARGE = 1 << 16  # bytes that are worth a look
CONTAINER = 200  # bytes, with what is remembered of it


class TooMuchError(Exception):
    """A template takes more than it may; the message ends the sentence "the chat template …"."""


class Budget:
    """What one rendering may still take."""

    def __init__(self, messages: int = 0) -> None:
        self.largest = _LARGEST_VALUE
        self._left = _ALL_VALUES
        self._steps = 0
        # The time of this thread alone: another program's load is not the template's fault.
        self._end = time.thread_time() + _SECONDS + _SECONDS_A_MESSAGE * messages
        # By id, with the container itself, so that the id stays its own. Templates cannot change a container.
        self._measured: dict[int, tuple[Any, int, int]] = {}

    def give(self, *values: Any) -> None:
        """Allow for what the template is given."""
        self.largest = self._left = 1 << 62
        given = sum(self.measure(value)[0] for value in values)
        self.largest = _LARGEST_VALUE + _LARGEST_TIMES * given
        self._left = _ALL_VALUES + _ALL_TIMES * given

    def step(self) -> None:
        """Count one step."""
        self._steps += 1
        if self._steps % _LOOK_AT_THE_CLOCK == 0:
            self.look()

    def look(self) -> None:
        """Look at the clock."""
        if time.thread_time() > self._end:
            raise TooMuchError("takes too long")

    def charge(self, size: int) -> None:
        """Count a new value of `size` bytes."""
        self._left -= size
        if size > self.largest or self._left < 0:
            raise TooMuchError("takes too much memory")
        if size > LARGE:
            self.look()
        else:
            self.step()

    def made(self, value: Any) -> Any:
        """Count `value`, which the template has made or had made."""
        if isinstance(value, str | bytes):
            self.charge(getsizeof(value))
        elif type(value) is int:
            if value.bit_length() > LONGEST_INTEGER:
                raise TooMuchError("makes too large a number")
        elif isinstance(value, list | tuple | dict | set | frozenset):
            self.measure(value)
        return value

    def measure(self, value: Any) -> tuple[int, int]:
        """Size and depth of a value, what is in it twice counted twice. A new container is charged."""
        kind = type(value)
        if kind is str or kind in _PLAIN:
            return getsizeof(value), 0
        parts: Iterable[Any]
        if kind is dict or isinstance(value, dict):
            parts = chain(value, value.values())
        elif kind is list or isinstance(value, list | tuple | set | frozenset | _VIEWS):
            parts = value
        else:
            return getsizeof(value), 0
        known = self._measured.get(id(value))
        if known is not None:
            return known[1], known[2]
        size, depth = CONTAINER + 8 * len(value), 0
        for part in parts:
            if type(part) is str:
                size += getsizeof(part)
            else:
                part_size, part_depth = self.measure(part)
                size += part_size
                if part_depth > depth:
                    depth = part_depth
            if size > self.largest:
                raise TooMuchError("takes too much memory")
        if depth >= _DEEPEST and self.largest < 1 << 62:
            raise TooMuchError("nests too deep")
        self.charge(CONTAINER + 8 * len(value))
        self._measured[id(value)] = value, size, depth + 1
        return size, depth + 1

    def listed(self, items: Iterator[Any]) -> list[Any]:
        """What an iterator still has."""
        found, size = [], 0
        for item in items:
            self.step()
            size += self.measure(item)[0] + 8
            if size > self.largest:
                raise TooMuchError("takes too much memory")
            found.append(item)
        return found


_PLAIN = (bool, int, float, type(None))
_VIEWS: Any = type({}.keys()) | type({}.values()) | type({}.items())
