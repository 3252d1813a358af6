"""How results are shown: the same numbers as text, Markdown, CSV, JSON and a drawing."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
from pathlib import Path

import pytest
from gemma4_mlx.app.bench import bench_plot
from gemma4_mlx.app.bench.bench_tables import facts, flat_rows, render, titles
from gemma4_mlx.app.bench.report import Result
from PIL import Image

from bench_results import M3_PRO, check_report, check_row, result
from gemma4_mlx.errors import Gemma4Error

OTHER = dataclasses.replace(result().software, engine="mlx-vlm", engine_version="0.7.10")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(text: str) -> dict[str, list[str]]:
    """A text table's rows: label and depth → the rest."""
    rows = (line.split("  ") for line in text.splitlines() if line)
    return {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}


def test_the_facts_fit_on_three_lines() -> None:
    assert facts(result()) == [
        "e2b (mlx-community/gemma-4-e2b-it-8bit 01234567) · 5.5 GB · 8-bit affine, group 64 · per-layer table on disk",
        "Apple M3 Pro · 18 GPU cores · 36 GB · macOS 15.1 · mains",
        "gemma4-mlx 0.1.0 · MLX 0.32.4 on metal · Python 3.12.4 · 2026-11-24 09:30",
    ]


def test_unknown_facts_are_left_out_and_low_power_mode_is_not() -> None:
    bare = dataclasses.replace(M3_PRO, chip=None, gpu_cores=None, power="battery", low_power_mode=True)
    assert facts(result(machine=bare))[1] == "36 GB · macOS 15.1 · battery · low power mode"


def test_a_name_cannot_steer_the_terminal() -> None:
    weights = dataclasses.replace(result().weights, name="mine\x1b[2J")
    assert "\x1b" not in render([result(weights=weights)], "text")


def test_text_has_each_measurement_with_its_deviation_and_unit() -> None:
    rows = lines_of(render([result()], "text"))
    assert rows["import and load"] == ["410.0", "ms"]
    assert rows["cold first token after 512"] == ["1.24", "s"]
    assert rows["sound: real-time factor"] == ["0.012 ± 0.000"]
    assert rows["peak memory, text"] == ["3.10", "GB"]
    text = render([result()], "text")
    assert "1240.0 ± 10.0  tok/s" in text
    assert text.count("prompt of 512") == 2


def test_text_for_a_pipe_has_no_codes_and_fits_80_columns() -> None:
    for shown in ([result()], [result(), result(software=OTHER, faster=0.5)]):
        text = render(shown, "text")
        assert "\x1b" not in text
        table = [line for line in text.splitlines() if " · " not in line and not line.startswith("ratio")]
        assert max(map(len, table)) <= 80
        assert all(line == line.rstrip() for line in text.splitlines())


def test_a_terminal_gets_dim_facts_unless_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Screen())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert render([result()], "text").startswith("\x1b[2me2b")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in render([result()], "text")


def test_depths_are_a_column_only_when_there_are_any() -> None:
    at_once = tuple(m for m in result().measurements if not m.depth)
    assert "depth" in render([result()], "text")
    assert "depth" not in render([result(measurements=at_once)], "text")


def test_two_stand_side_by_side_in_the_same_unit_with_ratios() -> None:
    shown = render([result(), result(software=OTHER, faster=0.25)], "text")
    rows = lines_of(shown)
    assert rows["import and load"] == ["410.0", "1640.0", "ms", "0.25"]
    assert rows["cold first token after 512"] == ["1.24", "4.96", "s", "0.25"]
    assert "gemma4-mlx ÷ mlx-vlm" in shown
    assert "the first 4 of 4 tokens after the same prompt are the same" in shown


def test_engines_that_say_different_things_are_told_apart() -> None:
    shown = render([result(), result(software=OTHER, first_tokens=(5, 6, 9, 8))], "text")
    assert "the first 2 of 4 tokens after the same prompt are the same" in shown
    other_prompts = dataclasses.replace(result().plan, prompts=(64,))
    assert "same prompt" not in render([result(), result(software=OTHER, plan=other_prompts)], "text")


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (result(software=OTHER), ["gemma4-mlx", "mlx-vlm"]),
        (result(weights=dataclasses.replace(result().weights, name="me/e4b")), ["e2b", "e4b"]),
        (result(machine=dataclasses.replace(M3_PRO, chip="Apple M1")), ["Apple M3 Pro", "Apple M1"]),
        (result(weights=dataclasses.replace(result().weights, per_layer="memory")), ["table disk", "table memory"]),
        (result(date="2026-11-23T08:00:00+01:00"), ["2026-11-24 09:30", "2026-11-23 08:00"]),
        (result(), ["now", "before"]),
    ],
)
def test_columns_are_called_after_what_differs(other: Result, expected: list[str]) -> None:
    assert titles([result(), other]) == expected


def test_markdown_is_a_table_with_as_many_cells_in_every_row() -> None:
    for shown in ([result()], [result(), result(faster=2, software=OTHER)]):
        table = [line for line in render(shown, "md").splitlines() if line.startswith("|")]
        assert len(table) == 2 + len(result().measurements)
        assert len({line.count("|") for line in table}) == 1
    assert "| prompt of 512 | 0 | 1240.0 ± 10.0 | tok/s |" in render([result()], "md")


def test_csv_has_a_row_per_measurement_with_all_the_facts() -> None:
    rows = list(csv.DictReader(io.StringIO(render([result(), result(software=OTHER)], "csv"))))
    assert [row["name"] for row in rows] == [m.name for m in result().measurements] * 2
    assert {row["engine"] for row in rows} == {"gemma4-mlx", "mlx-vlm"}
    assert rows[2]["samples"] == "1230.0 1240.0 1250.0"
    assert (rows[0]["tokens"], rows[0]["quantization"]) == ("", "8-bit affine, group 64")


def test_jsonl_and_json_are_what_the_schema_says() -> None:
    rows = [json.loads(line) for line in render([result()], "jsonl").splitlines()]
    assert rows == flat_rows([result()])
    for row in rows:
        check_row(row)
    (line,) = render([result(), result(software=OTHER)], "json").splitlines()
    check_report(json.loads(line))


@pytest.mark.parametrize("suffix", bench_plot.SUFFIXES)
def test_a_drawing_is_written_in_the_format_its_name_says(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"speed{suffix}"
    bench_plot.check(path)
    bench_plot.draw([result(), result(software=OTHER, faster=0.5)], path)
    magic = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(magic)


def test_a_drawing_has_a_line_for_each_result(tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    bench_plot.draw([result()], one)
    bench_plot.draw([result(), result(software=OTHER, faster=0.5)], two)

    def has_orange(path: Path) -> bool:
        pixels = Image.open(path).convert("RGB").getcolors(1 << 20)
        return any(r > 180 and 40 < g < 120 and b < 80 for _, (r, g, b) in pixels)

    assert [has_orange(one), has_orange(two)] == [False, True]


def test_nothing_to_draw_is_an_error_that_says_so(tmp_path: Path) -> None:
    no_speed = tuple(m for m in result().measurements if m.unit != "tok/s")
    with pytest.raises(Gemma4Error, match="no speed was measured"):
        bench_plot.draw([result(measurements=no_speed)], tmp_path / "speed.png")
