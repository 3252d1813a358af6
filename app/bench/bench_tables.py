"""Benchmark results as text for people, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from gemma4_mlx.byte_sizes import byte_size, memory_size

from ..printable import printable
from ..terminal import console, shows_colour
from .report import Measurement, Result, compare, report_dict

if TYPE_CHECKING:
    from rich.table import Table

Format = Literal["text", "md", "csv", "json", "jsonl"]

_WIDTH = 80  # of a table that goes to a file
_TITLE = 20  # characters


def render(results: Sequence[Result], format: Format) -> str:
    """One or two results in one of the formats; two are shown side by side with their ratios."""
    match format:
        case "text":
            return _text(results)
        case "md":
            return _markdown(results)
        case "csv":
            return _csv(results)
        case "json":
            return json.dumps(report_dict(results), ensure_ascii=False) + "\n"
        case "jsonl":
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in flat_rows(results))


def flat_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One flat object per measurement, with all that tells whose it is; `docs/bench-schema.json` describes it."""
    return [_flat(result, measurement) for result in results for measurement in result.measurements]


def facts(result: Result) -> list[str]:
    """Three lines: the weights, the machine, the software."""
    weights, machine, software = result.weights, result.machine, result.software
    origin = " ".join(filter(None, (weights.repository, (weights.revision or "")[:8])))
    table = {"disk": "per-layer table on disk", "memory": "per-layer table in memory", None: None}[weights.per_layer]
    lines: list[list[str | int | None]] = [
        [
            f"{weights.name} ({origin})" if origin else weights.name,
            byte_size(weights.nbytes),
            weights.quantization,
            table,
        ],
        [
            machine.chip,
            machine.gpu_cores and f"{machine.gpu_cores} GPU cores",
            machine.memory_bytes and memory_size(machine.memory_bytes),
            machine.system,
            {"ac": "mains", "battery": "battery", "ups": "UPS", None: None}[machine.power],
            "low power mode" if machine.low_power_mode else None,
        ],
        [
            f"{software.engine} {software.engine_version}",
            f"MLX {software.mlx} on {software.backend}",
            f"Python {software.python}",
            result.date[:16].replace("T", " "),
        ],
    ]
    return [printable(" · ".join(str(part) for part in line if part)) for line in lines]


def titles(results: Sequence[Result]) -> list[str]:
    """What tells the results apart: their engines, their models, their machines, or at last when they were made."""
    for of in (
        lambda r: r.software.engine,
        lambda r: printable(r.weights.name).rpartition("/")[2],
        lambda r: r.machine.chip or r.machine.system,
        lambda r: r.weights.quantization or "unpacked",
        lambda r: f"table {r.weights.per_layer}",
        lambda r: r.software.engine_version,
        lambda r: r.date[:16].replace("T", " "),
    ):
        names = [of(result) for result in results]
        if len(set(names)) == len(names):
            return [name if len(name) <= _TITLE else f"{name[: _TITLE - 1]}…" for name in names]
    return ["now", "before"]


def _text(results: Sequence[Result]) -> str:
    colour = shows_colour(sys.stdout)
    screen = io.StringIO()
    page = console(
        screen,
        force_terminal=colour,
        color_system="standard" if colour else None,
        width=None if sys.stdout.isatty() else _WIDTH,
        markup=False,
        emoji=False,
    )
    for line in _all_facts(results):
        page.print(line, style="dim" if colour else None, soft_wrap=True)
    page.print()
    page.print(_table(results))
    page.print()
    for line in _remarks(results):
        page.print(line, soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in screen.getvalue().rstrip().splitlines())


def _table(results: Sequence[Result]) -> Table:
    from rich import box
    from rich.table import Table

    header, rows = _cells(results)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(header):
        is_unit = not name and number
        table.add_column(name, justify="right" if number and not is_unit else "left", no_wrap=number > 0)
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(results: Sequence[Result]) -> str:
    header, rows = _cells(results)
    lines = [f"{line}  " for line in _all_facts(results)] + [""]
    lines.append(f"| {' | '.join(header)} |")
    lines.append(f"| --- {'| ---: ' * (len(header) - 1)}|")
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    remarks = _remarks(results)
    return "\n".join([*lines, *([""] if remarks else []), *remarks]) + "\n"


def _csv(results: Sequence[Result]) -> str:
    rows = [{**row, "samples": " ".join(map(str, row["samples"]))} for row in flat_rows(results)]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(result: Result, measurement: Measurement) -> dict[str, Any]:
    weights, machine, software = result.weights, result.machine, result.software
    return {
        "date": result.date,
        "engine": software.engine,
        "engine_version": software.engine_version,
        "model": weights.name,
        "repository": weights.repository,
        "revision": weights.revision,
        "weights_bytes": weights.nbytes,
        "quantization": weights.quantization,
        "per_layer": weights.per_layer,
        "chip": machine.chip,
        "machine": machine.model,
        "cpu_cores": machine.cpu_cores,
        "gpu_cores": machine.gpu_cores,
        "memory_bytes": machine.memory_bytes,
        "system": machine.system,
        "power": machine.power,
        "low_power_mode": machine.low_power_mode,
        "python": software.python,
        "mlx": software.mlx,
        "mlx_lm": software.mlx_lm,
        "backend": software.backend,
        **measurement.as_dict(),
    }


def _cells(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """A table's header and rows, for one result or two."""
    if len(results) == 1:
        rows = [[m.label, _depth(m), _value(m, m), _scale(m)[1]] for m in results[0].measurements]
        return _without_depths(["", "depth", "mean ± std", ""], rows)
    rows = [
        [
            pair.first.label,
            _depth(pair.first),
            _value(pair.first, pair.first),
            _value(pair.second, pair.first),
            _scale(pair.first)[1],
            "" if pair.ratio is None else f"{pair.ratio:.2f}",
        ]
        for pair in compare(*results)
    ]
    return _without_depths(["", "depth", *titles(results), "", "ratio"], rows)


def _without_depths(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """A column of nothing but depth 0 says nothing."""
    if {row[1] for row in rows} <= {"", "0"}:
        return [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows]
    return header, rows


def _all_facts(results: Sequence[Result]) -> list[str]:
    """The facts of every result; a line that two share stands there once."""
    blocks = [facts(result) for result in results]
    return list(dict.fromkeys(line for block in blocks for line in block))


def _remarks(results: Sequence[Result]) -> list[str]:
    if len(results) < 2:
        return []
    first, second = results
    lines = [f"ratio: {' ÷ '.join(titles(results))}; more is better for tok/s, less for everything else"]
    if first.software.engine != second.software.engine and first.plan == second.plan:
        pairs = zip(first.first_tokens, second.first_tokens, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(first.first_tokens))
        lines.append(f"the first {same} of {len(first.first_tokens)} tokens after the same prompt are the same")
    return lines


def _depth(measurement: Measurement) -> str:
    return "" if measurement.depth is None else str(measurement.depth)


def _value(measurement: Measurement, like: Measurement) -> str:
    """Mean and deviation, in the unit that suits `like`."""
    scale, _, digits = _scale(like)
    mean = f"{measurement.mean / scale:.{digits}f}"
    return mean if measurement.std is None else f"{mean} ± {measurement.std / scale:.{digits}f}"


def _scale(measurement: Measurement) -> tuple[float, str, int]:
    """What to divide by, the unit's name then, and how many decimals."""
    mean = measurement.mean
    match measurement.unit:
        case "s" if mean < 1:
            return 1e-3, "ms", 1
        case "s":
            return 1.0, "s", 2
        case "bytes":
            return (1e9, "GB", 2) if mean >= 1e9 else (1e6, "MB", 1)
        case "x":
            return 1.0, "", 3
        case _:
            return 1.0, "tok/s", 1
