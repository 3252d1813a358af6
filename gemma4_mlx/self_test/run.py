"""All checks, one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator

import mlx.core as mx

from ..errors import reason
from .attention import items as attention_items
from .builtin import items as builtin_items
from .check import Check, Item, Outcome
from .decoding import items as decoding_items
from .layers import items as layer_items
from .sound import items as sound_items

SCHEMA_VERSION = 1
"""Of `Check`'s fields, names and units, for whoever compares reports of two versions."""


def self_test() -> Iterator[Check]:
    """Compute everything twice, on this machine's default device and in float32 on its CPU, and compare.

    Where the default device is the CPU itself, its ways are compared with each other: packed with unpacked, compiled
    with uncompiled, whole with in pieces; and float32 is used where a GPU would use bfloat16, which is slow there.

    Yields:
        Each check as it is made. A check that raises has failed; the others go on.
    """
    working = mx.float32 if mx.default_device() == mx.Device(mx.cpu) else mx.bfloat16
    yield from checked(builtin_items(working), "built-in")
    yield from checked(layer_items(working), "layers")
    yield from checked(decoding_items(working), "decoding")
    yield from checked(sound_items(working), "sound")
    yield from checked(attention_items(working), "attention")


def checked(items: Iterable[Item], group: str) -> Iterator[Check]:
    """Make checks, each before the next one is asked for.

    Args:
        group: what is said to have failed where the next check cannot even be set up.
    """
    remaining = iter(items)
    while True:
        began = time.perf_counter()
        item = Item(group, "setting up", _nothing)
        try:
            if (item := next(remaining, item)).compute is _nothing:
                return
            outcome = item.compute()
        except Exception as error:  # Whatever it is, it is what this is run to find out.
            text = f"{type(error).__name__}: {reason(error)}"
            yield Check(item.group, item.name, False, None, None, "", text, time.perf_counter() - began)
            continue
        yield _check(item, outcome, time.perf_counter() - began)
        mx.clear_cache()


def _check(item: Item, outcome: Outcome, seconds: float) -> Check:
    passed = None if outcome.bound is None else outcome.value <= outcome.bound
    if not math.isfinite(outcome.value):  # JSON has no word for it
        return Check(item.group, item.name, False, None, outcome.bound, outcome.unit, "no finite numbers", seconds)
    return Check(item.group, item.name, passed, outcome.value, outcome.bound, outcome.unit, outcome.note, seconds)


def _nothing() -> Outcome:
    """In the place of a check where there is none."""
    return Outcome(0, None)
