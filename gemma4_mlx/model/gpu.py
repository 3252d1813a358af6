"""What the work is divided by: how much memory the GPU may use, and which generation of Apple's it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import mlx.core as mx


@dataclass(frozen=True)
class Gpu:
    """A Mac's GPU. What is not known is None.

    Attributes:
        generation: 13 is the M1's, 14 the M2's, and so on.
        memory_bytes: what macOS recommends to use at most.
    """

    generation: int | None
    memory_bytes: int | None


@cache
def this_gpu() -> Gpu | None:
    """What MLX computes on unless told otherwise; None: no GPU of a Mac."""
    if not mx.metal.is_available() or mx.default_device() != mx.Device(mx.gpu):
        return None
    return gpu_of(mx.device_info())


def gpu_of(device_info: Mapping[str, str | int]) -> Gpu:
    """What MLX says of a device → what it is. A virtual machine's architecture is no Apple generation."""
    architecture = re.match(r"applegpu_g(\d+)", str(device_info.get("architecture", "")))
    memory = device_info.get("max_recommended_working_set_size")
    return Gpu(int(architecture[1]) if architecture else None, memory if isinstance(memory, int) and memory else None)
