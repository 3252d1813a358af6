"""What a person at a terminal sees of a download that a program of theirs has begun: huggingface_hub's own bar.

The library itself prints nothing. Where stderr is no terminal, or `HF_HUB_DISABLE_PROGRESS_BARS` is set, the bar is not
shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar_at_a_terminal(name: str) -> Iterator[Callable[[int, int], None]]:
    """What is to be told of bytes here and bytes in all, to show them."""
    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            from huggingface_hub.utils import tqdm  # a third of a second, and most models are here

            # None is tqdm's word for "only at a terminal".
            bar = tqdm(desc=name, total=total, unit="B", unit_scale=True, disable=None)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
