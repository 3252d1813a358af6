"""`gemma4-mlx convert`: a checkpoint in, a quantized one out, and before that what it will take."""

from __future__ import annotations

from pathlib import Path

import typer

from gemma4_mlx.byte_sizes import byte_size

from .awake import kept_awake
from .progress import Progress
from .terminal import note, say

_BAR = 24


@kept_awake()
def convert_checkpoint(
    source: str, folder: Path | None, *, recipe: str, dtype: str, revision: str | None, upload: str | None
) -> None:
    """Convert, showing how far it is on stderr; the folder's name goes to stdout.

    Raises:
        typer.BadParameter: no folder is named and `source` gives no name for one.
        Gemma4Error: the source cannot be read, or the result not be written or uploaded.
        OSError: the folder cannot be written to.
    """
    from gemma4_mlx.conversion.convert import convert

    target = folder or _default_folder(source, recipe)
    with Progress(f"converting {source}") as progress:

        def show_fetch(done: int, total: int) -> None:
            progress.show(f"fetching, {_bar(done, total)}")

        def show(done: int, total: int) -> None:
            progress.show(_bar(done, total))

        convert(
            source,
            target,
            recipe=recipe,
            dtype=dtype,
            revision=revision,
            upload=upload,
            on_fetch=show_fetch,
            on_progress=show,
        )
    if upload:
        note(f"uploaded to {upload}")
    note(f"try it: gemma4-mlx chat --model {target}")
    say(str(target))


def print_plan(source: str, *, recipe: str, dtype: str, revision: str | None) -> None:
    """Print the sizes of a conversion's output and the memory its weights will need.

    Raises:
        Gemma4Error: the source cannot be read.
    """
    from gemma4_mlx.conversion.convert import plan

    planned = plan(source, recipe=recipe, dtype=dtype, revision=revision)
    parts = planned.part_bytes
    say(f"{source}, {recipe}: {byte_size(planned.nbytes)} on disk")
    for part, nbytes in parts.items():
        say(f"  {part:<24}{byte_size(nbytes):>10}")
    for module in planned.indivisible:
        say(f"  {module} is not quantized: its columns do not divide into groups")
    for module in planned.off_lattice:
        say(f"  {module} is not quantized: its weights are not on the lattice")
    say("memory for the weights")
    senses = [sense for part, sense in (("vision tower", "pictures"), ("audio tower", "sound")) if part in parts]
    for used, towers in [("text", False)] + [(", ".join(["text", *senses]), True)] * bool(senses):
        if "per-layer table" in parts:
            for where, on_disk in (("on disk", True), ("in memory", False)):
                size = byte_size(planned.memory_bytes(on_disk, towers))
                say(f"  {used:<24}{size:>10} with the per-layer table {where}")
        else:
            say(f"  {used:<24}{byte_size(planned.memory_bytes(False, towers)):>10}")


def _default_folder(source: str, recipe: str) -> Path:
    name = Path(source).name
    if not name or name == "..":
        raise typer.BadParameter("name the folder to write to as well")
    return Path(f"{name}-{recipe}")


def _bar(done: int, total: int) -> str:
    full = _BAR * done // max(total, 1)
    return f"{'█' * full}{'░' * (_BAR - full)} {byte_size(done)} of {byte_size(total)}"
