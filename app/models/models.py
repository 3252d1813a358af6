"""`gemma4-mlx models`: which models there are, which are here, which fit this machine; fetching and removing them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gemma4_mlx.byte_sizes import byte_size, memory_size, physical_memory
from gemma4_mlx.checkpoint.builtin import DEMO
from gemma4_mlx.errors import Gemma4Error, HubError

from ..exit_codes import one_line
from ..settings import config_file
from ..terminal import note, say
from ..typed_ahead import asked, can_be_asked
from .fetching import fetch
from .model_choice import ModelChoice, choose_model
from .sizes import SIZES, Size

if TYPE_CHECKING:
    from gemma4_mlx.checkpoint.hub_cache import CachedModel
    from gemma4_mlx.checkpoint.stores import KeptModel


@dataclass(frozen=True)
class Models:
    """What there is.

    Attributes:
        memory: of this machine, in bytes.
        cache: where models are fetched to.
        free: bytes left on the disk it is on.
        cached: every Gemma 4 in it, by Hub id.
        choice: the model a command would use now, and why.
        kept: what other programs have here.
    """

    memory: int
    cache: Path
    free: int
    cached: dict[str, CachedModel]
    choice: ModelChoice
    kept: tuple[KeptModel, ...] = ()

    def of_size(self, size: Size) -> CachedModel | None:
        """What the cache has of a size."""
        from gemma4_mlx.checkpoint.hub import SHORT_NAMES

        return self.cached.get(SHORT_NAMES[size.name])

    def others(self) -> list[CachedModel]:
        """What the cache has under no short name."""
        from gemma4_mlx.checkpoint.hub import SHORT_NAMES

        return [model for repo_id, model in self.cached.items() if repo_id not in SHORT_NAMES.values()]


def look_around() -> Models:
    """What there is here and now.

    Raises:
        Gemma4Error: the config file makes no sense.
    """
    from gemma4_mlx.checkpoint.hub import free_disk
    from gemma4_mlx.checkpoint.hub_cache import cached_models
    from gemma4_mlx.checkpoint.stores import kept_models

    memory = physical_memory()
    choice = choose_model(None, os.environ, config_file(), memory)
    cache, free = free_disk()
    cached = {model.repo_id: model for model in cached_models()}
    return Models(memory, cache, free, cached, choice, tuple(kept_models()))


def list_models(as_json: bool, check: bool) -> None:
    """Print the models there are.

    Args:
        check: ask the Hub which of them it has a newer version of. Without, nobody is asked anything.

    Raises:
        Gemma4Error: the config file makes no sense, or the Hub cannot be asked.
    """
    models = look_around()
    newer = newer_on_hub(models) if check else None
    if as_json:
        say(json.dumps(as_fields(models, newer), ensure_ascii=False))
    else:
        for line in as_lines(models, newer):
            say(line)


def as_lines(models: Models, newer: set[str] | None = None) -> list[str]:
    """What a person reads.

    Args:
        newer: Hub ids of the models of which the Hub has a newer version; None: it was not asked.
    """
    memory = memory_size(models.memory)
    rows = [(DEMO, "", "", "yes", "built in")]
    for size in reversed(SIZES):
        here = _here(models.of_size(size))
        fits = "yes" if size.fits(models.memory) else "no"
        rows.append((size.name, size.download, f"{size.memory_gb} GB", fits, here))
    lines = [f"  {'name':<5} {'to fetch':>8}  {'memory':>6}  fits  here"]
    lines += [
        f"{'→' if name == models.choice.name else ' '} {name:<5} {fetch:>8}  {needs:>6}  {fits:<4}  {here}".rstrip()
        for name, fetch, needs, fits, here in rows
    ]
    if others := models.others():
        lines += ["", "Others in the Hugging Face cache:"]
        lines += [f"{_arrow(models, model.repo_id)} {model.repo_id}  {_here(model)}" for model in others]
    if models.kept:
        lines += ["", "What other programs have here, used where it lies:"]
        for model in models.kept:
            bits = f", {model.bits}-bit" if model.bits else ""
            lines.append(f"{_arrow(models, model.name)} {model.name}  {byte_size(model.nbytes)}{bits}, {model.program}")
    if newer is not None:
        lines += ["", *(_update_line(models, repo_id) for repo_id in sorted(newer))]
        lines += [] if newer else ["The Hub has nothing newer than what is here."]
    deaf = " and ".join(size.name for size in reversed(SIZES) if not size.hears)
    lines += [
        "",
        f"This machine has {memory} of memory; {models.free / 1e9:.0f} GB are free in {models.cache}.",
        f"A question would go to {models.choice.name}: {models.choice.reason}.",
        f"{deaf} do not hear: sound goes to the largest that does.",
    ]
    return lines


def _update_line(models: Models, repo_id: str) -> str:
    name = next((size.name for size in SIZES if (model := models.of_size(size)) and model.repo_id == repo_id), repo_id)
    return f"The Hub has a newer {name}: gemma4-mlx models pull {name}"


def _arrow(models: Models, name: str) -> str:
    return "→" if models.choice.name == name else " "


def _here(model: CachedModel | None) -> str:
    if model is None:
        return ""
    return byte_size(model.nbytes) if model.whole else f"part, {byte_size(model.nbytes)}"


def as_fields(models: Models, newer: set[str] | None = None) -> dict[str, Any]:
    """The same for programs; sizes in bytes. Whether there is a newer version is null when the Hub was not asked."""
    from gemma4_mlx.checkpoint.hub import SHORT_NAMES

    listed: list[dict[str, Any]] = [
        {
            "name": DEMO,
            "repository": None,
            "source": None,
            "download_bytes": 0,
            "needs_memory_bytes": None,
            "fits": True,
            "hears": True,
            "fetched": True,
            "disk_bytes": None,
            "newer": None,
        }
    ]
    for size in reversed(SIZES):
        cached = models.of_size(size)
        listed.append(
            {
                "name": size.name,
                "repository": SHORT_NAMES[size.name],
                "download_bytes": round(size.download_gb * 1e9),
                "needs_memory_bytes": size.memory_gb * 2**30,
                "fits": size.fits(models.memory),
                "hears": size.hears,
                **_cached_fields(cached, newer),
            }
        )
    others = [
        {"name": model.repo_id, "repository": model.repo_id, **_cached_fields(model, newer)}
        for model in models.others()
    ]
    kept = [
        {
            "name": model.name,
            "repository": None,
            "source": model.program,
            "bits": model.bits,
            "fetched": True,
            "disk_bytes": model.nbytes,
            "newer": None,
        }
        for model in models.kept
    ]
    return {
        "memory_bytes": models.memory,
        "cache": str(models.cache),
        "free_bytes": models.free,
        "used": {"name": models.choice.name, "reason": models.choice.reason},
        "models": listed + others + kept,
    }


def _cached_fields(model: CachedModel | None, newer: set[str] | None) -> dict[str, Any]:
    if model is None:
        return {"source": None, "fetched": False, "disk_bytes": 0, "newer": None}
    is_newer = None if newer is None or not model.whole else model.repo_id in newer
    return {"source": "Hugging Face", "fetched": model.whole, "disk_bytes": model.nbytes, "newer": is_newer}


def pull(name: str) -> None:
    """Fetch a model, or a newer version of it, showing how far it is on stderr; its folder goes to stdout, or the name
    of a model that another program keeps.

    Raises:
        Gemma4Error: it cannot be found or fetched.
    """
    from gemma4_mlx.checkpoint.hub import SHORT_NAMES
    from gemma4_mlx.checkpoint.hub_cache import is_whole
    from gemma4_mlx.checkpoint.stores import kept_folder, store_of

    if store_of(name) is not None:
        kept_folder(name)
        note(f"{name} is another program's and here already; try it: gemma4-mlx chat --model {name}")
        say(name)
        return
    try:
        folder = fetch(name, newest=True)
    except HubError as error:
        if not is_whole(SHORT_NAMES.get(name.lower(), name)):
            raise
        note(f"note: the version that is here stays: {one_line(error)}")
        folder = fetch(name)
    note(f"{name} is here; try it: gemma4-mlx chat --model {name}")
    say(str(folder))


def newer_on_hub(models: Models) -> set[str]:
    """Hub ids of the models that are here and of which the Hub has a newer version.

    Raises:
        Gemma4Error: the Hub cannot be asked.
    """
    from huggingface_hub import constants

    from gemma4_mlx.checkpoint.hub import newest_commit
    from gemma4_mlx.checkpoint.hub_cache import find_snapshot

    if constants.HF_HUB_OFFLINE:
        raise Gemma4Error("HF_HUB_OFFLINE is set, so the Hub cannot be asked: unset it, or leave --check out")
    here = {repo_id: find_snapshot(repo_id, None) for repo_id, model in models.cached.items() if model.whole}
    return {
        repo_id
        for repo_id, snapshot in here.items()
        if snapshot is not None and newest_commit(repo_id) != snapshot.folder.name
    }


def remove(name: str, confirmed: bool) -> None:
    """Remove a model from the Hugging Face cache, once the person has agreed.

    Args:
        confirmed: they have agreed already.

    Raises:
        Gemma4Error: it is not one that can be removed.
        typer.BadParameter: they have not agreed and cannot be asked.
        KeyboardInterrupt: Ctrl-C while being asked.
    """
    from gemma4_mlx.checkpoint.hub import SHORT_NAMES
    from gemma4_mlx.checkpoint.hub_cache import cached_models, remove_cached

    if name.lower() == DEMO:
        raise Gemma4Error("demo belongs to the program: it goes with it (pip uninstall gemma4-mlx)")
    repo_id = SHORT_NAMES.get(name.lower(), name)
    cached = {model.repo_id: model for model in cached_models()}
    if repo_id not in cached:
        raise Gemma4Error(_not_removable(name, list(cached)))
    if not confirmed and not _agrees(f"remove {repo_id}, {byte_size(cached[repo_id].nbytes)}?"):
        note("kept")
        return
    freed = remove_cached(repo_id)
    note(f"removed {repo_id}: {byte_size(freed)} freed")


def _not_removable(name: str, cached: list[str]) -> str:
    if os.path.isdir(os.path.expanduser(name)):
        return f"{name} is a folder of yours, not in the Hugging Face cache: delete it yourself"
    found = f"those that are: {', '.join(cached)}" if cached else "no Gemma 4 is"
    return f"{name} is not in the Hugging Face cache; {found}"


def _agrees(question: str) -> bool:
    if not can_be_asked():
        raise typer.BadParameter("nobody is here to agree: say --yes", param_hint="--yes")
    return asked(f"{question} y/N: ").strip().lower() in ("y", "yes")
