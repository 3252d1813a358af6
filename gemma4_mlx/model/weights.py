"""Weights are read before anything is computed with them.

A loaded weight is lazy: its file is read when it is needed first. On a Mac the GPU would then wait for the file inside
a command buffer, and macOS ends such a wait after about five seconds (MLX issue 3803): a slow disk ends the program. So
a part's weights are evaluated by themselves first, on the CPU's stream that they were made on.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

# In between Ctrl-C is heard.
_AT_A_TIME = 32


def read_weights(part: nn.Module) -> None:
    """Have every weight of a part in memory."""
    named: Any = tree_flatten(part.parameters())
    arrays = [array for _, array in named]
    for start in range(0, len(arrays), _AT_A_TIME):
        mx.eval(arrays[start : start + _AT_A_TIME])
