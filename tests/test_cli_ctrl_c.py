"""Ctrl-C in a real terminal, in every part of a chat's work; and what is shown of work that takes long."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from random_ctrl_c import GREETING, MESSAGES, PROGRAM, disturbed_chats
from tmux_terminal import TmuxTerminal
from users import User


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def slow(user: User, load_seconds: float, *arguments: str | Path, **terminal: Any) -> TmuxTerminal:
    """The command with the built-in model, slowed down."""
    return TmuxTerminal(
        *(str(load_seconds), *arguments), environment=user.environment, cwd=user.home, program=PROGRAM, **terminal
    )


def test_ctrl_c_at_random_moments_leaves_the_chat_alive_and_its_next_answer_the_same(user):
    disturbed_chats(10, 17, user.home, user.environment)


def test_ctrl_c_while_the_model_loads_gives_the_message_back(user):
    with slow(user, 4, "chat", "--model", "demo", "--temperature", "0") as terminal:
        terminal.wait_for("demo is being loaded")
        terminal.type(GREETING, "Enter")
        terminal.wait_for(f"> {GREETING}\n")
        terminal.type("C-c")
        screen = terminal.wait_for(rf"stopped before the answer began; your message was taken back\n> {GREETING}\n", 3)
        assert "Traceback" not in screen
        terminal.wait_for(r"(?m)^demo \W")  # it came all the same
        terminal.type("Enter")
        terminal.wait_for(r"Ask me about gemma4-mlx\.\n> *\n")
        terminal.type("C-d")
        terminal.wait_for("exit code 0")


@pytest.mark.parametrize(("keys", "code"), [(["C-d"], 0), (["C-c", "C-c"], 130)])
def test_nobody_who_leaves_waits_for_a_model_that_is_loading(user, keys, code):
    with slow(user, 60, "chat", "--model", "demo") as terminal:
        terminal.wait_for("demo is being loaded")
        terminal.type(*keys)
        assert "Traceback" not in terminal.wait_for(f"exit code {code}", 10)


@pytest.mark.parametrize("command", ["chat", "ask"])
def test_how_far_a_long_prompt_is_read_is_shown_until_the_answer_begins(user, command):
    message = MESSAGES["prompt"]
    options = ("--model", "demo", "--temperature", "0", *((message,) if command == "ask" else ()))
    with slow(user, 0, command, *options) as terminal:
        if command == "chat":
            terminal.wait_for(r"(?m)^> *$")
            terminal.type("-l", message)
            terminal.type("Enter")
        screen = terminal.wait_for(r"reading \d+ of \d+ tokens\n")
        read, tokens = map(int, re.findall(r"reading (\d+) of (\d+)", screen)[-1])
        assert 0 < read < tokens
        assert tokens > 300
        end = "exit code 0" if command == "ask" else r"hills\.\s+[^>]*\n> *\n"
        assert "reading" not in terminal.wait_for(end)
