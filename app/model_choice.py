"""Which model a command uses, and why: --model, GEMMA4_MLX_MODEL, the config file, or what fits this machine."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from gemma4_mlx.errors import Gemma4Error

from .terminal import Progress, note

if TYPE_CHECKING:
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor

VARIABLE = "GEMMA4_MLX_MODEL"


@dataclass(frozen=True)
class Size:
    """One size of the family, as its short name fetches it.

    Attributes:
        name: short name.
        weights: how large, for people.
        memory_gb: the least physical memory it is chosen for. macOS gives the GPU two thirds to three quarters of the
            memory; a long prompt, pictures and the KV cache need room beside the weights, and so does everything else.
        hears: whether it takes sound.
    """

    name: str
    weights: str
    memory_gb: int
    hears: bool


# Largest first; the last one is taken when nothing fits.
SIZES = (
    Size("31b", "18 GB at 4-bit", memory_gb=48, hears=False),
    Size("26b", "15 GB at 4-bit", memory_gb=32, hears=False),
    Size("e4b", "8.5 GB at 8-bit", memory_gb=16, hears=True),
    Size("e2b", "5.5 GB at 8-bit", memory_gb=8, hears=True),
)


@dataclass(frozen=True)
class ModelChoice:
    """A model's name and where the choice came from; `automatic` when nobody asked for it by name."""

    name: str
    reason: str
    automatic: bool = False


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
        Gemma4Error: `config_file` exists and is not TOML, or its `model` is not a name.
    """
    if option is not None:
        if not option.strip():
            raise Gemma4Error("--model is empty: name a model, or leave the option out")
        return ModelChoice(option, "--model")
    if environment.get(VARIABLE):
        return ModelChoice(environment[VARIABLE], VARIABLE)
    if configured := _configured_model(config_file):
        return ModelChoice(configured, str(config_file))
    return largest_that_fits(physical_memory, hearing)


def _configured_model(config_file: Path) -> str | None:
    try:
        settings = tomllib.loads(config_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Gemma4Error(f"{config_file} is not valid TOML ({error}): mend or delete it") from error
    name = settings.get("model")
    if name is not None and (not isinstance(name, str) or not name):
        raise Gemma4Error(f'{config_file}: model must be a name in quotes, such as model = "e2b"')
    return name


def largest_that_fits(physical_memory: int, hearing: bool) -> ModelChoice:
    """The largest of the sizes for this much memory (bytes), or the smallest of all; with `hearing`, one that hears."""
    gigabytes = physical_memory / 2**30
    # A machine sold with 16 GB reports a little less once firmware has taken its share.
    fitting = [s for s in SIZES if gigabytes >= s.memory_gb * 0.95 and (s.hears or not hearing)]
    if not fitting:
        size = SIZES[-1]
        reason = f"the smallest; this machine has {gigabytes:.0f} GB of memory and may be too small for it"
        return ModelChoice(size.name, reason, automatic=True)
    size = fitting[0]
    kind = "the largest that hears and fits" if hearing else "the largest that fits"
    reason = f"{kind} {gigabytes:.0f} GB of memory, {size.weights}"
    return ModelChoice(size.name, reason, automatic=True)


def config_file() -> Path:
    """Where the user's settings are: `~/Library/Application Support/gemma4-mlx/config.toml` or its XDG place."""
    return platformdirs.user_config_path("gemma4-mlx") / "config.toml"


def physical_memory() -> int:
    """Bytes of memory in this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def open_model(option: str | None, hearing: bool = False) -> tuple[Gemma4, Processor]:
    """Fetch and load the chosen model. Arguments and errors are those of `fetch_model`."""
    _, folder = fetch_model(option, hearing)
    import gemma4_mlx as g4

    return g4.load(folder)


def fetch_model(option: str | None, hearing: bool = False) -> tuple[str, Path]:
    """The chosen model's name and its folder, fetched if need be (showing progress).

    When nobody named a model, stderr says which was chosen and why.

    Args:
        option: what --model says.
        hearing: the model will be given sound.

    Raises:
        Gemma4Error: it cannot be found, fetched or read.
    """
    choice = choose_model(option, os.environ, config_file(), physical_memory(), hearing)
    if choice.automatic:
        note(f"model: {choice.name} ({choice.reason}; another: --model, {VARIABLE}, or model in {config_file()})")
    from gemma4_mlx.checkpoint.hub import resolve

    with Progress(f"fetching {choice.name}") as progress:

        def show(done: int, total: int) -> None:
            if not progress.shown:
                note(f"fetching {choice.name}: {total / 1e9:.1f} GB, this once")
            progress.show(f"{done / 1e9:.1f} of {total / 1e9:.1f} GB")

        return choice.name, resolve(choice.name, on_progress=show)
