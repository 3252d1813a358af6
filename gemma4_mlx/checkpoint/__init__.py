"""Checkpoints: where they come from, what their tensors are called, how they become a model.

Imported on first use: finding a checkpoint on this machine does not need MLX, loading it does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hub import resolve
    from .load import load_model, read_config

_HOME_OF = {"resolve": "hub", "load_model": "load", "read_config": "load"}

__all__ = ["load_model", "read_config", "resolve"]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
