"""`gemma4-mlx convert` and `python convert.py` as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gemma4_mlx as g4
from command_line import COMMAND, checkpoint, environment, only_line, run
from hub_server import Repository, running_hub


def test_the_folder_alone_goes_to_stdout(tmp_path: Path) -> None:
    done = run("convert", checkpoint(), tmp_path / "out", "--recipe", "8bit")
    assert (done.returncode, only_line(done.stdout)) == (0, str(tmp_path / "out"))
    assert only_line(done.stderr) == f"try it: gemma4-mlx chat --model {tmp_path / 'out'}"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]["bits"] == 8


def test_without_a_folder_it_is_named_after_model_and_recipe(tmp_path: Path) -> None:
    done = run("convert", checkpoint(), cwd=tmp_path)
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["e2b-4bit"]


def test_the_file_at_the_top_of_the_repository_does_the_same(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "convert.py"
    done = subprocess.run(
        [sys.executable, script, checkpoint(), tmp_path / "script"], env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 0
    assert run("convert", checkpoint(), tmp_path / "command").returncode == 0
    for path in (tmp_path / "command").iterdir():
        assert (tmp_path / "script" / path.name).read_bytes() == path.read_bytes()


def test_a_dry_run_prints_sizes_and_memory_and_writes_nothing(tmp_path: Path) -> None:
    done = run("convert", checkpoint(), "--dry-run", "--recipe", "4bit", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    megabytes = {" ".join(line[:-2]): float(line[-2]) for line in lines if line[-1] == "MB"}
    assert set(megabytes) == {"decoder", "embeddings", "per-layer table", "vision tower", "audio tower"}
    table = megabytes["per-layer table"]
    text = {line[-1]: float(line[1]) for line in lines if line[0] == "text"}
    assert text["memory"] - text["disk"] == pytest.approx(table, abs=0.15)  # each is rounded to 0.1
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_hub_id_fetches_the_config_alone(tmp_path: Path) -> None:
    with running_hub() as hub:
        hub.repositories["google/gemma-4-E2B-it"] = Repository(checkpoint())
        settings = {**environment(), "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        command = [*COMMAND, "convert", "google/gemma-4-E2B-it", "--dry-run"]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert set(hub.downloads) == {"config.json"}
    assert done.stdout.splitlines()[1:] == run("convert", checkpoint(), "--dry-run").stdout.splitlines()[1:]


def test_a_hub_id_is_fetched_converted_and_named_in_the_card(tmp_path: Path) -> None:
    with running_hub() as hub:
        hub.repositories["google/gemma-4-E2B-it"] = Repository(checkpoint())
        settings = {**environment(), "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        command = [*COMMAND, "convert", "google/gemma-4-E2B-it", str(tmp_path / "out")]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: google/gemma-4-E2B-it\nlicense: apache-2.0\n" in card
    assert g4.load(tmp_path / "out")[0].config.text.vocab_size == 512


def test_a_quantized_hub_id_is_told_before_its_weights_are_fetched(tmp_path: Path) -> None:
    assert run("convert", checkpoint(), tmp_path / "quantized").returncode == 0
    with running_hub() as hub:
        hub.repositories["me/quantized"] = Repository(tmp_path / "quantized")
        settings = {**environment(), "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        command = [*COMMAND, "convert", "me/quantized", str(tmp_path / "out")]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
        assert set(hub.downloads) == {"config.json"}
    assert done.returncode == 1
    assert "me/quantized is quantized already" in only_line(done.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--recipe", "3bit"], 2, "'3bit' is not one of"),
        (["--dtype", "int8"], 2, "'int8' is not one of"),
        ([], 1, "exists already: remove it, or name another folder"),
    ],
)
def test_bad_usage_and_a_target_in_the_way_end_as_they_should(
    arguments: list[str], code: int, told: str, tmp_path: Path
) -> None:
    done = run("convert", checkpoint(), tmp_path, *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert told in only_line(done.stderr) if code == 1 else told in done.stderr


def test_a_quantized_source_is_one_line(tmp_path: Path) -> None:
    assert run("convert", checkpoint(), tmp_path / "out").returncode == 0
    done = run("convert", tmp_path / "out", tmp_path / "again")
    assert done.returncode == 1
    assert "is quantized already: name the checkpoint it was made from" in only_line(done.stderr)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = run("convert", checkpoint(), tmp_path / "out")
    tmp_path.chmod(0o700)
    assert done.returncode == 1
    assert "cannot write" in only_line(done.stderr)


def test_an_upload_without_a_token_fails_before_any_work(tmp_path: Path) -> None:
    done = run("convert", checkpoint(), tmp_path / "out", "--upload", "me/mine")
    assert done.returncode == 1
    assert "run `hf auth login`" in only_line(done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_help_does_not_load_mlx() -> None:
    program = """
import sys
from gemma4_mlx.app.cli import main
try:
    main()
finally:
    assert "mlx.core" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program, "convert", "--help"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
