"""What `gemma4-mlx chat` leaves on disk: nothing with --private, and nothing of what is forgotten or deleted."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from command_line import COMMAND, picture
from demo_inputs import RECORDINGS
from tmux_terminal import TmuxTerminal
from users import User
from virtual_microphone import IS_INSTALLED, virtual_microphone

READY = r"(?m)^> *$"
SECRET = "xyzzy"
CALLING = [sys.executable, str(Path(__file__).with_name("calling_chat.py"))]
ADD = '''
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one.
        b: the other.
    """
    return a + b
'''


@pytest.fixture
def user(tmp_path: Path) -> User:
    home = tmp_path / "home"
    (home / "temporary").mkdir(parents=True)
    # MLX's CPU back end keeps the code there that it has compiled; without that each answer takes minutes.
    (home / "temporary" / "mlx").symlink_to(Path(tempfile.gettempdir()) / "mlx")
    shutil.copy(picture(), home / "cat.png")
    shutil.copy(RECORDINGS[0].path, home / f"sound{RECORDINGS[0].path.suffix}")
    (home / "tools.py").write_text(ADD)
    return User(home, {"TMPDIR": str(home / "temporary"), "PYTHONDONTWRITEBYTECODE": "1"})


def chat(user: User, *options: str | Path, program=COMMAND) -> TmuxTerminal:
    return TmuxTerminal(
        *("chat", "--model", "demo", *options),
        environment=user.environment,
        cwd=user.home,
        columns=110,
        rows=40,
        program=program,
    )


def everything(user: User) -> dict[Path, bytes]:
    """All files of a user, temporary ones and caches included."""
    return {file: file.read_bytes() for file in user.home.rglob("*") if file.is_file()}


def holding(user: User, word: str = SECRET) -> list[Path]:
    return [file for file, content in everything(user).items() if word.encode() in content or word in file.name]


def sessions(user: User) -> list[str]:
    return sorted(file.stem for file in user.home.rglob("*.jsonl"))


def say(terminal: TmuxTerminal, message: str) -> None:
    """Send a message and wait until it is answered."""
    terminal.type(message, "Enter")
    terminal.wait_for(rf"(?s)> [^\n]*{re.escape(message)}\n.*\S.*\n> *\n\n")


@pytest.mark.skipif(not IS_INSTALLED, reason="needs PulseAudio to be a microphone")
def test_a_private_chat_with_picture_sound_tool_and_microphone_writes_nothing_anywhere(user, tmp_path):
    (tmp_path / "pulse").mkdir()
    with virtual_microphone(tmp_path / "pulse") as microphone:
        user.more |= {**microphone.environment, "PULSE_COOKIE": str(tmp_path / "pulse" / "cookie")}
        before = everything(user)
        with chat(user, "--private", "--tools", "tools.py", program=CALLING) as terminal:
            terminal.wait_for("private: nothing of this chat is written to disk")
            terminal.wait_for("private · demo")
            for file in sorted(user.home.glob("*.*")):
                if file.suffix != ".py":
                    terminal.paste(f"'{file}' ")
                    terminal.wait_for(rf": {file.name}")
            terminal.type(f"what is {SECRET}", "Enter")
            terminal.wait_for("run add\\?")
            assert everything(user) == before
            terminal.type("y", "Enter")
            terminal.wait_for(f"You said what is {SECRET}")
            assert everything(user) == before
            terminal.type("C-r")
            terminal.wait_for("○ ▯")
            microphone.play(RECORDINGS[0].path)
            terminal.type("Tab")
            terminal.wait_for(r"> \[audio 1")
            assert everything(user) == before
            terminal.type("C-c", f"/system {SECRET}", "Enter", "/regen", "Enter")
            terminal.wait_for("(?s)instructions set.*run add\\?")
            terminal.type("n", "Enter")
            terminal.wait_for("(?s)instructions set.*You said")
            terminal.type("C-g")
            terminal.wait_for("Ctrl-G is off")
            for command, shown in (("/delete", "it is private"), ("/forget", "forgotten: "), ("/clear", "a new chat")):
                terminal.type(command, "Enter")
                terminal.wait_for(shown)
                assert everything(user) == before
            terminal.type("C-d")
            screen = terminal.wait_for("exit code")
    assert "exit code 0" in screen
    assert "--resume" not in screen
    assert everything(user) == before


def test_through_a_pipe_private_is_said_and_nothing_is_written(user):
    before = everything(user)
    finished = user.run("chat", "--private", "-m", "demo", stdin=f"cat.png\nwhat is {SECRET}?\n/undo\nhello\n")
    assert finished.returncode == 0
    assert finished.stderr.startswith("private: nothing of this chat is written to disk")
    assert everything(user) == before


def test_a_private_chat_is_kept_or_exported_when_that_is_asked_for(user):
    lines = ["what?", "/save", "/export out.md", "/save trip", "and now?"]
    finished = user.run("chat", "--private", "-m", "demo", stdin="\n".join([*lines, ""]))
    assert "error: this chat is private: /save NAME keeps it" in finished.stderr
    assert "written: out.md, which stays; the chat itself is private" in finished.stderr
    assert "kept from here on as trip, with all that was said before: it is private no more" in finished.stderr
    assert "what?" in (user.home / "out.md").read_text()
    again = user.run("chat", "--resume", "trip", "-m", "demo", stdin="/context\n")
    assert "2 messages" in again.stderr
    taken = user.run("chat", "--private", "-m", "demo", stdin="one\n/save trip\n")
    assert "error: there is a chat trip already" in taken.stderr


def test_a_private_chat_goes_on_with_a_saved_one_and_leaves_that_as_it_was(user):
    user.run("chat", "-m", "demo", stdin="hello\n/save trip\n")
    before = everything(user)
    finished = user.run(
        "chat", "--private", "--resume", "trip", "-m", "demo", stdin=f"{SECRET}\n/forget 1\n/load trip\n/resume\n"
    )
    assert finished.returncode == 0
    assert "note: trip is read and stays as it is: this chat is private" in finished.stderr
    assert "going on with trip: 1 message" in finished.stderr
    assert everything(user) == before


def test_forgetting_and_deleting_leave_nothing_of_a_word_anywhere(user):
    with chat(user) as terminal:
        terminal.wait_for(READY)
        say(terminal, f"my word is {SECRET}")
        terminal.paste(f"'{user.home / 'cat.png'}' ")
        terminal.wait_for("image 1")
        say(terminal, "what is it?")
        assert len(holding(user)) == 2
        terminal.type("/forget 1", "Enter")
        terminal.wait_for("forgotten: the oldest 1")
        assert holding(user) == []
        terminal.type("Up", "Up")  # what was typed before is no longer in between
        terminal.wait_for(r"> \[cat\.png\] what is it\?")
        terminal.type("C-c", f"/system {SECRET}", "Enter", "/save trip", "Enter")
        terminal.wait_for("kept as trip")
        terminal.type("/clear", "Enter")
        terminal.wait_for("a new chat")
        terminal.type("/delete trip", "Enter")
        question = "delete trip, its attachments and what was typed in it\\? y\\(es\\), n\\(o\\):"
        terminal.wait_for(question)
        terminal.type("n", "Enter")
        terminal.wait_for("trip stays")
        assert sessions(user) == ["trip"]
        terminal.type("/delete trip", "Enter")
        terminal.wait_for(f"(?s)trip stays.*{question}")
        terminal.type("y", "Enter")
        terminal.wait_for("deleted: trip")
    assert holding(user) == []
    assert sessions(user) == []
    assert not any(file.is_file() for file in (user.home / ".local").rglob("attachments/*"))


def test_this_chat_is_deleted_by_its_own_command_and_another_begins(user):
    with chat(user) as terminal:
        terminal.wait_for(READY)
        say(terminal, f"my word is {SECRET}")
        terminal.type("/delete", "Enter")
        terminal.wait_for("y\\(es\\)")
        terminal.type("C-d")
        terminal.wait_for("stays")
        terminal.type("/delete", "Enter")
        terminal.wait_for("(?s)stays.*y\\(es\\)")
        terminal.type("yes", "Enter")
        terminal.wait_for("a new chat")
        assert holding(user) == []
        say(terminal, "hello")
        assert len(sessions(user)) == 1


def test_saved_chats_are_listed_and_deleted_outside_of_a_chat(user):
    for name in ("trip", "two words"):
        user.run("chat", "-m", "demo", stdin=f"hello {name}\n/save {name}\n")
    listed = user.run("chat", "--list")
    assert [line.split("  ")[0] for line in listed.stdout.splitlines()] == ["two words", "trip"]
    assert listed.stdout.splitlines()[1].endswith("hello trip")
    refused = user.run("chat", "--delete", "two words")
    assert refused.returncode == 1
    assert refused.stderr == (
        "error: two words was not deleted, because there is nobody to ask: gemma4-mlx chat --delete 'two words' --yes\n"
    )
    deleted = user.run("chat", "--delete", "two words", "--yes")
    assert (deleted.returncode, deleted.stdout, deleted.stderr) == (0, "", "deleted: two words\n")
    assert sessions(user) == ["trip"]
    missing = user.run("chat", "--delete", "two words", "-y")
    assert (missing.returncode, missing.stderr) == (1, "error: there is no chat two words; saved are: trip\n")
    for wrong in (["--delete"], ["--delete", "--list"], ["--private", "--delete", "trip"], ["--list", "trip"]):
        assert user.run("chat", *wrong).returncode == 2
    assert sessions(user) == ["trip"]


def test_a_chat_that_is_open_elsewhere_is_not_deleted(user):
    with chat(user) as terminal:
        terminal.wait_for(READY)
        say(terminal, "hello")
        (name,) = sessions(user)
        refused = user.run("chat", "--delete", name, "--yes")
        assert (refused.returncode, refused.stderr) == (
            1,
            f"error: {name} is open in another chat: close it there first\n",
        )
        terminal.type("/context", "Enter")
        terminal.wait_for(r"\d  hello")
    assert sessions(user) == [name]
