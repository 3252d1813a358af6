"""A function of arrays and of a module's weights that is traced once and then replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn


class Traced:
    """`mx.compile` of a function that is always called with arrays of the same shapes.

    The weights are inputs, not constants: who changes them changes the next call.

    Args:
        function: of arrays; what it computes may depend on nothing else but the module.
        module: whose weights it uses.
    """

    def __init__(self, function: Callable[..., Any], module: nn.Module) -> None:
        self._module = module
        self._graph = mx.compile(function, inputs=[module.state])
        self._is_traced = False

    def __call__(self, *arrays: Any) -> Any:
        if self._is_traced:
            return self._graph(*arrays)
        # While MLX traces it has stand-ins in place of the weights, and an error or Ctrl-C would leave them there.
        weights = self._module.parameters()
        try:
            result = self._graph(*arrays)
        except BaseException:
            self._module.update(weights)
            raise
        self._is_traced = True
        return result
