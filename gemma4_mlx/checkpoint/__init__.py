"""Checkpoints: where they come from, what their tensors are called, how they become a model.

Imported on first use: finding a checkpoint on this machine does not need MLX, loading it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..doors import door

if TYPE_CHECKING:
    from .element_types import precision_concern
    from .hub import resolve
    from .load import load_model, read_config

__all__ = [
    "load_model",
    "precision_concern",
    "read_config",
    "resolve",
]

__getattr__ = door(
    __name__,
    {
        "load_model": "load",
        "precision_concern": "element_types",
        "read_config": "load",
        "resolve": "hub",
    },
)
