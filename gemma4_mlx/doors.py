"""What a room offers by name is imported when it is asked for, so that the room itself is imported at once.

A room that imported its files would be waited for by whoever imports one of them, and would wait for that file itself:
with two threads Python ends such a wait by handing out half a module (bpo-38091).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def door(room: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A room's `__getattr__`.

    Args:
        room: the package's name.
        homes: of each name that it offers, the file it comes from.
    """

    def import_on_first_use(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(import_module(f".{homes[name]}", room), name)
        setattr(sys.modules[room], name, value)
        return value

    return import_on_first_use
