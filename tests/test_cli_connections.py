"""Once a model is here, no command opens a connection: seen by an audit hook in the real command, and by the Hub."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from demo_inputs import RECORDINGS
from gemma4_mlx.checkpoint.hub import SHORT_NAMES
from hub_server import HubServer, running_demo_hub
from users import User

# Every look-up of a name and every connection of the process, before it is made.
WATCHED = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open("connections", "a") as log:
            log.write(f"{event} {arguments[1:]}\\n")

sys.addaudithook(watch)
from gemma4_mlx.app.cli import main
main()
"""
COMMANDS = [
    ["ask", "hi", "--max-tokens", "3"],
    ["chat"],
    ["transcribe", RECORDINGS[0].path],
    ["transcribe", RECORDINGS[0].path, "--simulate", "--speed", "8"],
    ["bench", "-p", "8", "-g", "4", "-r", "1", "--text-only"],
    ["convert", "--dry-run"],
    ["models"],
]


@pytest.fixture(scope="module")
def hub():
    with running_demo_hub(*SHORT_NAMES.values()) as server:
        yield server


@pytest.fixture(scope="module")
def user(hub: HubServer, tmp_path_factory) -> User:
    user = User(tmp_path_factory.mktemp("user"))
    user.reaches(hub.url)
    assert user.run("models", "pull", "e2b").returncode == 0
    return user


def watched(user: User, *arguments: str | Path) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run a command; its connections."""
    log = user.home / "connections"
    log.unlink(missing_ok=True)
    finished = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, arguments)],
        env=user.environment,
        cwd=user.home,
        timeout=120,
        check=False,
        capture_output=True,
        text=True,
        input="hello\n" if arguments[0] == "chat" else "",
    )
    return finished, log.read_text() if log.exists() else ""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("name", ["e2b", SHORT_NAMES["e2b"]])
def test_with_the_model_here_no_command_opens_a_connection(command, name, user, hub):
    if command[0] == "models":
        named = command
    elif command[0] == "convert":
        named = ["convert", name, "out", "--dry-run"]
    else:
        named = [*command, "--model", name]
    hub.requests.clear()
    finished, connections = watched(user, *named)
    assert finished.returncode == 0, finished.stderr
    assert connections == ""
    assert not hub.requests


def test_the_watching_sees_a_connection(user, hub):
    hub.requests.clear()
    _, connections = watched(user, "models", "--check")
    assert "socket.connect" in connections
    assert [request for request in hub.requests if SHORT_NAMES["e2b"] in request]


def test_a_hub_that_accepts_and_never_answers_is_not_even_asked(user):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        user = User(user.home, {**user.more, "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        finished, connections = watched(user, "ask", "--model", "e2b", "hi", "--max-tokens", "3")
        assert finished.returncode == 0
        assert connections == ""


def test_what_is_asked_of_the_hub_says_nothing_of_what_else_is_here(user, hub):
    """huggingface_hub names Python's, torch's and an agent's version, and asks for a list to know agents by."""
    hub.requests.clear()
    watched(user, "models", "pull", "e2b")
    assert hub.requests == [f"GET /api/models/{SHORT_NAMES['e2b']}"]
