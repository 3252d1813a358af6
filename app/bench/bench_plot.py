"""Speed against context depth, drawn with matplotlib (the extra `bench`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gemma4_mlx.errors import Gemma4Error

from .bench_tables import facts, titles

if TYPE_CHECKING:
    from .report import Result

SUFFIXES = (".png", ".svg", ".pdf")

_PANELS = (("pp", "reading a prompt"), ("tg", "generating"))
_COLOURS = ("#0b62a4", "#d1571c")
_MARKERS = ("o", "s", "^", "D", "v")


def check(path: Path) -> None:
    """Find out before hours of measuring whether the plot can be drawn and written.

    Raises:
        typer.BadParameter: the file's name says no format that is drawn, or its folder is not there.
        Gemma4Error: matplotlib is not installed, or the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"{path} is none of {', '.join(SUFFIXES)}", param_hint="--plot")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}", param_hint="--plot")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise Gemma4Error(f"{path} cannot be written: name another place for the plot")
    _figure()


def draw(results: Sequence[Result], path: Path) -> None:
    """Draw prompt and generation speed against depth, a colour per result and a marker per length.

    Raises:
        Gemma4Error: matplotlib is not installed, or no speed was measured.
        OSError: `path` cannot be written.
    """
    panels = [(kind, title) for kind, title in _PANELS if any(result.measured(kind) for result in results)]
    if not panels:
        raise Gemma4Error("no speed was measured that could be drawn: give a length to -p or -g")
    names = titles(results)
    figure = _figure()
    figure.set_size_inches(5.2 * len(panels), 4.4)
    for axes, (kind, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, result, colour in zip(names, results, _COLOURS, strict=False):
            _lines(axes, result, kind, name if len(results) > 1 else "", colour)
        axes.set_title(title, loc="left")
        axes.set_xlabel("tokens in the context before")
        axes.set_ylabel("tokens per second")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    about = facts(results[0])
    figure.suptitle("\n".join(about[: 2 if len(results) > 1 else 3]), fontsize=8, x=0.02, ha="left", color="#555555")
    figure.savefig(path, dpi=160)


def _lines(axes: Any, result: Result, kind: str, name: str, colour: str) -> None:
    lengths = sorted({measurement.tokens or 0 for measurement in result.measured(kind)})
    for length, marker in zip(lengths, _MARKERS * len(lengths), strict=False):
        points = sorted((m for m in result.measured(kind) if m.tokens == length), key=lambda m: m.depth or 0)
        axes.errorbar(
            [point.depth for point in points],
            [point.mean for point in points],
            yerr=[point.std or 0.0 for point in points],
            label=", ".join(filter(None, (name, points[0].label))),
            color=colour,
            marker=marker,
            capsize=3,
        )


def _figure() -> Any:
    try:
        # The figure alone: pyplot would look for a window to draw in.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Gemma4Error("--plot needs matplotlib: run `pip install 'gemma4-mlx[bench]'`") from error
    return Figure(layout="constrained")
