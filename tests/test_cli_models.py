"""`gemma4-mlx models`: listing, fetching and removing, as the real command with a Hub on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gemma4_mlx.app.models.sizes import SIZES

from command_line import COMMAND, only_line
from gemma4_mlx.byte_sizes import byte_size
from gemma4_mlx.checkpoint.builtin import FOLDER
from gemma4_mlx.checkpoint.hub import SHORT_NAMES
from hub_server import HubServer, Repository, running_demo_hub
from tmux_terminal import TmuxTerminal
from users import User

OTHER = "someone/gemma-4-tiny-it"
WEIGHTS = (FOLDER / "model.safetensors").stat().st_size


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """Every size, and one model under no short name; each is the built-in one."""
    with running_demo_hub(*SHORT_NAMES.values(), OTHER) as server:
        yield server


@pytest.fixture
def user(hub: HubServer, tmp_path: Path) -> User:
    user = User(tmp_path)
    user.reaches(hub.url)
    return user


def listed(user: User) -> dict[str, dict[str, object]]:
    finished = user.run("models", "--json")
    assert finished.returncode == 0
    assert finished.stderr == ""
    return {model["name"]: model for model in json.loads(only_line(finished.stdout))["models"]}


def put_into_cache(user: User, repo_id: str, **files: bytes) -> Path:
    """A model's folder in the cache as another program may have left it."""
    snapshot = user.cache / f"models--{repo_id.replace('/', '--')}" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name.replace("_json", ".json").replace("_safetensors", ".safetensors")).write_bytes(content)
    return snapshot


def test_the_list_says_what_each_takes_what_is_here_and_what_would_be_used(user):
    finished = user.run("models")
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    rows = {line[2:].split(" ")[0]: line for line in lines[1:7]}
    assert list(rows) == ["demo", "e2b", "e4b", "12b", "26b", "31b"]
    for size in SIZES:
        assert f"{size.download_gb:g} GB" in rows[size.name]
        assert f"{size.memory_gb} GB" in rows[size.name]
    (used,) = [line for line in lines if line.startswith("→")]
    assert f"A question would go to {used[2:].split(' ')[0]}: the " in finished.stdout
    assert max(map(len, lines[:7])) <= 40


def test_the_configured_model_is_the_one_that_would_be_used(user):
    user.sets('model = "e2b"')
    finished = user.run("models", "list")
    assert "\n→ e2b " in finished.stdout
    assert str(user.config) in finished.stdout


def test_what_was_pulled_is_listed_and_removed_again(user, hub):
    assert not listed(user)["e2b"]["fetched"]
    pulled = user.run("models", "pull", "e2b")
    assert pulled.returncode == 0
    folder = Path(only_line(pulled.stdout))
    assert (folder / "config.json").is_file()
    assert "\r" not in pulled.stderr

    e2b = listed(user)["e2b"]
    assert e2b["fetched"]
    assert e2b["disk_bytes"] > WEIGHTS  # type: ignore[operator]
    assert byte_size(int(str(e2b["disk_bytes"]))) in user.run("models").stdout

    refused = user.run("models", "rm", "e2b")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert folder.is_dir()
    removed = user.run("models", "rm", "e2b", "--yes")
    assert removed.returncode == 0
    assert f"{byte_size(int(str(e2b['disk_bytes'])))} freed" in removed.stderr
    assert not (user.cache / f"models--{SHORT_NAMES['e2b'].replace('/', '--')}").exists()
    assert not listed(user)["e2b"]["fetched"]


def test_a_model_under_no_short_name_is_pulled_listed_and_removed_by_its_id(user):
    assert user.run("models", "pull", OTHER).returncode == 0
    assert listed(user)[OTHER]["fetched"]
    assert OTHER in user.run("models").stdout
    assert user.run("models", "rm", OTHER, "-y").returncode == 0
    assert OTHER not in listed(user)


def test_offline_what_is_here_can_be_pulled_and_what_is_not_is_told(user, hub):
    assert user.run("models", "pull", "e2b").returncode == 0
    user.more["HF_HUB_OFFLINE"] = "1"
    hub.requests.clear()
    assert user.run("models", "pull", "e2b").returncode == 0
    finished = user.run("models", "pull", "e4b")
    assert finished.returncode == 1
    assert "HF_HUB_OFFLINE" in only_line(finished.stderr)
    assert not hub.requests


def test_pull_fetches_a_newer_version_and_check_only_says_that_there_is_one(user, hub, tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "served")
    hub.repositories[SHORT_NAMES["e2b"]] = Repository(folder)
    assert user.run("models", "pull", "e2b").returncode == 0
    assert "The Hub has nothing newer than what is here." in user.run("models", "--check").stdout
    (folder / "chat_template.jinja").write_text("{{ newer }}")
    hub.requests.clear()
    assert listed(user)["e2b"]["newer"] is None
    assert not hub.requests
    assert "The Hub has a newer e2b: gemma4-mlx models pull e2b" in user.run("models", "list", "--check").stdout
    checked = json.loads(user.run("models", "--check", "--json").stdout)["models"]
    assert {model["name"]: model["newer"] for model in checked}["e2b"] is True
    hub.downloads.clear()
    pulled = user.run("models", "pull", "e2b")
    assert (Path(only_line(pulled.stdout)) / "chat_template.jinja").read_text() == "{{ newer }}"
    assert hub.downloads == {"chat_template.jinja": 1}


def test_a_hub_that_cannot_be_reached_keeps_nobody_from_what_is_here(user, hub):
    folder = only_line(user.run("models", "pull", "e2b").stdout)
    user.more["HF_ENDPOINT"] = "http://127.0.0.1:9"
    pulled = user.run("models", "pull", "e2b")
    assert (pulled.returncode, only_line(pulled.stdout)) == (0, folder)
    assert "the version that is here stays: cannot reach http://127.0.0.1:9" in pulled.stderr
    checked = user.run("models", "--check")
    assert (checked.returncode, checked.stdout) == (1, "")
    assert "cannot reach" in only_line(checked.stderr)
    user.more["HF_HUB_OFFLINE"] = "1"
    assert "leave --check out" in only_line(user.run("models", "--check").stderr)


def test_a_gated_a_missing_and_a_foreign_model_are_told_in_plain_words(user, hub, tmp_path):
    hub.repositories[OTHER].gated = True
    assert "accept its licence" in only_line(user.run("models", "pull", OTHER).stderr)
    assert "has no model someone/nothing" in only_line(user.run("models", "pull", "someone/nothing").stderr)
    foreign = tmp_path / "llama"
    shutil.copytree(FOLDER, foreign)
    (foreign / "config.json").write_text('{"model_type": "llama"}')
    hub.repositories["someone/llama"] = Repository(foreign)
    finished = user.run("models", "pull", "someone/llama")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "not a Gemma 4" in only_line(finished.stderr)


def test_what_the_disk_has_no_room_for_is_refused_before_anything_is_fetched(user, hub):
    hub.repositories[SHORT_NAMES["e2b"]].claims["model.safetensors"] = 10**17
    finished = user.run("models", "pull", "e2b")
    assert (finished.returncode, finished.stdout) == (1, "")
    line = only_line(finished.stderr)
    assert "needs 100000000.0 GB of disk" in line
    assert "GB free" in line
    assert not hub.downloads


def test_the_built_in_model_is_here_and_stays(user):
    assert only_line(user.run("models", "pull", "demo").stdout) == str(FOLDER)
    finished = user.run("models", "rm", "demo", "--yes")
    assert finished.returncode == 1
    assert "belongs to the program" in only_line(finished.stderr)


def test_only_a_gemma_4_can_be_removed(user, tmp_path):
    weights = {"model_safetensors": b"weights", "tokenizer_json": b"{}"}
    foreign = put_into_cache(user, "someone/llama", config_json=b'{"model_type": "llama"}', **weights)
    damaged = put_into_cache(user, "someone/odd", config_json=b"[]", **weights)
    (tmp_path / "mine").mkdir()
    assert set(listed(user)) == {"demo", *SHORT_NAMES}
    for name in ("someone/llama", "someone/odd", "e4b", "mine", "..", "", "a/b/c"):
        finished = user.run("models", "rm", name, "--yes")
        assert (finished.returncode, finished.stdout) == (1, "")
        assert "not in the Hugging Face cache" in only_line(finished.stderr)
    assert foreign.is_dir()
    assert damaged.is_dir()
    assert (tmp_path / "mine").is_dir()


def test_what_a_killed_download_left_is_listed_as_a_part_and_can_be_removed(user, hub):
    hub.repositories[SHORT_NAMES["e2b"]].hangs = "model.safetensors"
    process = subprocess.Popen(
        [*COMMAND, "models", "pull", "e2b"], env=user.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not list(user.cache.rglob("*.incomplete")) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.2)
    process.kill()
    process.communicate()
    assert not listed(user)["e2b"]["fetched"]
    assert "part, " in user.run("models").stdout
    assert user.run("models", "rm", "e2b", "--yes").returncode == 0
    assert not list(user.cache.glob("models--*"))


def test_ctrl_c_while_fetching_leaves_no_broken_file_and_ends_with_130(user, hub):
    hub.repositories[SHORT_NAMES["e2b"]].hangs = "model.safetensors"
    process = subprocess.Popen(
        [*COMMAND, "models", "pull", "e2b"], env=user.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not hub.downloads["model.safetensors"] and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert not list(user.cache.rglob("*.incomplete"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_to_is_told(user):
    snapshot = put_into_cache(user, OTHER, tokenizer_json=b"{}")
    snapshot.chmod(0o500)
    finished = user.run("models", "rm", OTHER, "--yes")
    snapshot.chmod(0o700)
    assert finished.returncode == 1
    assert "Permission denied" in only_line(finished.stderr)


@pytest.mark.parametrize(("answer", "stays"), [("y", False), ("yes", False), ("", True), ("n", True), ("C-c", True)])
def test_a_person_is_asked_before_anything_is_removed(user, answer, stays):
    snapshot = put_into_cache(user, OTHER, tokenizer_json=b"{}")
    with TmuxTerminal("models", "rm", OTHER, environment=user.environment) as terminal:
        terminal.wait_for(r"remove someone/gemma-4-tiny-it, 0.0 MB\? y/N")
        terminal.type(*[answer] * bool(answer), *["Enter"] * (answer != "C-c"))
        screen = terminal.wait_for("exit code")
    assert snapshot.is_dir() == stays
    assert ("exit code 130" if answer == "C-c" else "exit code 0") in screen


def test_in_a_terminal_a_fetch_shows_how_far_it_is_and_leaves_no_line_behind(user, hub):
    hub.repositories[SHORT_NAMES["e2b"]].hangs = "model.safetensors"
    with TmuxTerminal("models", "pull", "e2b", environment=user.environment) as terminal:
        terminal.wait_for(r"fetching e2b: 0\.0 of 0\.0 GB")
        terminal.type("C-c")
        terminal.wait_for("exit code 130")
    hub.repositories[SHORT_NAMES["e2b"]].hangs = None
    with TmuxTerminal("models", "pull", "e2b", environment=user.environment) as terminal:
        screen = terminal.wait_for("exit code 0")
    assert " of " not in screen
    assert "e2b is here; try it: gemma4-mlx chat --model e2b" in screen


def test_no_cache_and_a_cache_that_is_a_file_are_no_trouble(user):
    assert set(listed(user)) == {"demo", *SHORT_NAMES}
    user.cache.parent.mkdir(parents=True)
    user.cache.write_bytes(b"a file")
    assert set(listed(user)) == {"demo", *SHORT_NAMES}


def test_json_in_front_of_another_command_is_wrong_usage(user):
    assert user.run("models", "--json", "pull", "demo").returncode == 2
    assert user.run("models", "--check", "pull", "demo").returncode == 2
