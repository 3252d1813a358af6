"""A model that several threads use: they take turns, and each gets what it would get alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import mlx.core as mx
import numpy as np
import pytest

import gemma4_mlx as g4
from bench.threads import ASKS, at_once
from gemma4_mlx.model.turns import Turns
from generation_checkpoints import lively, prompt_of


def fresh():
    return g4.load("demo", dtype="float32")


def in_thread(work):
    """What `work` returns in a thread of its own, which has ended by then."""
    [answer] = at_once([lambda _model, _processor: work()], None, None)
    return answer


@pytest.mark.parametrize("names", [("stream", "picture"), tuple(ASKS)], ids=len)
def test_threads_that_meet_a_fresh_model_at_once_each_get_what_they_get_alone(names):
    model, processor = fresh()
    expected = [ASKS[name](model, processor) for name in names]
    assert at_once([ASKS[name] for name in names], *fresh()) == expected


def test_threads_that_call_the_model_itself_compute_on_their_own():
    model, _ = fresh()
    ids = mx.array([[5, 6, 7, 8]])
    expected = np.array(model(ids))

    def call(model, _):
        for _ in range(5):
            cache = model.make_cache()
            model(ids[:, :2], cache=cache)
            logits = model(ids[:, 2:], cache=cache)
            np.testing.assert_allclose(np.array(logits), expected[:, 2:], atol=1e-4)
        return True

    assert at_once([call] * 4, *fresh()) == [True] * 4


def test_turns_go_in_the_order_of_asking_and_who_has_one_may_ask_again():
    turns, order = Turns(), []

    def work(number):
        for _ in range(4):
            with turns, turns:
                order.append(number)
                mx.eval(mx.exp(mx.ones(3)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    with turns:
        for place, thread in enumerate(threads, 1):
            thread.start()
            while len(turns._waiting) < place:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2] * 4


def test_who_is_interrupted_while_waiting_lets_those_behind_go_on():
    turns = Turns()

    class Interrupted:
        def acquire(self, timeout):
            raise KeyboardInterrupt

    held, done = threading.Event(), threading.Event()

    def hold():
        with turns:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "gemma4_mlx.model.turns._Place.__init__",
            lambda self, thread: self.__dict__.update(thread=thread, called=Interrupted()),
        )
        with pytest.raises(KeyboardInterrupt), turns:
            raise AssertionError("it was not its turn")
    done.set()
    holder.join()
    assert in_thread(lambda: turns.__enter__()) is None


def test_an_error_within_a_turn_ends_it():
    turns = Turns()
    with pytest.raises(ValueError, match="mine"), turns:
        raise ValueError("mine")
    assert in_thread(lambda: turns.__enter__()) is None


def test_a_turn_that_ctrl_c_has_left_taken_keeps_nobody_out():
    turns = Turns()

    def take():
        turns.__enter__()
        turns.__enter__()  # as if Ctrl-C had struck at the beginning of both ends of `with`

    def use():
        with turns, turns:
            return float(mx.exp(mx.zeros(1)).item())

    take()
    assert in_thread(use) == 1
    assert use() == 1
    take()
    assert use() == 1
    assert in_thread(use) == 1


def test_a_turn_is_over_when_the_function_that_took_it_says_so_and_not_before():
    turns, order = Turns(), []
    other = threading.Thread(target=lambda: (turns.__enter__(), order.append("other")))
    with ExitStack() as stack:
        stack.enter_context(turns)
        other.start()
        time.sleep(1.2)
        with turns:
            order.append("here")
    other.join()
    assert order == ["here", "other"]


def test_a_stream_that_is_never_finished_keeps_nobody_out():
    model, processor = fresh()
    expected = ASKS["question"](model, processor)
    stream = g4.stream_generate(model, processor, "Tell me a story", max_tokens=500)
    next(stream)
    assert in_thread(lambda: ASKS["question"](model, processor)) == expected
    next(stream)


def test_an_answer_goes_on_in_another_thread_than_it_began_in():
    model, ids = lively("e2b").model, prompt_of(20)
    expected = list(g4.generate_tokens(model, ids, max_tokens=9))
    tokens = in_thread(lambda: g4.generate_tokens(model, ids, max_tokens=9))
    assert [in_thread(lambda: next(tokens)) for _ in range(9)] == expected


@pytest.mark.parametrize("kind", ["conversation", "plain"])
def test_a_cache_goes_from_thread_to_thread(kind):
    model, ids = lively("e2b").model, prompt_of(60)

    def all_turns(run):
        cache = g4.ConversationCache(model) if kind == "conversation" else model.make_cache()
        told = 0
        answers = []
        for length in (20, 40, 60):
            prompt = ids[:length] if kind == "conversation" else ids[told:length]
            told = length
            answers.append(
                run(lambda prompt=prompt: list(g4.generate_tokens(model, prompt, max_tokens=6, cache=cache)))
            )
        return answers

    assert all_turns(in_thread) == all_turns(lambda work: work())


def test_sound_goes_on_in_another_thread_than_it_began_in():
    model, processor = fresh()
    samples = np.sin(np.arange(32_000) / 9).astype(np.float32)
    stream = in_thread(model.audio_stream)
    parts = [in_thread(lambda half=half: stream.feed(half)) for half in np.split(samples, 2)] + [stream.finish()]
    content = [{"type": "audio", "audio": samples}]
    [whole] = model.encode_audio(processor([{"role": "user", "content": content}]))
    np.testing.assert_allclose(np.concatenate(parts), np.array(whole), atol=1e-4)


def test_a_stream_closed_by_another_thread_frees_the_model():
    model, processor = fresh()
    stream = g4.stream_generate(model, processor, "Tell me a story", max_tokens=500)
    next(stream)
    in_thread(stream.close)
    assert list(stream) == []


ENDINGS = {
    "threads that have ended": "t = threading.Thread(target=ask); t.start(); t.join()",
    "a thread that still computes": "threading.Thread(target=lambda: [ask() for _ in range(1000)], daemon=True).start()"
    "; time.sleep(0.5)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_ends_in_peace_after(ending):
    script = (
        "import threading, time, gemma4_mlx as g4\n"
        "model, processor = g4.load('demo')\n"
        "ask = lambda: g4.generate(model, processor, 'Hello!', max_tokens=8)\n"
    )
    done = subprocess.run([sys.executable, "-c", script + ENDINGS[ending]], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
