"""Answers in asyncio programs, and streams that somebody else ends."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from functools import cache

import pytest

import gemma4_mlx as g4

QUESTION = {"max_tokens": 12, "temperature": 0}


@cache
def demo():
    return g4.load("demo")


def endless():
    """A stream that would go on for as long as the context lets it."""
    return g4.stream_generate(*demo(), "Tell me a story", max_tokens=4000, temperature=1, seed=1, stop=None)


async def text_of(chunks) -> str:
    return "".join([chunk.text async for chunk in chunks])


def test_chunks_add_up_to_the_answer_while_the_loop_goes_on():
    async def run():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        text = await text_of(g4.astream_generate(*demo(), "Who are you?", **QUESTION))
        ticking.cancel()
        return text, ticks

    text, ticks = asyncio.run(run())
    assert text == g4.generate(*demo(), "Who are you?", **QUESTION).text
    assert ticks > 3


def test_sixteen_at_once_are_each_answered_as_alone():
    questions = [f"Who are you? {'Please. ' * (i % 3)}" for i in range(16)]

    async def run():
        streams = [text_of(g4.astream_generate(*demo(), question, **QUESTION)) for question in questions[:8]]
        wholes = [asyncio.to_thread(g4.generate, *demo(), question, **QUESTION) for question in questions[8:]]
        return await asyncio.gather(*streams, *wholes)

    assert [str(answer) for answer in asyncio.run(run())] == [
        g4.generate(*demo(), question, **QUESTION).text for question in questions
    ]


def test_a_cancelled_task_stops_the_work_within_a_token():
    asked = []

    async def run():
        def count():
            asked.append(threading.get_ident())
            return False

        first = asyncio.Event()

        async def answer():
            async for _ in g4.astream_generate(*demo(), "Tell me a story", max_tokens=4000, seed=2, should_stop=count):
                first.set()
                await asyncio.sleep(0)

        task = asyncio.create_task(answer())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        then = len(asked)
        await asyncio.sleep(0.2)
        assert len(asked) <= then + 1
        return await asyncio.wait_for(asyncio.to_thread(g4.generate, *demo(), "Who are you?", **QUESTION), 20)

    assert asyncio.run(run()).text == g4.generate(*demo(), "Who are you?", **QUESTION).text


def test_a_bad_argument_is_refused_with_the_first_chunk():
    with pytest.raises(ValueError, match="max_tokens"):
        asyncio.run(text_of(g4.astream_generate(*demo(), "Hi", max_tokens=0)))


def test_it_takes_the_arguments_of_the_others_and_is_an_async_generator():
    assert inspect.signature(g4.astream_generate).parameters == inspect.signature(g4.stream_generate).parameters
    assert inspect.isasyncgenfunction(g4.astream_generate)


def test_a_closed_stream_has_stopped_with_what_had_come():
    with endless() as stream:
        first = next(stream)
    assert (stream.result().text, stream.result().finish_reason) == (first.text, "stopped")
    assert list(stream) == []


def test_closing_an_answer_that_has_ended_changes_nothing():
    with g4.stream_generate(*demo(), "Who are you?", max_tokens=3, temperature=0) as stream:
        list(stream)
    assert stream.result().finish_reason == "length"


def test_a_stream_closed_before_its_first_chunk_writes_nothing():
    stream = endless()
    stream.close()
    assert list(stream) == []
    assert (stream.result().tokens, stream.result().finish_reason) == ([], "stopped")


@pytest.mark.parametrize("when", ["at its prompt", "between tokens"])
def test_a_function_of_the_caller_may_close_the_stream_it_is_called_by(when):
    def asked():
        if len(stream.result().tokens) == 2:
            stream.close()
        return False

    at_prompt = when == "at its prompt"
    options = {"on_prompt": lambda *_: stream.close()} if at_prompt else {"should_stop": asked}
    stream = g4.stream_generate(*demo(), "Tell me a story", max_tokens=50, temperature=1, seed=1, **options)
    list(stream)
    assert stream.result().finish_reason == "stopped"
    assert len(stream.result().tokens) <= (1 if at_prompt else 2)


def test_another_thread_closes_a_stream_while_it_is_being_read():
    stream = endless()
    closer = threading.Timer(0.2, stream.close)
    closer.start()
    began = time.monotonic()
    while time.monotonic() < began + 20 and next(stream, None) is not None:
        pass
    assert time.monotonic() < began + 20
    closer.join()
    assert list(stream) == []
    assert stream.result().finish_reason in ("stopped", "stop", "loop")
