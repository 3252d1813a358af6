"""What single methods and filters of a chat template would make or take, worked out before they run.

`METHODS` stand in for those of texts, `FILTERS` look at what a filter is given. What is in neither makes at most a
little more than it is given, and is measured afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from sys import getsizeof
from typing import Any, cast

from .template_budget import CONTAINER, Budget, TooMuchError

_LONGEST_PATTERN = 1_000  # characters of a format, or of what is looked for in a way that is slow
_A_PIECE = 64  # bytes of one of the many small texts that a split makes


# Checks, each before the text is made.


def _joined(budget: Budget, between: str, items: Any) -> list[Any]:
    if isinstance(items, str):
        budget.charge(_A_PIECE * len(items))
    found = budget.listed(iter(items))
    budget.charge(getsizeof(between) * len(found) + budget.measure(found)[0])
    return found


def _replaced(budget: Budget, text: str, old: str, new: str) -> None:
    budget.charge(getsizeof(text) + text.count(old) * getsizeof(new) if new else getsizeof(text))


def _split(budget: Budget, text: str, between: Any) -> None:
    pieces = text.count(between) + 1 if between else len(text) // 2
    budget.charge(_A_PIECE * pieces)


def _padded(budget: Budget, width: Any) -> None:
    budget.charge(4 * max(0, int(width)))


def _short(pattern: Any) -> None:
    if isinstance(pattern, str) and len(pattern) > _LONGEST_PATTERN:
        raise TooMuchError(f"looks for more than {_LONGEST_PATTERN} characters at once")


# Methods of texts that can make much of little, or take long.


def _join(budget: Budget, text: str, items: Any) -> str:
    return text.join(_joined(budget, text, items))


def _replace(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    _replaced(budget, text, old, new)
    return text.replace(old, new, count)


def _splitting(name: str) -> Callable[..., list[str]]:
    def split(budget: Budget, text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
        _short(sep)
        _split(budget, text, sep)
        return cast("list[str]", getattr(text, name)(sep, maxsplit))

    return split


def _split_lines(budget: Budget, text: str, keepends: bool = False) -> list[str]:
    _split(budget, text, None)
    return text.splitlines(keepends)


def _padding(name: str) -> Callable[..., str]:
    def pad(budget: Budget, text: str, width: int, *fill: str) -> str:
        _padded(budget, width)
        return cast(str, getattr(text, name)(width, *fill))

    return pad


def _looking(name: str) -> Callable[..., Any]:
    """Methods that may compare all of what they look for at every letter."""

    def look(budget: Budget, text: str, *args: Any) -> Any:
        for pattern in args[:1]:
            _short(pattern)
        return getattr(text, name)(*args)

    return look


METHODS: dict[str, Callable[..., Any]] = {
    "join": _join,
    "replace": _replace,
    "split": _splitting("split"),
    "rsplit": _splitting("rsplit"),
    "splitlines": _split_lines,
    **{name: _padding(name) for name in ("center", "ljust", "rjust", "zfill")},
    **{name: _looking(name) for name in ("rfind", "rindex", "rpartition", "strip", "lstrip", "rstrip")},
}


# Filters that make a text for people, or a web page, out of a text: no prompt needs them, and they can take long.
NO_FILTERS = ("pprint", "striptags", "urlize", "wordwrap", "xmlattr")


def _pieces(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    if isinstance(value, str):
        budget.charge(_A_PIECE * len(value))


def _check_join(budget: Budget, value: Any, d: Any = "", attribute: Any = None) -> None:
    items = _joined(budget, str(d), value)
    if attribute is not None:  # may be a large text in each, the same in all
        size = sum(budget.measure(item)[0] for item in items)
        budget.charge(size)


def _check_replace(budget: Budget, s: Any, old: Any, new: Any, count: Any = None) -> None:
    _replaced(budget, str(s), str(old), str(new))


def _check_center(budget: Budget, value: Any, width: Any = 80) -> None:
    _padded(budget, width)


def _check_indent(budget: Budget, s: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    wide = len(width) if isinstance(width, str) else int(width)
    _padded(budget, wide * (str(s).count("\n") + 2) if wide > 0 else 0)


def _check_format(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    check_format(budget, str(value), "%", (args, kwargs))


def check_format(budget: Budget, pattern: str, sign: str, values: Any) -> None:
    """Of a text that is filled in: `sign` begins each place in it."""
    if len(pattern) > _LONGEST_PATTERN or (sign == "%" and _WIDE.search(pattern)):
        raise TooMuchError("formats text too wide")
    budget.charge(pattern.count(sign) * budget.measure(values)[0])


# A width that is given apart, or has four digits. A name in parentheses may stand before it.
_WIDE = re.compile(r"%(?:\(.*\))?[-#0+ .\d]*?(?:\*|\d{4})", re.DOTALL)


def _check_round(budget: Budget, value: Any, precision: Any = 0, method: Any = "common") -> None:
    if abs(precision) > 100:
        raise TooMuchError("rounds to more than 100 digits")


def _check_trim(budget: Budget, value: Any, chars: Any = None) -> None:
    _short(chars)


def _check_count(budget: Budget, value: Any, count: Any, fill_with: Any = None) -> None:
    budget.charge((budget.measure(fill_with)[0] + CONTAINER) * abs(int(count)))
    _pieces(budget, value)


def _check_sum(budget: Budget, iterable: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, int | float):
        raise TooMuchError("adds up what is no number")


def _check_tojson(
    budget: Budget, value: Any, ensure_ascii: Any = False, indent: Any = None, separators: Any = None,
    sort_keys: Any = False,
) -> None:  # fmt: skip
    size, depth = budget.measure(value)
    wide = len(indent) if isinstance(indent, str) else indent or 0
    wide = max(0, wide) * depth + sum(map(len, separators or ()))
    budget.charge(size * (16 + wide) // 16)


FILTERS: dict[str, Callable[..., None]] = {
    "join": _check_join,
    "replace": _check_replace,
    "center": _check_center,
    "indent": _check_indent,
    "format": _check_format,
    "round": _check_round,
    "trim": _check_trim,
    "batch": _check_count,
    "slice": _check_count,
    "sum": _check_sum,
    "tojson": _check_tojson,
    "truncate": _pieces,
    **dict.fromkeys(("list", "sort", "unique", "groupby", "title", "wordcount", "map", "select", "reject"), _pieces),
}
