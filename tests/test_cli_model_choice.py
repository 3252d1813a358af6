"""Which model a command takes when several places name one, or none does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gemma4_mlx.app.models.model_choice import choose_model
from gemma4_mlx.app.models.sizes import SIZES

from command_line import only_line, run
from gemma4_mlx.checkpoint.hub import SHORT_NAMES
from gemma4_mlx.config import Config
from gemma4_mlx.errors import Gemma4Error
from test_memory import kv_bytes_per_token, sliding_kv_bytes

GB = 2**30


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text('model = "from-file"\n')
    return file


def test_the_option_wins_over_the_variable_and_the_file(config):
    assert choose_model("from-option", {"GEMMA4_MLX_MODEL": "from-variable"}, config, 64 * GB).name == "from-option"


def test_the_variable_wins_over_the_file(config):
    assert choose_model(None, {"GEMMA4_MLX_MODEL": "from-variable"}, config, 64 * GB).name == "from-variable"


def test_an_empty_variable_counts_as_unset(config):
    assert choose_model(None, {"GEMMA4_MLX_MODEL": ""}, config, 64 * GB).name == "from-file"


@pytest.mark.parametrize(
    ("memory_gb", "name"), [(128, "31b"), (48, "31b"), (36, "26b"), (24, "12b"), (16, "e4b"), (8, "e2b")]
)
def test_without_a_name_the_largest_size_that_fits_is_taken(tmp_path, memory_gb, name):
    choice = choose_model(None, {}, tmp_path / "none.toml", memory_gb * GB)
    assert choice.automatic
    assert choice.name == name
    assert f"{memory_gb} GB" in choice.reason


def test_for_sound_the_largest_size_that_hears_is_taken(tmp_path):
    for memory_gb, name in ((128, "12b"), (24, "12b"), (16, "e4b"), (8, "e2b")):
        choice = choose_model(None, {}, tmp_path / "none.toml", memory_gb * GB, hearing=True)
        assert choice.name == name
        assert "hears" in choice.reason


def test_every_size_fits_what_macos_gives_the_gpu_with_a_context_of_32000_tokens():
    for size in SIZES:
        config = {"26b": "26b-a4b"}.get(size.name, size.name)
        raw = json.loads((Path(__file__).parent / "configs" / f"{config}.json").read_text())
        text = Config.from_dict(raw).text
        needed = size.download_gb * 1e9 + 32_000 * kv_bytes_per_token(text) + sliding_kv_bytes(text)
        share = 3 / 4 if size.memory_gb > 36 else 2 / 3
        on_disk = {"e2b": 2.5e9}.get(size.name, 0)  # its per-layer table in 8 bits, read row by row there
        assert needed - on_disk < share * size.memory_gb * GB


def test_a_machine_too_small_for_any_gets_the_smallest_and_is_told(tmp_path):
    choice = choose_model(None, {}, tmp_path / "none.toml", 4 * GB)
    assert choice.name == "e2b"
    assert "may be too small" in choice.reason


def test_every_size_is_a_short_name_that_can_be_fetched():
    assert {size.name for size in SIZES} == set(SHORT_NAMES)


@pytest.mark.parametrize("content", ["model = e2b", "model = 3", 'model = ""', "\xff".encode("latin-1")])
def test_a_config_file_that_makes_no_sense_is_named_in_the_error(tmp_path, content):
    file = tmp_path / "config.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Gemma4Error, match=r"config\.toml"):
        choose_model(None, {}, file, 16 * GB)


def test_the_command_says_which_model_it_takes_and_why():
    finished = run("ask", "hi")
    choice, error = finished.stderr.splitlines()
    assert choice.startswith("model: ")
    assert "GB of memory" in choice
    assert "HF_HUB_OFFLINE" in error
    assert finished.returncode == 1


@pytest.mark.parametrize("name", ["/no/such/folder", "no model", ".."])
def test_a_model_that_is_not_there_is_one_line_and_exit_code_1(name):
    finished = run("ask", "hi", "--model", name)
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert only_line(finished.stderr).startswith("error: ")


@pytest.mark.parametrize(
    "line",
    [
        "--debug ask hi --model /no/model",
        "ask --debug hi --model /no/model",
        "ask hi --model /no/model --debug",
        "--debug convert /no/model",
        "--debug models pull /no/model",
        "models --debug pull /no/model",
        "models pull /no/model --debug",
    ],
)
def test_debug_shows_pythons_traceback_wherever_it_stands(line):
    words = line.split()
    finished = run(*words)
    assert finished.returncode == 1
    assert finished.stderr.startswith("Traceback")
    words.remove("--debug")
    assert only_line(run(*words).stderr).startswith("error: ")


def test_debug_is_in_the_help_of_the_program_and_of_its_commands():
    for words in ([], ["ask"], ["models"], ["models", "pull"]):
        assert "--debug" in run("--debug", *words, "--help").stdout


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_option_is_told_and_not_taken_for_none(config, name):
    with pytest.raises(Gemma4Error, match="--model is empty"):
        choose_model(name, {}, config, 64 * GB)


def test_the_readmes_table_of_sizes_says_what_the_program_says():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for size in SIZES:
        hears = "yes" if size.hears else "no"
        assert f"| `{size.name}` | {size.memory_gb} GB | {size.download} | yes | {hears} |" in readme
