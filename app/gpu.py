"""What MLX computes on, how much memory the GPU may use, and what its first step waits for."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import TYPE_CHECKING, Literal

from .machine import Ask, ask_command, keys_and_values
from .terminal import note

if TYPE_CHECKING:
    from gemma4_mlx.model import Gemma4

PREPARING = "preparing the GPU, once"
_SECONDS_BEFORE_A_WORD = 2.0

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


@contextmanager
def told_if_slow(tell: Callable[[], None]) -> Iterator[None]:
    """In the body a model takes its first step. On a GPU that can take seconds, and then a person is told why.

    MLX compiles a kernel when it is needed first (metal/compiled.cpp, `Compiled::eval_gpu`); macOS keeps it for the
    next time. On the CPU nothing is prepared.

    Args:
        tell: called, in another thread, once the body has taken two seconds.
    """
    if backend() == "cpu":
        yield
        return
    timer = threading.Timer(_SECONDS_BEFORE_A_WORD, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def prepare(model: Gemma4) -> None:
    """Have the GPU ready for a model before anything is drawn. A note says so where that takes long."""
    if backend() == "cpu":
        return
    from gemma4_mlx.generation import generate_tokens

    with told_if_slow(lambda: note(PREPARING)):
        list(generate_tokens(model, [0], max_tokens=2))
