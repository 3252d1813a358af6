"""How messages show what stands in a stranger's file: its names, values and times. Always on one line, and short."""

from __future__ import annotations

_LONGEST = 120  # characters


def shown(value: object) -> str:
    """A value as Python writes it: a text in quotes, with control characters and marks of direction escaped."""
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…")
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def shown_name(name: str) -> str:
    """A name as it is, or as `shown` has it if something in it would not be seen."""
    if not name.isprintable():
        return shown(name)
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"


def clock(seconds: float) -> str:
    """A time as players show it, in whole seconds that have passed: 0:07, 12:30, 1:02:03."""
    minutes, second = divmod(int(max(seconds, 0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
