"""Which model a command uses, and why: --model, GEMMA4_MLX_MODEL, the config file, or what fits this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemma4_mlx.byte_sizes import physical_memory
from gemma4_mlx.checkpoint.builtin import DEMO
from gemma4_mlx.errors import Gemma4Error

from ..gpu import prepare
from ..settings import config_file, read_settings
from ..terminal import note
from ..typed_ahead import can_be_asked
from . import first_run
from .fetching import Fetch, fetch
from .sizes import SIZES

if TYPE_CHECKING:
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor

VARIABLE = "GEMMA4_MLX_MODEL"


@dataclass(frozen=True)
class ModelChoice:
    """A model's name and where the choice came from; `automatic` when nobody asked for it by name."""

    name: str
    reason: str
    automatic: bool = False


@dataclass(frozen=True)
class Chosen:
    """What to open.

    Attributes:
        background: what a person waits for meanwhile.
        to_remember: they chose another one than was proposed, and need not be asked again once it is here.
    """

    name: str
    background: Fetch | None = None
    to_remember: bool = False


def choose_model(
    option: str | None,
    environment: Mapping[str, str],
    config_file: Path,
    physical_memory: int,
    hearing: bool = False,
) -> ModelChoice:
    """The first of: `option`, the environment's GEMMA4_MLX_MODEL, `model` in `config_file`, the largest size that fits.

    Args:
        physical_memory: bytes.
        hearing: of the sizes, only those that take sound.

    Raises:
        Gemma4Error: `option` is empty, or `config_file` makes no sense.
    """
    if option is not None:
        if not option.strip():
            raise Gemma4Error("--model is empty: name a model, or leave the option out")
        return ModelChoice(option, "--model")
    if environment.get(VARIABLE):
        return ModelChoice(environment[VARIABLE], VARIABLE)
    if configured := read_settings(config_file).model:
        return ModelChoice(configured, str(config_file))
    return largest_that_fits(physical_memory, hearing)


def largest_that_fits(physical_memory: int, hearing: bool) -> ModelChoice:
    """The largest of the sizes for this much memory (bytes), or the smallest of all; with `hearing`, one that hears."""
    gigabytes = physical_memory / 2**30
    fitting = [size for size in SIZES if size.fits(physical_memory) and (size.hears or not hearing)]
    if not fitting:
        size = SIZES[-1]
        reason = f"the smallest; this machine has {gigabytes:.0f} GB of memory and may be too small for it"
        return ModelChoice(size.name, reason, automatic=True)
    size = fitting[0]
    kind = "the largest that hears and fits" if hearing else "the largest that fits"
    reason = f"{kind} {gigabytes:.0f} GB of memory, {size.weights}"
    return ModelChoice(size.name, reason, automatic=True)


def choose(option: str | None, hearing: bool = False, offer_demo: bool = False) -> Chosen:
    """The model to use. Nothing is fetched but what a person chose to have fetched in the background.

    When nobody named one and it is not here, a person at a terminal is asked; anywhere else stderr says what was chosen
    and why.

    Args:
        option: what --model says.
        hearing: the model will be given sound.
        offer_demo: whoever is asked may take the built-in model while the proposed one is fetched.

    Raises:
        Gemma4Error: `option` is empty, the config file makes no sense, or the terminal was closed.
        KeyboardInterrupt: Ctrl-C while being asked.
    """
    memory = physical_memory()
    choice = choose_model(option, os.environ, config_file(), memory, hearing)
    if not choice.automatic:
        return Chosen(choice.name)
    offer = first_run.make_offer(choice.name, memory, hearing, offer_demo) if can_be_asked() else None
    if offer is None:
        note(f"model: {choice.name} ({choice.reason}; another: --model, {VARIABLE}, or model in {config_file()})")
        return Chosen(choice.name)
    name = first_run.ask_which(offer)
    if name == DEMO:
        return Chosen(name, background=Fetch(choice.name))
    return Chosen(name, to_remember=name != choice.name)


def open_model(option: str | None, hearing: bool = False) -> tuple[Gemma4, Processor]:
    """Choose, fetch and load a model. Arguments and errors are those of `fetch_model`."""
    folder = fetch_chosen(choose(option, hearing))
    import gemma4_mlx as g4

    model, processor = g4.load(folder)
    prepare(model)
    return model, processor


def fetch_model(
    option: str | None, hearing: bool = False, on_progress: Callable[[str], None] | None = None
) -> tuple[str, Path]:
    """The chosen model's name and its folder, fetched if need be.

    Args:
        option: what --model says.
        hearing: the model will be given sound.
        on_progress: is given how far the fetching is, for people; None shows that on stderr.

    Raises:
        Gemma4Error: it cannot be found, fetched or read.
        KeyboardInterrupt: Ctrl-C.
    """
    chosen = choose(option, hearing)
    return chosen.name, fetch_chosen(chosen, on_progress)


def fetch_chosen(chosen: Chosen, on_progress: Callable[[str], None] | None = None) -> Path:
    """The folder of what was chosen, fetched if need be. Raises as `fetch_model`."""
    folder = fetch(chosen.name, on_progress)
    if chosen.to_remember:
        first_run.remember(chosen.name)
    return folder
