"""Results as values and as files: what goes out comes back, and what is something else is refused by name."""

from __future__ import annotations

import copy
import json
import statistics
from pathlib import Path

import pytest
from gemma4_mlx.app.bench.report import LABELS, Measurement, compare, read_result, report_dict
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import ValidationError

from bench_results import check_report, result
from gemma4_mlx.errors import InputError


def written(path: Path, report: object) -> Path:
    path.write_text(json.dumps(report), encoding="utf-8")
    return path


def test_a_report_is_what_the_schema_says_and_reads_back_the_same(tmp_path: Path) -> None:
    report = report_dict([result()])
    check_report(report)
    assert read_result(written(tmp_path / "a.json", report)) == result()


def test_a_report_of_two_is_compared_in_the_schemas_form(tmp_path: Path) -> None:
    report = json.loads(json.dumps(report_dict([result(faster=2), result()])))
    check_report(report)
    ratios = {entry["name"]: entry["ratio"] for entry in report["comparison"]}
    assert ratios["pp512"] == pytest.approx(2)
    assert ratios["ttft512@16384"] == pytest.approx(0.5)
    assert ratios["memory_text"] == 1
    assert read_result(written(tmp_path / "two.json", report)) == result(faster=2)


def test_the_schema_minds_what_is_missing_added_or_changed() -> None:
    whole = json.loads(json.dumps(report_dict([result()])))
    check_report(whole)
    for spoil in (
        lambda report: report.pop("schema_version"),
        lambda report: report.update(schema_version=2),
        lambda report: report.update(comparison=[]),
        lambda report: report["results"].append(report["results"][0]),
        lambda report: report["results"][0].update(host="mine"),
        lambda report: report["results"][0].update(date="yesterday"),
        lambda report: report["results"][0]["measurements"][0].update(samples=[]),
        lambda report: report["results"][0]["machine"].update(power="sun"),
    ):
        report = copy.deepcopy(whole)
        spoil(report)
        with pytest.raises(ValidationError):
            check_report(report)


def test_the_schema_knows_every_kind_of_measurement() -> None:
    for kind in LABELS:
        check_report(report_dict([result(measurements=(Measurement(kind, "s", (1.0,), 3, 4),))]))


@given(st.lists(st.floats(0.001, 1e9), min_size=1, max_size=8))
def test_mean_and_deviation_are_those_of_the_samples(samples: list[float]) -> None:
    measurement = Measurement("pp", "tok/s", tuple(samples), 512, 0)
    assert measurement.mean == pytest.approx(statistics.mean(samples))
    if len(samples) == 1:
        assert measurement.std is None
    else:
        assert measurement.std == pytest.approx(statistics.stdev(samples))


def test_names_tell_length_and_depth_where_there_is_one() -> None:
    names = [measurement.name for measurement in result().measurements]
    assert names[:6] == ["load", "ttft_cold", "pp512", "ttft512", "tg128", "pp512@16384"]
    assert len(set(names)) == len(names)


def test_only_what_both_have_is_compared() -> None:
    speeds = tuple(m for m in result().measurements if m.kind in ("pp", "tg") and m.depth == 0)
    pairs = compare(result(faster=3), result(measurements=speeds))
    assert [pair.first.name for pair in pairs] == ["pp512", "tg128"]
    assert [pair.ratio for pair in pairs] == pytest.approx([3, 3])
    nothing = Measurement("pp", "tok/s", (0.0,), 512, 0)
    assert compare(result(), result(measurements=(nothing,)))[0].ratio is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("not json", "is not JSON"),
        ("[]", "is no benchmark's result"),
        ('{"schema": "llama-bench"}', "is no benchmark's result"),
        ('{"schema": "gemma4-mlx bench", "schema_version": 9}', "has form 9, and this gemma4-mlx reads form 1"),
        ('{"schema": "gemma4-mlx bench", "schema_version": 1}', "was changed since it was written"),
        ('{"schema": "gemma4-mlx bench", "schema_version": 1, "results": []}', "was changed since it was written"),
        ('{"schema": "gemma4-mlx bench", "schema_version": 1, "results": [7]}', "was changed since it was written"),
    ],
)
def test_a_file_that_is_no_result_is_refused_by_name(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "then.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"then\.json") as raised:
        read_result(path)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("section", ["weights", "machine", "software", "plan", "measurements", "first_tokens", "date"])
def test_a_result_without_a_section_is_refused(section: str, tmp_path: Path) -> None:
    report = report_dict([result()])
    del report["results"][0][section]
    with pytest.raises(InputError, match=section):
        read_result(written(tmp_path / "a.json", report))


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        read_result(tmp_path / "none.json")
    with pytest.raises(InputError, match="Is a directory"):
        read_result(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not JSON"):
        read_result(tmp_path / "binary.json")
    (tmp_path / "nested.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="is not JSON"):
        read_result(tmp_path / "nested.json")
    with pytest.raises(InputError, match="/dev/zero is larger than 16 MB"):
        read_result(Path("/dev/zero"))
