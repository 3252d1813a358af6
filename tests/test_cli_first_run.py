"""The first run: what a person at a terminal is offered when no model is here, and what comes of the answer.

The Hub is a small server on this machine; each size of the family on it is the built-in model.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gemma4_mlx.app.models.fetching import Fetch, left
from gemma4_mlx.app.models.first_run import Offer
from gemma4_mlx.app.models.model_choice import largest_that_fits
from gemma4_mlx.app.models.sizes import SIZES
from gemma4_mlx.app.settings import read_settings, remember_model

from gemma4_mlx.byte_sizes import physical_memory
from gemma4_mlx.checkpoint.hub import SHORT_NAMES
from hub_server import HubServer, running_demo_hub
from tmux_terminal import TmuxTerminal
from users import User

GB = 2**30
PROPOSED = largest_that_fits(physical_memory(), hearing=False).name
# Any but the one proposed here.
OTHER = next(size.name for size in SIZES if size.name != PROPOSED)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with running_demo_hub(*SHORT_NAMES.values()) as server:
        yield server


@pytest.fixture
def user(hub: HubServer, tmp_path: Path) -> User:
    """Somebody new, who reaches that Hub."""
    user = User(tmp_path)
    user.reaches(hub.url)
    return user


@pytest.fixture
def as_user(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """This process, and those it starts, in their environment."""
    for name, value in user.environment.items():
        monkeypatch.setenv(name, value)
    return user


def offer(memory: int = 16 * GB, free: float = 1e12, demo: bool = False, here: frozenset[str] = frozenset()) -> Offer:
    return Offer(tuple(reversed(SIZES)), here, memory, int(free), demo)


def test_enter_fetches_the_proposed_size_and_the_question_is_answered(user):
    with TmuxTerminal("ask", "What is Gemma?", "--max-tokens", "20", environment=user.environment) as terminal:
        screen = terminal.wait_for("which one")
        assert f"1  {PROPOSED}" in screen
        terminal.type("Enter")
        screen = terminal.wait_for("exit code")
    assert re.search(rf"fetching {PROPOSED}: \d\.\d MB, this once", screen)
    assert "exit code 0" in screen
    assert not user.config.exists()


def test_another_size_is_remembered_and_nobody_is_asked_twice(user):
    with TmuxTerminal("ask", "What is Gemma?", "--max-tokens", "8", environment=user.environment) as terminal:
        terminal.wait_for("which one")
        terminal.type("e3b", "Enter")
        terminal.wait_for("choose one of")
        terminal.type(OTHER, "Enter")
        assert "exit code 0" in terminal.wait_for("exit code")
    assert read_settings(user.config).model == OTHER
    with TmuxTerminal("ask", "What is Gemma?", "--max-tokens", "8", environment=user.environment) as terminal:
        screen = terminal.wait_for("exit code")
    assert "exit code 0" in screen
    assert "which one" not in screen
    assert "fetching" not in screen


def test_a_size_that_could_not_be_fetched_is_not_remembered(user):
    user.reaches("http://127.0.0.1:9")
    with TmuxTerminal("ask", "What is Gemma?", environment=user.environment) as terminal:
        terminal.wait_for("which one")
        terminal.type(OTHER, "Enter")
        assert "cannot reach" in terminal.wait_for("exit code 1")
    assert not user.config.exists()


def test_a_chat_begins_with_the_built_in_model_and_says_when_the_fetched_one_is_here(user):
    with TmuxTerminal("chat", environment=user.environment) as terminal:
        terminal.wait_for("which one")
        terminal.type("demo", "Enter")
        terminal.wait_for("Ctrl-D leaves")
        terminal.type("Does my data leave this Mac?", "Enter")
        terminal.wait_for(r"No\. Everything runs")
        terminal.wait_for(f"{PROPOSED} is here: /model {PROPOSED}")
        terminal.type(f"/model {PROPOSED}", "Enter")
        terminal.type("Does my data leave this Mac?", "Enter")
        terminal.wait_for(r"(?s)No\. Everything runs.*No\. Everything runs[^\n]*\n>")
        terminal.type("C-d")
        terminal.wait_for("exit code 0")
    assert not user.config.exists()


@pytest.mark.parametrize(("key", "ending"), [("C-c", "exit code 130"), ("C-d", "exit code 1")])
def test_whoever_leaves_the_question_has_fetched_nothing(user, hub, key, ending):
    with TmuxTerminal("ask", "What is Gemma?", environment=user.environment) as terminal:
        terminal.wait_for("which one")
        terminal.type(key)
        screen = terminal.wait_for("exit code")
    assert ending in screen
    assert "Traceback" not in screen
    assert not hub.requests


def test_offline_nobody_is_offered_what_cannot_be_fetched(user):
    with TmuxTerminal("ask", "hi", environment={**user.environment, "HF_HUB_OFFLINE": "1"}) as terminal:
        screen = terminal.wait_for("exit code")
    assert "which one" not in screen
    assert "HF_HUB_OFFLINE" in screen.replace("\n", "")  # the screen breaks it anywhere


def test_an_offer_says_what_each_takes_and_what_is_here_already_in_forty_columns():
    title, *lines = offer(memory=16 * GB, free=16e9, here=frozenset({"e2b"}), demo=True).lines()
    assert "16 GB of memory and 16 GB of disk free" in title
    assert lines == [
        "  1  e2b   is here already",
        "  2  e4b   8.5 GB, for 16 GB of memory",
        "  3  12b    13 GB, too big: wants 24 GB",
        "  4  26b    15 GB, too big: wants 32 GB",
        "  5  31b    18 GB, too big for the disk",
        "  6  demo  built in; fetch e2b meanwhile",
    ]
    assert max(map(len, lines)) <= 40


def test_a_number_a_name_or_nothing_chooses():
    four = offer(demo=True)
    assert four.chosen("\n") == "e2b"
    assert four.chosen("2\n") == "e4b"
    assert four.chosen(" E4B ") == "e4b"
    assert four.chosen("6") == four.chosen("demo") == "demo"
    assert [four.chosen(word) for word in ("0", "7", "e3b", "٣٣", "-1")] == [None] * 5
    assert offer(demo=False).chosen("demo") is None


def test_a_background_fetch_says_how_far_it_is_and_when_it_is_here(as_user):
    fetch = Fetch("e2b")
    assert fetch.state().startswith("fetching e2b")
    wait_for_the_end(fetch)
    assert fetch.state() == "e2b is here: /model e2b"
    fetch.stop()


def test_a_background_fetch_that_fails_says_why(as_user, hub):
    hub.repositories[SHORT_NAMES["e2b"]].gated = True
    fetch = Fetch("e2b")
    wait_for_the_end(fetch)
    assert "accept its licence" in fetch.state()
    assert "\n" not in fetch.state()


def test_a_background_fetch_can_be_stopped_and_leaves_no_broken_file(as_user, hub):
    hub.repositories[SHORT_NAMES["e2b"]].hangs = "model.safetensors"
    fetch = Fetch("e2b")
    while not hub.downloads["model.safetensors"]:
        assert not fetch.finished
        time.sleep(0.02)
    fetch.stop()
    fetch.stop()
    wait_for_the_end(fetch)
    assert "gemma4-mlx models pull e2b" in fetch.state()
    assert not list(as_user.cache.rglob("*.incomplete"))
    assert not list(as_user.cache.rglob("snapshots/*/config.json"))


def wait_for_the_end(fetch: Fetch) -> None:
    end = time.monotonic() + 60
    while not fetch.finished and time.monotonic() < end:
        time.sleep(0.02)
    assert fetch.finished


def test_the_time_left_is_said_once_it_is_known():
    assert left(0, 100, 60) == left(50, 100, 0.5) == ""
    assert left(10**9, 5 * 10**9, 50) == ", 20 MB/s, 3 min left"
    assert left(4 * 10**9, 5 * 10**9, 50) == ", 80 MB/s, 12 s left"


def test_remembering_leaves_the_rest_of_the_config_file_as_it_is(tmp_path):
    kept = tmp_path / "dotfiles" / "config.toml"
    kept.parent.mkdir()
    kept.write_text('# mine\n[chat]\nsystem = "Be brief."\n')
    file = tmp_path / "config.toml"
    file.symlink_to(kept)
    remember_model("e2b", file)
    assert file.is_symlink()
    assert kept.read_text() == 'model = "e2b"\n# mine\n[chat]\nsystem = "Be brief."\n'
    settings = read_settings(file)
    assert (settings.model, settings.chat.system) == ("e2b", "Be brief.")
