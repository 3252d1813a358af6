"""Checkpoints: where they come from, what their tensors are called, how they become a model."""

from .hub import resolve
from .load import load_model, read_config

__all__ = ["load_model", "read_config", "resolve"]
