"""Works in which MLX's own errors are injected, and what must hold then: nothing ends, and nothing is wrong.

The error is a `DeviceError`; a chat takes the message back, or keeps what it has shown, and goes on; a command ends
with 1 and one line, and leaves no half of a file; and whatever is asked next gets the answer that somebody gets who has
just begun. Not a test itself: test_device_errors.py tries some, bench/injected_errors.py all.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import typer
from gemma4_mlx.app.answer.answering import Sampling, generate
from gemma4_mlx.app.chat.chat import Chat, ChatOptions
from gemma4_mlx.app.chat.chat_loop import handle
from gemma4_mlx.app.chat.conversation import Conversation
from gemma4_mlx.app.chat.model_thread import ModelThread, ThreadedModel
from gemma4_mlx.app.chat.sessions import SessionStore
from gemma4_mlx.app.cli import cli
from gemma4_mlx.app.line.attachments import open_attachment
from gemma4_mlx.app.line.line_input import Typed

import gemma4_mlx as g4
from device_faults import Device, watched
from gemma4_mlx.checkpoint import resolve
from gemma4_mlx.generation import ConversationCache
from gemma4_mlx.processing.audio import stream_audio

RECORDING = Path(__file__).parents[1] / "app" / "demo" / "recording.flac"
QUESTION = "Does my data leave this Mac?"
LONG = " ".join(["The sky was grey that day."] * 60) + " " + QUESTION
NEXT = "How much memory does it need?"
GREEDY = Sampling(max_tokens=12, temperature=0.0)


class WrongError(AssertionError):
    """Something does not hold after an injected error."""


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise WrongError(what)


@dataclass(frozen=True)
class Work:
    """Something in which every evaluation is to fail once.

    Attributes:
        name: for the table.
        play: does it, with the context that fails for the part in question, and raises `WrongError`.
    """

    name: str
    play: Callable[[Device], None]


def works(scratch: Path) -> list[Work]:
    """All of them, with one model each for the app and the library."""
    thread = ModelThread()
    threaded = ThreadedModel(thread, "demo", resolve("demo"))
    threaded.wait()
    picture = scratch / "picture.png"
    _draw(picture)
    model, processor = thread.run(threaded)
    sound = np.concatenate([*stream_audio(RECORDING)])

    def chat(question: str, *files: Path) -> Callable[[Device], None]:
        return lambda device: _chat(threaded, device, question, *files)

    def here(play: Callable[[g4.Gemma4, g4.Processor, Device], None]) -> Callable[[Device], None]:
        return lambda device: thread.run(lambda: play(model, processor, device))

    return [
        Work("chat, a question", chat(QUESTION)),
        Work("chat, a long prompt", chat(LONG)),
        Work("chat, a picture and a sound", chat("What is this?", picture, RECORDING)),
        Work("chat, while it is loaded", lambda device: _loading(thread, device)),
        Work("ask", lambda device: _ask(thread, device)),
        Work("transcribe a file", lambda device: _transcribe_command(thread, scratch, device)),
        Work("transcribe, in Python", here(lambda m, p, device: _transcribe(m, p, sound, device))),
        Work("live", here(lambda m, p, device: _live(m, p, sound, device))),
        Work("generate with a cache", here(_conversation)),
        Work("generate_tokens with a cache", here(_plain_cache)),
        Work("another conversation", here(_another_conversation)),
        Work("batch_generate", here(_batch)),
        Work("score", here(_score)),
    ]


def _draw(path: Path) -> None:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (240, 240), "white")
    ImageDraw.Draw(image).ellipse((60, 60, 180, 180), fill="red")
    image.save(path)


@contextlib.contextmanager
def quiet() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        yield out, told


@contextlib.contextmanager
def failing(device: Device) -> Iterator[None]:
    """The error that comes out of the body, if one does, is a `DeviceError`, and it comes if the device has failed."""
    came = False
    try:
        with watched(device):
            yield
    except g4.DeviceError:
        came = True
    expect(came == device.failed, f"the device failed: {device.failed}, and somebody was told: {came}")


def _chat(model: ThreadedModel, device: Device, question: str, *files: Path) -> None:
    with quiet():
        chat = Chat(model, Conversation(), *_nowhere(), ChatOptions(GREEDY, private=True))
        chat.edits_lines = True
        chat.image_tokens = 70  # a small picture is looked at sooner
        handle(chat, Typed("Hello", []))
        attached = [open_attachment(str(file), "audio" if file == RECORDING else "image") for file in files]
        with failing(device):
            handle(chat, Typed(question, attached))
        if device.failed and len(chat.conversation.exchanges) == 1:
            expect(chat.prefilled == question, "the message stands in the line again")
            expect(len(chat.waiting) == len(files), "and so does what was attached")
            handle(chat, Typed(chat.prefilled, chat.waiting))
        elif device.failed:
            expect(bool(chat.conversation.exchanges[-1].answer), "what stays has an answer")
        _next_is_as_if_fresh(chat)


def _nowhere() -> tuple[Any, SessionStore]:
    store = SessionStore(lambda _: None, private=True)
    return store.new(), store


def _next_is_as_if_fresh(chat: Chat) -> None:
    handle(chat, Typed(NEXT, []))
    exchange = chat.conversation.exchanges[-1]
    request = chat.request()
    asked = replace(request, messages=request.messages[: -len(exchange.replies)])
    fresh = chat.model.thread.run(
        lambda: generate(*chat.model(), asked, lambda _: None, should_stop=lambda: False),
    )
    expect(exchange.answer == fresh.text, f"{exchange.answer!r} instead of {fresh.text!r}")


def _loading(thread: ModelThread, device: Device) -> None:
    model = ThreadedModel(thread, "demo", resolve("demo"))
    with quiet():
        chat = Chat(model, Conversation(), *_nowhere(), ChatOptions(GREEDY, private=True))
        chat.edits_lines = True
        with contextlib.suppress(g4.DeviceError), watched(device):
            model.wait()
        expect(model.failure is None, "it is not given up")
        handle(chat, Typed(QUESTION, []))
        _next_is_as_if_fresh(chat)


def _ask(thread: ModelThread, device: Device) -> None:
    arguments = ["ask", QUESTION, "-m", "demo", "--temperature", "0", "--max-tokens", "12", "--json"]
    said = _command(thread, arguments, device)
    again = json.loads(_command(thread, arguments, Device()))["text"]
    expect(again == "No. Everything runs", f"the next answer is {again!r}")
    expect(not said if device.failed else json.loads(said)["text"] == again, f"stdout has {said!r}")


def _transcribe_command(thread: ModelThread, scratch: Path, device: Device) -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        arguments = ["transcribe", str(RECORDING), "-m", "demo", "--format", "json", "--output-dir", folder]
        _command(thread, arguments, device)
        for file in Path(folder).iterdir():
            json.loads(file.read_text())
        if device.failed:
            _command(thread, [*arguments, "--overwrite"], Device())
        [file] = Path(folder).iterdir()
        text = json.loads(file.read_text())["text"]
        expect(text == "call 4 2 7 1", f"the next transcript is {text!r}")


def _command(thread: ModelThread, arguments: list[str], device: Device) -> str:
    """What a command writes to stdout. It fails if the device does, with one line."""
    code: Any = 0
    with quiet() as (out, told), watched(device), patch.object(sys, "stdin", None):
        try:
            typer.main.get_command(cli)(arguments, standalone_mode=False)
        except SystemExit as ended:
            code = ended.code
    lines = told.getvalue().splitlines()
    expect(code == (1 if device.failed else 0), f"exit code {code}: {lines}")
    if device.failed:
        errors = [line for line in lines if line.startswith("error: ")]
        expect(len(errors) == 1 and "Traceback" not in told.getvalue(), f"told {lines}")
    return out.getvalue()


def _transcribe(model: g4.Gemma4, processor: g4.Processor, sound: np.ndarray, device: Device) -> None:
    with failing(device):
        g4.transcribe(model, processor, sound, "English")
    text = g4.transcribe(model, processor, sound, "English").text
    expect(text == "call 4 2 7 1", f"the next transcript is {text!r}")


def _live(model: g4.Gemma4, processor: g4.Processor, sound: np.ndarray, device: Device) -> None:
    blocks = np.array_split(np.concatenate([sound, np.zeros(24_000, np.float32)]), 30)
    with g4.LiveTranscriber(model, processor, "English") as live:
        events: list[g4.Event] = []
        told = 0
        with watched(device):
            for block in blocks:
                try:
                    events += live.feed(block)
                except g4.DeviceError:
                    told += 1
        expect(told == int(device.failed), f"the device failed: {device.failed}, somebody was told {told} times")
        events = []
        for block in blocks:
            events += live.feed(block)
        events += live.finish()
    finals = [event.text for event in events if event.kind == "final"]
    expect(finals == ["call 4 2 7 1"], f"the next utterance is {finals}")


def _turns(answer: str, question: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": question},
    ]


def _ids(processor: g4.Processor, messages: Any) -> list[int]:
    return processor(messages).input_ids[0].tolist()


def _conversation(model: g4.Gemma4, processor: g4.Processor, device: Device) -> None:
    cache = ConversationCache(model)
    first = g4.generate(model, processor, QUESTION, max_tokens=12, temperature=0, cache=cache).text
    with failing(device):
        g4.generate(model, processor, _turns(first, NEXT), max_tokens=12, temperature=0, cache=cache)
    if device.failed:
        expect(cache.tokens == 0, f"{cache.tokens} tokens are held")
    _same(model, processor, _turns(first, NEXT), cache)


def _same(model: g4.Gemma4, processor: g4.Processor, messages: Any, cache: ConversationCache) -> None:
    answer = g4.generate(model, processor, messages, max_tokens=12, temperature=0, cache=cache).text
    fresh = g4.generate(model, processor, messages, max_tokens=12, temperature=0).text
    expect(answer == fresh, f"{answer!r} instead of {fresh!r}")


def _another_conversation(model: g4.Gemma4, processor: g4.Processor, device: Device) -> None:
    """MLX may tell one of what befell another."""
    cache = ConversationCache(model)
    first = g4.generate(model, processor, QUESTION, max_tokens=12, temperature=0, cache=cache).text
    with failing(device):
        g4.generate(model, processor, NEXT, max_tokens=12, temperature=0, cache=ConversationCache(model))
    _same(model, processor, _turns(first, NEXT), cache)


def _plain_cache(model: g4.Gemma4, processor: g4.Processor, device: Device) -> None:
    prompt, cache, tokens = _ids(processor, LONG), model.make_cache(), []
    with failing(device):
        for token in g4.generate_tokens(model, prompt, max_tokens=12, cache=cache):
            tokens.append(token)
    if device.failed:
        expect({layer.offset for layer in cache} == {0}, "the cache is empty")
    whole = [*prompt, *tokens]
    rest = list(g4.generate_tokens(model, [*whole[cache.offset :], *_ids(processor, NEXT)], 8, cache=cache))
    fresh = list(g4.generate_tokens(model, [*whole, *_ids(processor, NEXT)], 8))
    expect(rest == fresh, f"{rest} instead of {fresh}")


def _batch(model: g4.Gemma4, processor: g4.Processor, device: Device) -> None:
    prompts = [QUESTION, NEXT, "Hello"]
    with failing(device):
        g4.batch_generate(model, processor, prompts, max_tokens=6, temperature=0)
    texts = [answer.text for answer in g4.batch_generate(model, processor, prompts, max_tokens=6, temperature=0)]
    alone = [g4.generate(model, processor, prompt, max_tokens=6, temperature=0).text for prompt in prompts]
    expect(texts == alone, f"{texts} instead of {alone}")


def _score(model: g4.Gemma4, processor: g4.Processor, device: Device) -> None:
    before = g4.score(model, processor, QUESTION, ["Yes.", "No."])
    with failing(device):
        g4.score(model, processor, QUESTION, ["Yes.", "No."])
    expect(np.allclose(g4.score(model, processor, QUESTION, ["Yes.", "No."]), before), "scores change")
