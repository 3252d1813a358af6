"""`gemma4-mlx doctor`: what it finds, what it says to do, and that it ends soon whatever keeps it waiting."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import socket
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gemma4_mlx.app.demo.demo_recording import RECORDING
from gemma4_mlx.app.doctor.doctor import examine
from gemma4_mlx.app.doctor.doctor_checks import gpu_findings, look_at_demo, look_at_models, machine_findings
from gemma4_mlx.app.doctor.findings import Check, Finding
from gemma4_mlx.app.doctor.terminal_answers import brackets_pastes
from gemma4_mlx.app.gpu import Gpu, wired_limit
from gemma4_mlx.app.machine import Machine
from gemma4_mlx.app.models.model_choice import largest_that_fits

from command_line import only_line
from gemma4_mlx.byte_sizes import physical_memory
from gemma4_mlx.checkpoint import builtin
from gemma4_mlx.checkpoint.hub import SHORT_NAMES
from hub_server import running_demo_hub
from tmux_terminal import TmuxTerminal
from users import User
from virtual_microphone import IS_INSTALLED, virtual_microphone

GB = 2**30
NAMES = ["chip", "system", "memory", "MLX", "tables", "microphone", "terminal", "Hub", "model", "disk"]
NAMES += ["config", "demo"]


def mac(chip: str = "Apple M3 Pro", memory: int = 36 * GB, system: str = "macOS 15.1", saving: bool = False) -> Machine:
    return Machine(chip, "Mac15,6", 12, 18, memory, system, "ac", saving)


def by_name(found: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in found}


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_everything_is_looked_at_and_warnings_do_not_fail(user):
    finished = user.run("doctor", "--json")
    assert (finished.returncode, finished.stderr) == (0, "")
    fields = json.loads(only_line(finished.stdout))
    assert fields["ok"]
    checks = {check["name"]: check for check in fields["checks"]}
    assert [name for name in checks if name != "GPU memory"] == NAMES
    assert checks["demo"]["status"] == "ok"
    assert "'call 4 2 7 1'" in checks["demo"]["text"]
    assert checks["Hub"]["status"] == "warning"
    assert "HF_HUB_OFFLINE" in checks["Hub"]["text"]
    if sys.platform == "linux":
        assert "not a Mac" in checks["chip"]["text"]
        assert checks["MLX"]["status"] == "warning"


def test_without_a_terminal_it_is_plain_lines_one_each(user):
    finished = user.run("doctor")
    assert finished.returncode == 0
    assert [line[2:].split("  ")[0].split(" ")[0] for line in finished.stdout.splitlines()] == [
        name.split(" ")[0] for name in NAMES if name != "GPU memory"
    ]
    assert {line[0] for line in finished.stdout.splitlines()} <= {"✓", "⚠"}
    assert "\x1b" not in finished.stdout


def test_a_config_file_that_makes_no_sense_fails_and_the_rest_is_still_looked_at(user):
    user.sets("[chat]\nthink = true")
    finished = user.run("doctor", "--json")
    assert finished.returncode == 1
    fields = json.loads(only_line(finished.stdout))
    assert not fields["ok"]
    (failed,) = [check for check in fields["checks"] if check["status"] == "failed"]
    assert failed["name"] == "config"
    assert "chat.think" in failed["text"]
    assert "demo" in {check["name"] for check in fields["checks"]}


def test_a_hub_that_answers_is_well_and_what_is_fetched_is_known(user):
    proposed = largest_that_fits(physical_memory(), hearing=False).name
    with running_demo_hub(*SHORT_NAMES.values()) as hub:
        user.reaches(hub.url)
        before = user.run("doctor").stdout
        assert f"✓ Hub         {hub.url} answers in" in before
        assert f"gemma4-mlx models pull {proposed}" in before
        assert user.run("models", "pull", proposed).returncode == 0
        assert "; it is here" in user.run("doctor").stdout


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes every connection and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                taken.append(listener.accept()[0])
            except OSError:
                return

    threading.Thread(target=take, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    for connection in taken:
        connection.close()


def test_a_hub_that_keeps_silent_is_a_warning_and_keeps_nobody(user):
    started = time.monotonic()
    user.run("doctor")
    without_it = time.monotonic() - started
    with silent_server() as url:
        user.reaches(url)
        started = time.monotonic()
        finished = user.run("doctor")
        assert time.monotonic() - started < without_it + 8  # three of them are spent waiting
    assert finished.returncode == 0
    assert "⚠ Hub" in finished.stdout


def test_what_never_ends_is_given_up_and_what_breaks_has_failed():
    ended = threading.Event()

    def broken() -> list[Finding]:
        raise RuntimeError("no\nluck")

    checks = [
        Check("endless", lambda: [Finding("endless", "ok", "")] * ended.wait()),
        Check("broken", broken),
        Check("broken too", broken, waits=False),
        Check("well", lambda: [Finding("well", "ok", "yes")]),
    ]
    started = time.monotonic()
    found = by_name(examine(checks, patience=0.3))
    assert time.monotonic() - started < 5
    ended.set()
    assert list(found) == ["endless", "broken", "broken too", "well"]
    assert found["endless"].status == "warning"
    assert found["broken"] == Finding("broken", "failed", "RuntimeError: no luck")
    assert found["broken too"].status == "failed"
    assert found["well"].status == "ok"


@pytest.mark.parametrize(
    ("machine", "architecture", "failed", "said"),
    [
        (mac(), "arm64", None, "Apple M3 Pro, 18 GPU cores"),
        (mac("Intel(R) Core(TM) i7"), "x86_64", "chip", "Apple silicon"),
        (mac("VirtualApple @ 2.50GHz"), "x86_64", "chip", "built for x86_64"),
        (mac(system="macOS 13.6.7"), "arm64", "system", "needs macOS 14"),
        (mac(system="macOS 26.1"), "arm64", None, "macOS 26.1"),
        (mac("Apple M5", system="macOS 26.1"), "arm64", None, "needs macOS 26.2 on an M5"),
    ],
)
def test_a_mac_that_cannot_run_mlx_is_told_why(machine, architecture, failed, said):
    found = machine_findings(machine, architecture)
    assert [finding.name for finding in found if finding.status == "failed"] == [failed] * bool(failed)
    assert any(said in finding.text for finding in found)


@pytest.mark.parametrize(
    ("chip", "system", "status"),
    [
        ("Apple M5", "macOS 26.0", "warning"),
        ("Apple M5 Max", "macOS 26.1.1", "warning"),
        ("Apple M5 Pro", "macOS 26.2", "ok"),
        ("Apple M5", "macOS 27.0", "ok"),
        ("Apple M4", "macOS 26.1", "ok"),
        ("Apple M50", "macOS 26.1", "ok"),
        (None, "macOS", "ok"),
    ],
)
def test_an_m5_on_a_macos_whose_matrix_units_mlx_cannot_use_is_told(chip, system, status):
    machine = Machine(chip, None, None, None, 36 * GB, system, None, None)
    assert by_name(machine_findings(machine, "arm64"))["system"].status == status


@pytest.mark.parametrize(
    ("chip", "built_for", "status"),
    [("Apple M5", 15, "warning"), ("Apple M5", 26, "ok"), ("Apple M3", 14, "ok"), ("Apple M5", None, "ok")],
)
def test_an_m5_with_the_kernels_of_an_older_macos_is_told(chip, built_for, status):
    found = by_name(gpu_findings(Gpu("0.32.4", "metal", 24 * GB, built_for), 0, 36 * GB, chip))
    assert found["MLX"].status == status
    assert ("--force-reinstall" in found["MLX"].text) == (status == "warning")


def test_the_memory_says_which_sizes_it_is_enough_for():
    assert by_name(machine_findings(mac(), "arm64"))["memory"].text == "36 GB, enough for e2b, e4b, 12b and 26b"
    small = by_name(machine_findings(mac(memory=4 * GB), "arm64"))["memory"]
    assert small.status == "warning"
    assert "e2b, the smallest, is made for 8 GB" in small.text


def test_low_power_mode_is_a_warning():
    assert by_name(machine_findings(mac(saving=True), "arm64"))["system"].status == "warning"


def test_the_gpus_share_of_memory_is_told_and_too_small_a_limit_with_what_lifts_it():
    metal = Gpu("0.32", "metal", round(0.67 * 36 * GB))
    well = by_name(gpu_findings(metal, 0, 36 * GB))
    assert well["MLX"].text == "0.32 computes on the GPU (Metal)"
    assert well["GPU memory"] == Finding("GPU memory", "ok", "the GPU may use 24 of 36 GB, the system's own choice")
    short = by_name(gpu_findings(metal, 10 * GB, 36 * GB))["GPU memory"]
    assert short.status == "warning"
    assert "too little for 26b" in short.text
    assert "sudo sysctl iogpu.wired_limit_mb=19073" in short.text
    assert [finding.name for finding in gpu_findings(Gpu("0.32", "cpu", None), None, 36 * GB)] == ["MLX"]


@pytest.mark.parametrize(
    ("answer", "limit"),
    [("iogpu.wired_limit_mb: 0\n", 0), ("iogpu.wired_limit_mb: 28672\n", 28 * GB), ("", None), ("no\n", None)],
)
def test_the_wired_limit_is_what_sysctl_says(answer, limit):
    assert wired_limit(lambda command: answer) == limit


def test_a_damaged_built_in_model_fails_by_the_name_of_its_file(tmp_path, monkeypatch):
    damaged = tmp_path / "demo"
    shutil.copytree(builtin.FOLDER, damaged)
    (damaged / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(builtin, "FOLDER", damaged)
    (finding,) = look_at_demo()
    assert finding.status == "failed"
    assert "tokenizer.json is damaged" in finding.text


def test_a_disk_too_small_for_the_model_is_a_warning(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("gemma4_mlx.checkpoint.hub.shutil.disk_usage", lambda path: usage(10, 10, 10**9))
    disk = by_name(look_at_models())["disk"]
    assert disk.status == "warning"
    assert "1 GB free" in disk.text
    assert "HF_HOME" in disk.text


@pytest.mark.skipif(not IS_INSTALLED, reason="PulseAudio is not installed")
def test_a_microphone_is_tried_for_a_moment(user, tmp_path):
    (tmp_path / "pulse").mkdir()
    with virtual_microphone(tmp_path / "pulse") as microphone:
        user.more |= microphone.environment
        silent = user.run("doctor").stdout  # as from one that macOS withholds
        assert "⚠ microphone" in silent
        # On a busy machine the second of zeros that proves it may not come in time.
        assert "complete silence" in silent or "no sound came" in silent
        looked = threading.Event()

        def speak() -> None:
            while not looked.is_set():
                microphone.play(RECORDING)

        speaking = threading.Thread(target=speak)
        speaking.start()
        heard = user.run("doctor").stdout
        looked.set()
        speaking.join()
    assert "sound comes in" in heard


def test_in_a_terminal_lines_are_coloured_and_wrapped_and_nothing_is_left_over(user):
    with TmuxTerminal("doctor", environment=user.environment, columns=50, rows=40) as terminal:
        screen = terminal.wait_for("exit code 0")
        coloured = terminal.tmux("capture-pane", "-p", "-e")
    assert "\x1b[32m✓" in coloured
    lines = [line for line in screen.splitlines() if line.strip()]
    assert lines[0].startswith(("✓ chip", "⚠ chip"))
    assert all(line[0] in "✓⚠e" or line.startswith(" " * 14) for line in lines)
    assert "✓ terminal" in screen


def test_no_color_in_a_terminal_gives_plain_marks(user):
    user.more["NO_COLOR"] = "1"
    with TmuxTerminal("doctor", environment=user.environment) as terminal:
        terminal.wait_for("exit code 0")
        assert "\x1b[3" not in terminal.tmux("capture-pane", "-p", "-e")


@pytest.mark.parametrize(
    ("answer", "brackets"),
    [
        (b"\x1b[?2004;2$y\x1b[?62;22c", True),
        (b"\x1b[?2004;1$y\x1b[?62;22c", True),
        (b"\x1b[?2004;0$y\x1b[?6c", False),
        (b"\x1b[?1;2c", None),
        (b"hello", None),
        (b"", None),
    ],
)
def test_a_terminal_is_asked_whether_it_marks_what_is_pasted(answer, brackets, monkeypatch):
    monkeypatch.delenv("TERM_PROGRAM", raising=False)
    ours, theirs = pty.openpty()

    def reply() -> None:
        asked = b""
        while not asked.endswith(b"\x1b[c"):
            asked += os.read(ours, 100)
        os.write(ours, answer)

    terminal = threading.Thread(target=reply)
    terminal.start()
    assert brackets_pastes(theirs) is brackets
    terminal.join()
    os.close(ours)
    os.close(theirs)


def test_terminal_app_which_would_show_the_question_is_not_asked(monkeypatch):
    monkeypatch.setenv("TERM_PROGRAM", "Apple_Terminal")
    ours, theirs = pty.openpty()
    assert brackets_pastes(theirs) is None
    assert not select.select([ours], [], [], 0)[0]
    os.close(ours)
    os.close(theirs)
