"""`gemma4-mlx chat`: through a pipe, in a real terminal (tmux), and its session with a small random model."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest
from gemma4_mlx.app.answering import Sampling
from gemma4_mlx.app.chat import COMMANDS, ChatSession
from gemma4_mlx.app.conversation import Conversation

import gemma4_mlx as g4
from command_line import COMMAND, checkpoint, environment, picture, run, scratch, start
from gemma4_mlx.errors import InputError

GREEDY = Sampling(max_tokens=6, temperature=0.0)


def chat(*lines: str, **options):
    typed = "".join(f"{line}\n" for line in lines)
    return run("chat", "--max-tokens", "6", "--temperature", "0", stdin=typed, model=checkpoint(), **options)


def test_answers_go_to_stdout_and_everything_else_to_stderr():
    finished = chat("/help", "hello")
    assert finished.returncode == 0
    assert finished.stdout == run("ask", "hello", "--max-tokens", "6", "--temperature", "0", model=checkpoint()).stdout
    assert "/image FILE" in finished.stderr


def test_quit_ends_it_before_the_next_line():
    finished = chat("/quit", "hello")
    assert (finished.returncode, finished.stdout) == (0, "")


def test_what_cannot_be_done_is_reported_and_the_conversation_goes_on(tmp_path):
    (tmp_path / "fake.jpg").write_text("just words")
    finished = chat("/image none.png", "fake.jpg", "/image", "/think perhaps", "/nonsense", "hello", cwd=tmp_path)
    assert finished.returncode == 0
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 5
    assert "none.png" in errors[0]
    assert "fake.jpg is not a picture" in errors[1]
    assert "/nonsense" in errors[4]
    assert finished.stdout.endswith("\n")


def test_ctrl_c_at_an_empty_prompt_is_130():
    process = start("chat", model=checkpoint())
    assert b"/help" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.stdin = None
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, b"", b"")


def test_ctrl_c_in_an_answer_stops_it_and_the_conversation_goes_on():
    process = start("chat", "--max-tokens", "3000", "--seed", "4", model=checkpoint())
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    while process.stdout.read(1).isspace():
        pass
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(b"/clear\n", timeout=60)
    assert process.returncode == 0
    assert b"stopped; what was written stays in the conversation" in stderr
    assert stderr.endswith(b"forgotten\n")


@pytest.fixture
def session() -> ChatSession:
    return ChatSession(*g4.load(checkpoint()), Conversation(), GREEDY)


def test_turns_are_kept_and_read_again(session, capsys):
    assert session.handle("hello")
    assert session.handle("again")
    said = capsys.readouterr().out
    roles, contents = zip(*((turn["role"], turn["content"]) for turn in session.conversation.turns), strict=True)
    assert roles == ("user", "assistant", "user", "assistant")
    assert said == "".join(content if content.endswith("\n") else f"{content}\n" for content in contents[1::2])


def test_a_picture_waits_for_the_next_message(session, capsys):
    session.handle(f"/image {picture()}")
    assert [attachment.name for attachment in session.conversation.waiting] == ["cat.png"]
    session.handle("what is it?")
    assert session.conversation.waiting == []
    assert [part["type"] for part in session.conversation.turns[0]["content"]] == ["image", "text"]
    assert "120×90" in capsys.readouterr().err


def test_a_message_the_model_refuses_leaves_the_turns_as_they_were(session):
    session.handle("hello")
    turns = list(session.conversation.turns)
    with pytest.raises(InputError, match="context"):
        session.handle("word " * 20_000)
    assert session.conversation.turns == turns


class InterruptedScreen(io.StringIO):
    """Ctrl-C once, when a word of the answer has been written."""

    interrupted = False

    def write(self, text: str) -> int:
        if self.getvalue().strip() and not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        return super().write(text)


def test_a_stopped_answer_stays_in_the_conversation_as_far_as_it_came(session, monkeypatch):
    screen = InterruptedScreen()
    monkeypatch.setattr(sys, "stdout", screen)
    session.handle("hello")
    _, answer = session.conversation.turns
    assert answer["role"] == "assistant"
    assert answer["content"].startswith(screen.getvalue().rstrip("\n"))
    assert session.handle("go on")
    assert len(session.conversation.turns) == 4


def test_thinking_and_instructions_are_set_by_commands(session):
    session.handle("/think on")
    session.handle("/system be  brief")
    assert session.conversation == Conversation(system="be  brief", thinking=True)
    session.handle("/system")
    session.handle("/think off")
    assert session.conversation == Conversation()


@pytest.mark.parametrize("command", sorted(COMMANDS - {"/quit"}))
def test_no_command_reaches_the_model(session, command, capsys):
    with contextlib.suppress(InputError):
        assert session.handle(command)
    assert session.conversation.turns == []
    assert capsys.readouterr().out == ""


class Terminal:
    """An 80×24 terminal (tmux) with the chat running in it."""

    def __init__(self, *arguments: str) -> None:
        self.socket = f"gemma4-mlx-{uuid.uuid4().hex[:8]}"
        command = [*COMMAND, "chat", *arguments]
        variables = [f"{name}={value}" for name, value in environment(checkpoint()).items() if name != "TERM"]
        line = f"{shlex.join(['env', *variables, *command])}; echo exit code $?; exec sleep 1000"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-c", str(scratch()), line)

    def tmux(self, *arguments: str) -> str:
        finished = subprocess.run(
            ["tmux", "-L", self.socket, *arguments], capture_output=True, text=True, check=True, timeout=60
        )
        return finished.stdout

    def type(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def wait_for(self, pattern: str) -> str:
        """The screen, once `pattern` is on it."""
        for _ in range(300):
            screen = self.tmux("capture-pane", "-p")
            if re.search(pattern, screen):
                return screen
            time.sleep(0.1)
        pytest.fail(f"{pattern!r} never came:\n{screen}")

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    with contextlib.closing(
        Terminal(*getattr(request, "param", ["--max-tokens", "6", "--temperature", "0"]))
    ) as terminal:
        yield terminal


def test_in_a_terminal_a_conversation_can_be_typed(terminal):
    terminal.wait_for("Ctrl-D leaves.\n>")
    terminal.type(str(picture()), "Enter")
    terminal.wait_for(r"attached: cat.png \(120×90\)")
    terminal.type("what is it?", "Enter")
    screen = terminal.wait_for("note: cut after 6 tokens")
    assert "> what is it?" in screen
    terminal.type("/quit", "Enter")
    assert "exit code 0" in terminal.wait_for("exit code")


def test_in_a_terminal_ctrl_c_clears_what_is_typed_and_then_leaves(terminal):
    terminal.wait_for("Ctrl-D leaves.\n>")
    terminal.type("half a thought")
    terminal.wait_for("> half a thought")
    terminal.type("C-c")
    terminal.type("/think on", "Enter")
    assert "half a thought" not in terminal.wait_for("thinking on")
    terminal.type("C-c")
    assert "exit code 130" in terminal.wait_for("exit code")


@pytest.mark.parametrize("terminal", [["--max-tokens", "3000", "--seed", "4"]], indirect=True)
def test_in_a_terminal_ctrl_c_stops_an_answer_and_the_prompt_comes_back(terminal):
    terminal.wait_for("Ctrl-D leaves.\n>")
    terminal.type("hello", "Enter")
    terminal.wait_for(r"> hello\s+\S")
    terminal.type("C-c")
    terminal.wait_for("stopped")
    terminal.type("C-d")
    assert "exit code 0" in terminal.wait_for("exit code")


def test_earlier_lines_come_back_with_the_up_arrow_in_the_next_chat(terminal):
    terminal.wait_for("Ctrl-D leaves.\n>")
    terminal.type("/think on", "Enter")
    terminal.wait_for("thinking on")
    terminal.type("C-d")
    terminal.wait_for("exit code")
    with contextlib.closing(Terminal()) as following:
        following.wait_for("Ctrl-D leaves.\n>")
        following.type("Up")
        following.wait_for("> /think on")
