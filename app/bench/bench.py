"""`gemma4-mlx bench`: measure a model here, perhaps beside another engine or an earlier result, and show it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from gemma4_mlx.errors import Gemma4Error

from ..exit_codes import FAILED, one_line
from ..models.model_choice import fetch_model
from ..progress import Progress
from ..terminal import draw, note, write
from . import bench_plot, bench_tables

if TYPE_CHECKING:
    from .report import Plan, Result

Peer = Literal["mlx-lm", "mlx-vlm"]

_PLOT_DEPTHS = (0, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class BenchOptions:
    """What `bench` was asked for; lists as they were typed.

    Attributes:
        depths: None: not said.
        compared: files of earlier results: one is compared with what is measured now, two with each other.
        against: another engine to measure too.
    """

    prompts: str
    generations: str
    depths: str | None
    repetitions: int
    per_layer: Literal["auto", "disk", "memory"]
    text_only: bool
    format: bench_tables.Format
    plot: Path | None
    compared: list[Path]
    against: Peer | None


def bench(options: BenchOptions, model_name: str | None) -> None:
    """Measure and show.

    Raises:
        typer.BadParameter: the options do not go together, or a list is not one of numbers.
        Gemma4Error: the model or a file cannot be had, or an engine cannot be measured.
        OSError: the plot cannot be written.
        SystemExit: the other engine failed; what was measured of ours has been shown.
    """
    plan = _plan(options)
    if len(options.compared) > 2 or (options.compared and options.against):
        raise typer.BadParameter("compare with one file or with one engine, or two files with each other")
    if options.plot:
        bench_plot.check(options.plot)
    from .report import read_result

    results = [read_result(path) for path in options.compared]
    failed = None
    if len(results) < 2:
        if options.against:
            from .engines import engine_version

            engine_version(options.against)
        measured, failed = _measured(options, plan, model_name)
        results = [*measured, *results]
    rendered = bench_tables.render(results, options.format)
    if options.format == "text":  # in colour, and through the gate already
        draw(sys.stdout, rendered)
    else:
        write(sys.stdout, rendered)
    if options.plot:
        bench_plot.draw(results, options.plot)
        note(f"drawn: {options.plot}")
    if failed:
        note(f"error: {one_line(failed)}")
        raise SystemExit(FAILED)


def _measured(options: BenchOptions, plan: Plan, model_name: str | None) -> tuple[list[Result], Gemma4Error | None]:
    """Our result, then the other engine's if one is asked for, or the error it ended with."""
    from .engines import OURS
    from .measure import MeasuringError, Request, measure

    name, folder = fetch_model(model_name)
    with Progress(f"measuring {name}") as progress:
        towers = not (options.text_only or options.against)
        ours = measure(Request(OURS, name, folder, plan, options.per_layer, towers), progress.show)
    _warn_of_power(ours)
    if not options.against:
        return [ours], None
    try:
        with Progress(f"measuring {options.against}") as progress:
            return [ours, measure(Request(options.against, name, folder, plan), progress.show)], None
    except MeasuringError as error:
        return [ours], error


def _warn_of_power(result: Result) -> None:
    machine = result.machine
    if machine.low_power_mode:
        note("note: low power mode is on: the numbers are those of a slower machine")
    elif machine.power == "battery":
        note("note: on battery power: the numbers may be lower than with the charger")


def _plan(options: BenchOptions) -> Plan:
    from .report import Plan

    prompts, generations = _lengths(options.prompts, "-p"), _lengths(options.generations, "-g")
    if not prompts and not generations:
        raise typer.BadParameter("nothing to measure: give a length to -p or -g")
    unsaid = _PLOT_DEPTHS if options.plot else (0,)
    depths = unsaid if options.depths is None else _numbers(options.depths, "-d")
    return Plan(prompts, generations, depths, options.repetitions)


def _lengths(text: str, option: str) -> tuple[int, ...]:
    """Lengths without zeros: `-p 0` means that no prompt is measured."""
    return tuple(n for n in _numbers(text, option) if n)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    """ "512,1024" → (512, 1024), each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 512,1024", param_hint=option)
    return tuple(dict.fromkeys(map(int, words)))
