"""What one line of the self-test says, and how two results are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np


@dataclass(frozen=True)
class Check:
    """One thing that was computed twice, or measured.

    Attributes:
        group: what it belongs to, such as "layers".
        name: what was computed.
        passed: whether `value` keeps `bound`; None: a measurement, with nothing to pass.
        value: what came out; None: it could not be computed.
        bound: the most `value` may be; None where there is none.
        unit: of both: "std" is standard deviations of the right result, "ms" milliseconds, "of real time" the share of
            the time that the sound lasts.
        note: what a reader should know, one line; empty for nothing.
        seconds: it took.
    """

    group: str
    name: str
    passed: bool | None
    value: float | None
    bound: float | None
    unit: str
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What a check finds out; see `Check`. Without a bound it is a measurement."""

    value: float
    bound: float | None
    unit: str = "std"
    note: str = ""


@dataclass(frozen=True)
class Item:
    """A check to be made; see `Check`."""

    group: str
    name: str
    compute: Callable[[], Outcome]


def type_name(dtype: mx.Dtype) -> str:
    """Such as "bfloat16"."""
    return str(dtype).rpartition(".")[2]


def difference(right: mx.array, other: mx.array) -> float:
    """The largest difference between two results of one shape, in standard deviations of the right one.

    Infinite where a number is NaN or infinite, or where there is nothing to compare.
    """
    expected, found = (np.array(array.astype(mx.float32)) for array in (right, other))
    spread = float(expected.std())
    if expected.shape != found.shape or not spread or not np.isfinite(expected).all() or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(expected - found).max()) / spread
