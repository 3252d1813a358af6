"""What a person at a terminal sees of a download that a program of theirs has begun: huggingface_hub's own bar.

The library itself prints nothing. Where stderr is no terminal, or `HF_HUB_DISABLE_PROGRESS_BARS` is set, nothing is
shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar_at_a_terminal(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """What is to be told of bytes here and bytes in all, to show them; None where nobody would see it."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            from huggingface_hub.utils import tqdm

            bar = tqdm(desc=name, total=total, unit="B", unit_scale=True)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
