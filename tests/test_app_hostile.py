"""Real runs in a terminal with hostile names, chats and calls: none of it reaches the terminal, or the clipboard."""

from __future__ import annotations

import base64
import json
import re
import sys
import wave
from pathlib import Path

import pytest

from command_line import checkpoint
from raw_terminal import RawTerminal
from tmux_terminal import TmuxTerminal
from users import User

HOSTILE = "\x1b]52;c;ZWNobw==\x07\x1b[2J\x9b3D\u202eevil\u2066\u2028\u200b\U000e0041"
LIES = ("\x1b]52", "\x1b[2J", "\x07", "\x9b", "\u202e", "\u2066", "\u2028", "\u200b", "\U000e0041")
ASKED = [sys.executable, str(Path(__file__).with_name("asked_call.py"))]


def assert_nothing_lies(written: str) -> None:
    assert "evil" in written
    assert [lie for lie in LIES if lie in written] == []


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def ended(user: User, *arguments: str | Path) -> str:
    with RawTerminal(*arguments, environment=user.environment, cwd=user.home) as terminal:
        terminal.ended()
        return terminal.written


def test_errors_about_a_checkpoint_are_safe(user):
    for arguments in (["ask", "hi", "-m"], ["ask", "--debug", "hi", "-m"], ["convert"], ["bench", "-m"]):
        assert_nothing_lies(ended(user, *arguments, f"./{HOSTILE}"))
    folder = user.home / "model"
    folder.mkdir()
    for file in checkpoint().iterdir():
        (folder / ("older.safetensors" if file.suffix == ".safetensors" else file.name)).symlink_to(file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": f"{HOSTILE}.safetensors"}}))
    assert_nothing_lies(ended(user, "ask", "hi", "-m", folder))


def test_wrong_usage_is_safe(user):
    for arguments in ([f"--evil{HOSTILE}"], [HOSTILE], ["chat", HOSTILE]):
        assert_nothing_lies(ended(user, *arguments))


def test_names_of_recordings_and_what_is_said_of_them_are_safe(user):
    sound = user.home / f"{HOSTILE}\nerror: all is lost.wav"
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(32_000))
    written = ended(user, "transcribe", "-m", "demo", sound)
    assert_nothing_lies(written)
    assert "\nerror: all" not in written
    assert_nothing_lies(ended(user, "transcribe", "-m", "demo", f"{HOSTILE}.wav"))


def chat_file(user: User) -> Path:
    """A chat that somebody else sends."""
    document = {
        "model": HOSTILE,
        "thinking": False,
        "messages": [
            {"role": "system", "content": HOSTILE},
            {"role": "user", "content": [{"type": "text", "text": f"question {HOSTILE}"}]},
            {"role": "assistant", "content": f"answer {HOSTILE}\n```\nls \x1b[201~{HOSTILE}\n```\n"},
        ],
    }
    path = user.home / "friend.json"
    path.write_text(json.dumps(document))
    return path


def test_a_chat_from_somebody_else_is_safe_to_load_look_at_copy_and_go_on_with(user):
    path = chat_file(user)
    with RawTerminal("chat", "-m", "demo", environment=user.environment, cwd=user.home) as terminal:
        terminal.wait_for("Ctrl-D leaves")
        for command, shown in [
            (f"/load {path}", "answer evil|answer .*evil"),
            ("/context", "of [0-9,]+ tokens"),
            ("/copy", "copied: the last answer"),
            ("/copy 1", "copied: code block 1"),
            ("/undo", "taken back"),
        ]:
            terminal.type(f"{command}\r")
            terminal.wait_for(shown)
        terminal.type("\x04")
        assert terminal.ended() == 0
    copied = re.findall(r"\x1b\]52;c;([\w+/=]*)\x07", terminal.written)
    for encoded in copied:
        text = base64.b64decode(encoded).decode()
        assert "evil" in text
        assert not any(lie in text for lie in [*LIES, "\x1b"])
    assert len(copied) == 2
    assert_nothing_lies(re.sub(r"\x1b\]52;c;[\w+/=]*\x07", "", terminal.written))


def test_a_hostile_chat_is_safe_to_resume(user):
    path = chat_file(user)
    with RawTerminal("chat", "-m", "demo", environment=user.environment, cwd=user.home) as terminal:
        terminal.wait_for("Ctrl-D leaves")
        terminal.type(f"/load {path}\r")
        terminal.wait_for("going on with")
        terminal.type("\x04")
        terminal.ended()
    with RawTerminal("chat", "--resume", "-m", "demo", environment=user.environment, cwd=user.home) as terminal:
        terminal.wait_for("Ctrl-D leaves")
        terminal.type("\x04")
        terminal.ended()
    assert_nothing_lies(terminal.written)


# A call that is asked about.


def called(tmp_path: Path, arguments: dict[str, object], name: str = "write_file") -> Path:
    path = tmp_path / "call.json"
    path.write_text(json.dumps([name, arguments]))
    return path


SPOOF = (
    "x" * 5_000 + "\u2800" * 3_000 + " " * 200 + f"{HOSTILE}\n→ write_file(path=ʺnotes.txtʺ, text=ʺmilkʺ)\n"
    "run write_file? y(es), n(o), a(lways): "
)


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (80, 24), (200, 60)])
def test_at_the_question_name_and_every_argument_stand_last_and_whole_in_sight(tmp_path, user, columns, rows):
    path = called(tmp_path, {"path": "/Users/you/.zshrc", "text": SPOOF})
    size = {"columns": columns, "rows": rows}
    with TmuxTerminal(path, "0", environment=user.environment, program=ASKED, **size) as terminal:
        for number in (1, 2):
            terminal.wait_for(rf"(?s)(s\(how\s+all\):.*){{{number}}}")
            lines = terminal.tmux("capture-pane", "-p").rstrip().split("\n")
            start = max(number for number, line in enumerate(lines) if line == "→ write_file")
            assert lines[start + 1] == '│ path = "/Users/you/.zshrc"'
            question = next(n for n, line in enumerate(lines) if n > start and not line.startswith("│"))
            assert lines[question].startswith("run write_file? y(es)")
            assert "more characters" in "".join(line[2:] for line in lines[start + 2 : question])
            assert 'a(lways):"' in unspaced("".join(line[2:] for line in lines[start + 2 : question]))[-60:]
            terminal.type("s", "Enter")
        terminal.wait_for(r"(?s)(s\(how\s+all\):.*){3}")
        screen = unspaced(terminal.screen().replace("│ ", ""))
        assert "x" * 5_000 + r"\u2800×3000␣×200\u001b]52;c;ZWNobw==\u0007" in screen
        terminal.type("n", "Enter")
        terminal.wait_for("it did not run")


def unspaced(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("piped", [[], ["stdout"]])
def test_no_argument_and_no_name_reaches_the_terminal_as_it_is(tmp_path, user, piped):
    path = called(tmp_path, {f"a{HOSTILE}": "x", "text": SPOOF})
    with RawTerminal(path, "0", environment=user.environment, program=ASKED, piped=piped) as terminal:
        terminal.wait_for(r"s\(how all\): $")
        terminal.type("n\r")
        terminal.ended()
    assert "a\\u001b]52" in terminal.written
    assert_nothing_lies(terminal.written)


@pytest.mark.parametrize("piped", [[], ["stdout"]])
def test_what_is_typed_before_a_question_is_no_answer_to_it(tmp_path, user, piped):
    path = called(tmp_path, {"number": 8}, "half")
    with RawTerminal(path, "2", environment=user.environment, program=ASKED, piped=piped) as terminal:
        terminal.type("y\ny\na\n")
        terminal.wait_for(r"run half\? y\(es\), n\(o\), a\(lways\): $")
        terminal.type("n\n")
        terminal.ended()
        out = terminal.written if not piped else terminal.process.stdout.read().decode()
    assert "it did not run" in out


def test_a_short_call_is_one_line(tmp_path, user):
    with RawTerminal(
        called(tmp_path, {"city": "Plzeň", "days": 3}, "weather"), "0", environment=user.environment, program=ASKED
    ) as terminal:
        terminal.wait_for(r'→ weather\(city="Plzeň", days=3\)[^│]*run weather\? y\(es\), n\(o\), a\(lways\): ')
        terminal.type("yes\n")
        terminal.ended()
    assert "it ran" in terminal.written
