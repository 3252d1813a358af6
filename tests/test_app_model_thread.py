"""The model's thread: results and errors come back, Ctrl-C reaches what runs in it, and the process ends in order."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gemma4_mlx.app.chat.model_thread import ModelThread, ThreadedModel

from command_line import checkpoint, environment
from gemma4_mlx.errors import CheckpointError


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

    assert thread.stream(work, lambda item: shown.append((item, threading.get_ident()))) == "done"
    assert shown == [(number, threading.get_ident()) for number in range(100)]


def test_an_error_comes_back_and_the_thread_goes_on(thread):
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda: 1 / 0)
    assert thread.run(lambda: 1) == 1


def endless(hand_out, ended):
    try:
        while True:
            hand_out("again")
            time.sleep(0.001)
    finally:
        ended.append(True)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, OSError])
def test_what_ends_the_showing_interrupts_the_work_at_once(thread, raised):
    ended = []

    def show(_item):
        raise raised

    begun = time.monotonic()
    with pytest.raises(raised):
        thread.stream(lambda hand_out: endless(hand_out, ended), show)
    assert ended == [True]
    assert not thread.busy
    assert time.monotonic() - begun < 1.5
    assert thread.run(lambda: 2) == 2


def test_an_interrupt_never_hits_the_next_function(thread):
    def stop(_item):
        raise KeyboardInterrupt

    for number in range(300):
        with pytest.raises(KeyboardInterrupt):
            thread.stream(lambda hand_out: hand_out(1), stop)
        assert thread.run(lambda number=number: number) == number


def test_closing_drops_what_waits_and_stops_what_runs():
    thread = ModelThread()
    ended = []
    begun = threading.Event()
    running = thread.submit(lambda: endless(lambda _: begun.set(), ended))
    waiting = thread.submit(lambda: ended.append("never"))
    begun.wait()
    thread.close()
    assert waiting.cancelled()
    assert running.done()
    assert ended == [True]


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
def test_a_process_that_computed_in_it_ends_without_a_crash(seconds):
    program = f"""
import time
from pathlib import Path
import gemma4_mlx as g4
from gemma4_mlx.app.chat.model_thread import ModelThread, ThreadedModel
thread = ModelThread()
model = ThreadedModel(thread, "tiny", Path({str(checkpoint())!r}))
model.wait()
def answer(max_tokens=2000):
    return g4.generate(*model(), "hello", max_tokens=max_tokens, seed=1)
thread.run(lambda: answer(3))
thread.submit(answer)
time.sleep({seconds})
thread.close()
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], env=environment(), cwd=Path(__file__).parents[1], check=False, timeout=60
    )
    assert finished.returncode == 0
