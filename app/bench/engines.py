"""This package and its peers, each loaded and called the same way, so that the same code times them all.

A peer is imported only when it is the one measured: importing it takes seconds and changes MLX's global settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gemma4_mlx.errors import InputError

if TYPE_CHECKING:
    import mlx.core as mx

    from gemma4_mlx.model import Gemma4

Name = Literal["gemma4-mlx", "mlx-lm", "mlx-vlm"]
OURS: Name = "gemma4-mlx"
PEERS: tuple[Name, ...] = ("mlx-lm", "mlx-vlm")

_FILL_TOKENS = 512  # tokens read at once where nobody times it


@dataclass(frozen=True)
class Engine:
    """A loaded model.

    Attributes:
        tokens: (prompt ids, most new tokens, cache) → greedy token ids by the engine's own loop. The cache's contents
            come before the prompt.
        make_cache: an empty cache.
        read: (ids int `[1, L]`, cache): adds ids to the cache; what it returns nobody needs.
        model: ours, for the towers; None of a peer.
    """

    tokens: Callable[[Sequence[int], int, list[Any]], Iterator[int]]
    make_cache: Callable[[], list[Any]]
    read: Callable[[mx.array, list[Any]], object]
    model: Gemma4 | None = None

    def filled_cache(self, ids: Sequence[int]) -> list[Any]:
        """A cache that holds `ids`."""
        import mlx.core as mx

        cache = self.make_cache()
        for start in range(0, len(ids), _FILL_TOKENS):
            self.read(mx.array([list(ids[start : start + _FILL_TOKENS])]), cache)
            mx.eval([layer.state for layer in cache])
            mx.clear_cache()
        return cache


def engine_version(name: Name) -> str:
    """The version of an engine.

    Raises:
        InputError: it is not installed.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        raise InputError(f"{name} is not installed: run `pip install {name}` in this environment") from None


def load_engine(name: Name, folder: Path, per_layer: Literal["auto", "disk", "memory"]) -> Engine:
    """Import an engine and load a checkpoint as its users do, tokenizer and all.

    Raises:
        whatever the engine raises when it cannot.
    """
    match name:
        case "gemma4-mlx":
            return _ours(folder, per_layer)
        case "mlx-lm":
            return _mlx_lm(folder)
        case "mlx-vlm":
            return _mlx_vlm(folder)


def copied(cache: Sequence[Any]) -> list[Any]:
    """Another cache with the same tokens in buffers of its own, already copied: none of it is left to be timed."""
    import mlx.core as mx
    from mlx.utils import tree_map

    twins = []
    for layer in cache:
        twin = copy(layer)
        twin.state = tree_map(lambda leaf: leaf + 0 if isinstance(leaf, mx.array) else leaf, layer.state)
        twins.append(twin)
    mx.eval([twin.state for twin in twins])
    return twins


def _ours(folder: Path, per_layer: Literal["auto", "disk", "memory"]) -> Engine:
    from gemma4_mlx.generation import generate_tokens
    from gemma4_mlx.loading import load

    model, _ = load(folder, per_layer=per_layer)
    return Engine(
        tokens=lambda prompt, limit, cache: generate_tokens(model, prompt, max_tokens=limit, cache=cache),
        make_cache=model.make_cache,
        read=lambda ids, cache: model(ids, cache=cache, last_only=True),
        model=model,
    )


def _mlx_lm(folder: Path) -> Engine:
    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.generate import generate_step
    from mlx_lm.models.cache import make_prompt_cache

    model = load(str(folder))[0]

    def tokens(prompt: Sequence[int], limit: int, cache: list[Any]) -> Iterator[int]:
        for token, _ in generate_step(mx.array(list(prompt)), model, max_tokens=limit, prompt_cache=cache):
            yield int(token)

    return Engine(tokens, lambda: make_prompt_cache(model), lambda ids, cache: model(ids, cache=cache))


def _mlx_vlm(folder: Path) -> Engine:
    import mlx.core as mx
    from mlx_vlm import load
    from mlx_vlm.generate import generate_step
    from mlx_vlm.models.cache import make_prompt_cache

    model, _ = load(str(folder))
    language_model = model.language_model

    def tokens(prompt: Sequence[int], limit: int, cache: list[Any]) -> Iterator[int]:
        ids = mx.array([list(prompt)])
        for token, _ in generate_step(ids, model, None, None, max_tokens=limit, temperature=0.0, prompt_cache=cache):
            yield int(token)

    return Engine(
        tokens, lambda: make_prompt_cache(language_model), lambda ids, cache: language_model(ids, cache=cache)
    )
