"""How much of what the GPU uses macOS keeps from being paged out: the weights of every model there is, and no more.

Without it, macOS 15 and newer slow a model down many times that takes most of the memory; see `mx.set_wired_limit`,
and the same in mlx-lm (`wired_limit` in its generate.py), which wires the recommended maximum. Weights alone leave the
KV cache to the system: buffers that come and go in wired memory have made some Macs panic (mlx issues 3186 and 3346).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import mlx.core as mx

_PAGES = 1.03  # buffers are whole pages: a little more than their numbers


class WiredMemory:
    """The bytes that models which are still there want wired.

    Args:
        set_limit: tells MLX.
        most: how much the system lets a program wire.
    """

    def __init__(self, set_limit: Callable[[int], object], most: int) -> None:
        self._set_limit = set_limit
        self._most = most
        self._wanted = 0
        # A model may go in any thread, and while another one is being counted.
        self._lock = threading.RLock()

    def keep(self, model: object, weight_bytes: int) -> None:
        """Wire a model's weights until it goes."""
        self._add(weight_bytes)
        weakref.finalize(model, self._add, -weight_bytes).atexit = False

    def _add(self, weight_bytes: int) -> None:
        with self._lock:
            self._wanted += weight_bytes
            self._set_limit(min(round(self._wanted * _PAGES), self._most))


_of_this_process: WiredMemory | None = None


def keep_in_memory(model: object, weight_bytes: int) -> None:
    """Have macOS keep a model's weights in memory, beside those of other models, as far as it allows."""
    global _of_this_process
    if not mx.metal.is_available():
        return
    if _of_this_process is None:
        most = mx.device_info()["max_recommended_working_set_size"]
        assert isinstance(most, int)
        _of_this_process = WiredMemory(mx.set_wired_limit, most)
    _of_this_process.keep(model, weight_bytes)
