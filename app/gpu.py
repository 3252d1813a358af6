"""What MLX computes on, and how much memory the GPU may use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Literal

from .machine import Ask, ask_command, keys_and_values

Backend = Literal["metal", "cuda", "cpu"]


@dataclass(frozen=True)
class Gpu:
    """What MLX sees.

    Attributes:
        mlx: its version.
        backend: what it computes on unless told otherwise.
        limit_bytes: what macOS recommends the GPU to use at most; beyond that it swaps or fails. None: no Metal.
        built_for: the macOS whose kernels were installed, such as 26; None: no Metal, or it is not known.
    """

    mlx: str
    backend: Backend
    limit_bytes: int | None
    built_for: int | None = None


def this_gpu() -> Gpu:
    """What MLX sees here.

    Raises:
        ImportError, OSError: MLX cannot be loaded.
    """
    import mlx.core as mx

    limit = mx.device_info().get("max_recommended_working_set_size") if backend() == "metal" else None
    return Gpu(version("mlx"), backend(), limit if isinstance(limit, int) else None, _wheels_macos())


def _wheels_macos() -> int | None:
    """From the tag of the wheel with the kernels: "py3-none-macosx_26_0_arm64"."""
    try:
        wheel = distribution("mlx-metal").read_text("WHEEL") or ""
    except PackageNotFoundError:
        return None
    tag = re.search(r"^Tag: .*-macosx_(\d+)_", wheel, re.MULTILINE)
    return int(tag[1]) if tag else None


def backend() -> Backend:
    """What MLX computes on unless told otherwise."""
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def wired_limit(ask: Ask = ask_command) -> int | None:
    """The bytes that `iogpu.wired_limit_mb` lets the GPU wire; 0: the system's own choice; None: not a Mac's kernel."""
    megabytes = keys_and_values(ask(("sysctl", "iogpu.wired_limit_mb"))).get("iogpu.wired_limit_mb")
    return int(megabytes) << 20 if megabytes is not None and megabytes.isdecimal() else None
