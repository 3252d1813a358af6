"""What MLX says when the GPU or memory fails it → the `DeviceError` that says what to do. Every evaluation is in here.

MLX raises a RuntimeError for whatever goes wrong in C++. Which of them are the device's is told by how they begin, and
by the codes that macOS puts into them: the words around a code may be in the user's language. The texts are those of
MLX's `backend/metal/allocator.cpp`, `device.cpp` and `eval.cpp`, and of reports about them (mlx issues 2670, 3224,
3390 and 3849, mlx-vlm 270, ollama 17902, llama.cpp 8886).

After one of them nothing is to be trusted that was being computed: MLX throws it once, and a later look at the same
arrays finds what the kernels left (mlx pull request 3523). It may also come late, in work that is not to blame: an
evaluation whose commands failed half-way can seem to succeed, and what asks the device next gets the error (4174). So
`failures` counts them, and who keeps arrays from one call to the next compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .errors import DeviceError, OutOfMemoryError

_FROM_THE_DEVICE = re.compile(
    r"\[(METAL|metal::malloc|metal::Device|malloc|malloc_or_wait|Event::Event)\]|.*kIOGPUCommandBufferCallbackError"
)

_LESS = "shorten the prompt or the conversation, or take a smaller model or one of fewer bits"
_MEMORY = f"out of memory: close other programs, {_LESS}"
_MORE_FOR_THE_GPU = "; sudo sysctl iogpu.wired_limit_mb=… lets the GPU have more of a Mac's memory"

# The first that fits, of what ran out.
_OUT_OF_MEMORY = (
    (r"ErrorOutOfMemory|Insufficient Memory", _MEMORY + _MORE_FOR_THE_GPU),
    (r"maximum allowed buffer size", f"out of memory: this is more than the GPU takes in one piece: {_LESS}"),
    (r"Resource limit", f"out of memory: the GPU holds no more buffers: {_LESS}, or start this program anew"),
    (r"\[malloc|\[metal::malloc", _MEMORY),
)
# And of everything else.
_FAILED = (
    (
        r"ErrorTimeout|ErrorImpactingInteractivity|ErrorHang|Timeout|Impacting Interactivity|Hang",
        f"the GPU took too long, and macOS ended its work: close programs that use it, {_LESS}; "
        "a model on a slow disk is better copied to a fast one",
    ),
    (
        r"ErrorSubmissionsIgnored|Ignored \(",
        "macOS does not let this program use the GPU any more after earlier errors: end it and start it anew",
    ),
    (r"ErrorInnocentVictim|Discarded \(", "the GPU was reset because of another program's work: try again"),
    (r"\[metal::Device\]", "this MLX and this system's GPU do not go together: update macOS, and mlx with pip"),
    (r"", "the GPU failed: try again; if it fails once more start this program anew, or update macOS"),
)

_count = 0


def failures() -> int:
    """How often the device has failed in this process. What was computed before the last time may be wrong."""
    return _count


def device_error(error: BaseException) -> DeviceError | None:
    """What an error that has just come is, if it is the device's; None for every other one.

    A `MemoryError` is the host's, and counts: what MLX was computing then is worth as little.
    """
    global _count
    if isinstance(error, DeviceError):
        return error
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        failure: DeviceError = OutOfMemoryError(f"{_MEMORY} ({said or 'MemoryError'})")
    # Python's own kinds of RuntimeError are mistakes in programs.
    elif type(error) is RuntimeError and _FROM_THE_DEVICE.match(said):
        failure = _failure(said)
    else:
        return None
    _count += 1
    _settle()
    return failure


def _failure(said: str) -> DeviceError:
    for patterns, kind in ((_OUT_OF_MEMORY, OutOfMemoryError), (_FAILED, DeviceError)):
        for pattern, advice in patterns:
            if re.search(pattern, said):
                return kind(f"{advice} ({said})")
    raise AssertionError("the last pattern fits everything")


@contextmanager
def device_errors(forget: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Raise MLX's errors in the body as `DeviceError`; also for functions, as a decorator.

    Args:
        forget: called then, to drop what the body has built or written.
    """
    try:
        yield
    except (RuntimeError, MemoryError, DeviceError) as error:
        if (failure := device_error(error)) is None:
            raise
        forget()
        if failure is error:
            raise
        raise failure from error


def _settle() -> None:
    """Have what is still on its way come to its end, or to its own error, and let go of buffers kept for later.

    Without MLX there is nothing of it, and it is not loaded for that.
    """
    if (mx := sys.modules.get("mlx.core")) is not None:
        with suppress(RuntimeError):
            mx.synchronize()
        mx.clear_cache()
