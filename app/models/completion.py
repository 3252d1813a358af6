"""Names of models and chats for the shell's tab key: on this disk only, and without loading anything slow."""

from __future__ import annotations

from gemma4_mlx.checkpoint.builtin import DEMO

from .sizes import SIZES


def complete_model(typed: str) -> list[str]:
    """Names that `--model` takes: the sizes, the built-in one, and what was fetched before."""
    return [name for name in (*_sizes(), DEMO, *_cached()) if name.startswith(typed)]


def complete_cached(typed: str) -> list[str]:
    """Names that can be removed."""
    from gemma4_mlx.checkpoint.hub import SHORT_NAMES

    cached = _cached()
    short = [name for name in _sizes() if SHORT_NAMES[name] in cached]
    return [name for name in (*short, *cached) if name.startswith(typed)]


def complete_chat(typed: str) -> list[str]:
    """Names of saved chats."""
    from ..chat.sessions import SessionStore

    return [name for name in SessionStore(lambda _: None).names() if name.startswith(typed)]


def _sizes() -> list[str]:
    return [size.name for size in reversed(SIZES)]


def _cached() -> list[str]:
    from gemma4_mlx.checkpoint.hub_cache import cached_ids

    return cached_ids()
