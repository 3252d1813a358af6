"""The model's thread: results and errors come back, Ctrl-C is asked for in it, and the process ends in order."""

from __future__ import annotations

import gc
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gemma4_mlx.app.chat.model_thread import ModelThread, ThreadedModel
from gemma4_mlx.app.interrupts import Interrupts

from command_line import checkpoint, environment
from gemma4_mlx.errors import CheckpointError
from gemma4_mlx.model import Gemma4, weights
from tmux_terminal import TmuxTerminal
from users import User


@pytest.fixture(scope="module")
def thread() -> ModelThread:
    return ModelThread()


def test_everything_runs_in_one_other_thread(thread):
    threads = {thread.run(threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_items_are_shown_in_order_and_in_the_callers_thread(thread):
    shown = []

    def work(hand_out):
        for number in range(100):
            hand_out(number)
        return "done"

    with Interrupts() as interrupts:
        assert thread.stream(work, lambda item: shown.append((item, threading.get_ident())), interrupts) == "done"
    assert shown == [(number, threading.get_ident()) for number in range(100)]


def test_an_error_comes_back_and_the_thread_goes_on(thread):
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda: 1 / 0)
    assert thread.run(lambda: 1) == 1


def endless(hand_out, should_stop, ended):
    while not should_stop():
        hand_out("again")
        time.sleep(0.001)
    ended.append(True)
    return "what came so far"


def press_ctrl_c(_item=None):
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_stops_the_work_at_its_next_question(thread):
    ended, shown = [], []

    def show(item):
        if len(shown) == 5:
            press_ctrl_c()
        shown.append(item)

    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        thread.stream(lambda hand_out: endless(hand_out, interrupts, ended), show, interrupts)
    assert ended == [True]
    assert len(shown) > 5, "what it was handed out by then is shown, and the one in work is shown whole"
    assert not thread.busy


def test_what_ends_the_showing_stops_the_work(thread):
    ended = []

    def show(_item):
        raise OSError("no space left")

    with Interrupts() as interrupts, pytest.raises(OSError, match="no space"):
        thread.stream(lambda hand_out: endless(hand_out, interrupts, ended), show, interrupts)
    assert thread.run(lambda: 2) == 2
    assert ended == [True]


def test_a_person_is_told_when_stopping_takes_a_moment(thread):
    def slow(hand_out, should_stop):
        should_stop()
        hand_out("one")
        time.sleep(0.7)
        return should_stop()

    told = []
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        thread.stream(lambda hand_out: slow(hand_out, interrupts), press_ctrl_c, interrupts, lambda: told.append(True))
    assert told == [True]
    told.clear()
    with Interrupts() as interrupts:
        thread.stream(lambda hand_out: slow(hand_out, interrupts), str, interrupts, lambda: told.append(True))
    assert told == []


@pytest.mark.parametrize("asks", [True, False])
def test_work_that_does_not_ask_is_left_behind_and_the_next_waits_for_it(thread, asks):
    begun, go_on, stopped = threading.Event(), threading.Event(), []

    def stubborn(hand_out, should_stop):
        if asks:
            should_stop()
        begun.set()
        hand_out("one")
        go_on.wait()
        stopped.append(should_stop())

    def show(_item):
        for _ in range(2 if asks else 1):
            press_ctrl_c()

    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        thread.stream(lambda hand_out: stubborn(hand_out, interrupts), show, interrupts)
    assert thread.busy
    assert stopped == []
    go_on.set()
    assert thread.run(lambda: list(stopped)) == [True]


def test_a_wish_never_reaches_the_next_work(thread):
    for number in range(50):
        with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
            thread.stream(lambda hand_out, stop=interrupts: (stop(), hand_out(1)), press_ctrl_c, interrupts)
        assert thread.run(lambda number=number: number) == number


def test_ctrl_c_while_the_model_is_loading_ends_the_waiting_and_nothing_else(thread):
    model = ThreadedModel(thread, "tiny", checkpoint())
    release = threading.Event()
    thread.submit(release.wait)  # so loading takes long
    pressed = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    pressed.start()
    with pytest.raises(KeyboardInterrupt):
        model.wait()
    assert not model.loaded
    assert model.failure is None
    release.set()
    model.wait()
    assert model.loaded
    assert model.takes("audio")


def test_closing_drops_what_waits():
    thread, never = ModelThread(), []
    begun = threading.Event()
    running = thread.submit(lambda: (begun.set(), time.sleep(0.3)))
    thread.submit(lambda: never.append("never"))
    begun.wait()
    assert thread.close()
    assert running.done()
    assert never == []


def test_a_model_that_cannot_be_loaded_says_so_where_it_is_used(thread, tmp_path):
    model = ThreadedModel(thread, "nothing", tmp_path)
    with pytest.raises(CheckpointError, match=r"is empty, without a config\.json"):
        model.wait()
    assert isinstance(model.failure, CheckpointError)
    assert not model.loaded


def test_a_damaged_tokenizer_is_a_failure_too(thread, tmp_path):
    for file in checkpoint().iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").write_text("{")
    model = ThreadedModel(thread, "damaged", tmp_path)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        model.wait()
    assert model.failure is not None


@pytest.mark.parametrize("seconds", [0, 0.05, 0.3])
@pytest.mark.parametrize("asks", [True, False])
def test_a_process_that_computed_in_it_ends_without_a_crash(seconds, asks):
    program = f"""
import time
from pathlib import Path
import gemma4_mlx as g4
from gemma4_mlx.app.chat.model_thread import ModelThread, ThreadedModel
from gemma4_mlx.app.exit_codes import leave_at_once
thread = ModelThread()
model = ThreadedModel(thread, "tiny", Path({str(checkpoint())!r}))
model.wait()
over = []
def answers():
    while not ({asks} and over):
        g4.generate(*model(), "hello", max_tokens=2000, should_stop=lambda: {asks} and bool(over))
thread.run(lambda: g4.generate(*model(), "hello", max_tokens=3))
thread.submit(answers)
time.sleep({seconds})
over.append(True)
at_rest = thread.close()
assert at_rest == {asks}
if not at_rest:
    leave_at_once(0)
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], env=environment(), cwd=Path(__file__).parents[1], check=False, timeout=60
    )
    assert finished.returncode == 0


def models_in_memory() -> int:
    gc.collect()
    return sum(type(thing) is Gemma4 for thing in gc.get_objects())


def test_a_model_leaves_memory_before_the_weights_of_the_next_are_read(thread, monkeypatch):
    thread.run(lambda: None)  # it keeps the last result, which may be a model
    others = models_in_memory()
    first = ThreadedModel(thread, "tiny", checkpoint())
    first.wait()
    assert models_in_memory() == others + 1
    second = ThreadedModel(thread, "tiny", checkpoint(), instead_of=first)
    read, at_reading = weights.read_weights, []
    monkeypatch.setattr(weights, "read_weights", lambda part: (at_reading.append(models_in_memory()), read(part)))
    second.wait()
    assert at_reading == [others + 1]
    assert second.loaded
    assert not first.loaded
    assert first.takes("audio")  # it is still known what it was


def test_a_model_that_left_memory_for_one_that_was_not_taken_is_read_again_when_it_is_used(thread):
    first = ThreadedModel(thread, "tiny", checkpoint())
    first.wait()
    thread.run(first.leave_memory)
    assert not first.loaded
    model, processor = thread.run(first)  # not waited for: a load that was begun by nobody
    assert model.config == processor.config
    assert first.loaded


def test_a_chat_that_changed_its_model_four_times_has_one_in_memory(tmp_path):
    program = """
import gc
from gemma4_mlx.app.cli import main
from gemma4_mlx.model import Gemma4
from gemma4_mlx.app.chat.chat import Chat
change_model = Chat.change_model
def changed(chat, name):
    change_model(chat, name)
    gc.collect()
    print("models in memory:", sum(type(thing) is Gemma4 for thing in gc.get_objects()), flush=True)
Chat.change_model = changed
main()
"""
    user = User(tmp_path)
    options = ("chat", "--model", "demo", "--temperature", "0")
    with TmuxTerminal(
        *options, environment=user.environment, cwd=user.home, program=[sys.executable, "-c", program]
    ) as terminal:
        terminal.wait_for(r"(?m)^> *$")
        for number in range(1, 5):
            terminal.type("Hello!", "Enter")
            terminal.wait_for(rf"(?s)(?:Ask me about gemma4-mlx\..*){{{number}}}\n> *\n")
            terminal.type("/model demo", "Enter")
            screen = terminal.wait_for(rf"(?s)(?:models in memory: \d+\n.*){{{number}}}\n> *\n")
            assert re.findall(r"models in memory: (\d+)", screen) == ["1"] * number
        terminal.type("C-d")
        terminal.wait_for("exit code 0")
