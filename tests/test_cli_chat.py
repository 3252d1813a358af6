"""`gemma4-mlx chat` through a pipe, and its parts with a small random model. In a terminal: test_cli_chat_terminal."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from gemma4_mlx.app.answer.answering import Sampling
from gemma4_mlx.app.chat import chat_listening
from gemma4_mlx.app.chat.chat import Chat, ChatOptions, agrees
from gemma4_mlx.app.chat.chat_loop import handle
from gemma4_mlx.app.chat.commands import COMMANDS
from gemma4_mlx.app.chat.conversation import Conversation
from gemma4_mlx.app.chat.model_thread import ModelThread, ThreadedModel
from gemma4_mlx.app.chat.sessions import SessionStore
from gemma4_mlx.app.line.attachments import open_attachment
from gemma4_mlx.app.line.line_input import Typed
from gemma4_mlx.app.speech.microphone_line import Heard
from gemma4_mlx.app.terminal import note

import gemma4_mlx as g4
from command_line import checkpoint, picture, run, start
from device_faults import Device, watched
from gemma4_mlx.errors import (
    CheckpointError,
    ContextLengthError,
    DeviceError,
    Gemma4Error,
    InputError,
    OutOfMemoryError,
)
from gemma4_mlx.generation.decode import Decode

SPEECH = Path(__file__).parent / "tiny" / "speech.flac"
GREEDY = Sampling(max_tokens=6, temperature=0.0)


def pipe(*lines: str, **options):
    typed = "".join(f"{line}\n" for line in lines)
    return run("chat", "--max-tokens", "6", "--temperature", "0", stdin=typed, model=checkpoint(), **options)


def test_answers_go_to_stdout_and_everything_else_to_stderr():
    finished = pipe("/help", "hello")
    assert finished.returncode == 0
    assert finished.stdout == run("ask", "hello", "--max-tokens", "6", "--temperature", "0", model=checkpoint()).stdout
    assert "/image FILE" in finished.stderr
    assert "\x1b" not in finished.stdout + finished.stderr


def test_quit_ends_it_before_the_next_line():
    finished = pipe("/quit", "hello")
    assert (finished.returncode, finished.stdout) == (0, "")


def test_what_cannot_be_done_is_reported_and_the_conversation_goes_on(tmp_path):
    (tmp_path / "fake.jpg").write_text("just words")
    commands = [
        "/image none.png",
        "fake.jpg",
        "/image",
        "/think perhaps",
        "/undo",
        "/detail 7",
        "/copy",
        "/undo 2",
    ]
    finished = pipe(*commands, "hello", cwd=tmp_path)
    assert finished.returncode == 0
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(commands)
    assert "none.png" in errors[0]
    assert "fake.jpg is not a picture" in errors[1]
    assert errors[7] == "error: /undo takes nothing after it"
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
    assert re.search(rb"a new chat; [\w-]+ is kept, /resume goes back to it\n$", stderr)


def test_a_model_that_cannot_be_loaded_is_one_line_and_exit_code_1(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    finished = run("chat", model=tmp_path, stdin="hello\n")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1


def test_an_earlier_chat_is_gone_on_with_by_its_name():
    assert "kept as pipe" in pipe("hello", "/save pipe").stderr
    finished = run("chat", "--resume", "pipe", "--max-tokens", "6", stdin="/context\n", model=checkpoint())
    assert finished.returncode == 0
    assert "going on with pipe: 1 message" in finished.stderr
    assert "hello" in finished.stderr
    missing = run("chat", "--resume", "nowhere", model=checkpoint(), stdin="")
    assert missing.returncode == 1
    assert "no chat to go on with called nowhere" in missing.stderr
    assert run("chat", "pipe", model=checkpoint(), stdin="").returncode == 2


@pytest.fixture(scope="module")
def model() -> Iterator[ThreadedModel]:
    model = ThreadedModel(ModelThread(), "tiny", checkpoint())
    model.wait()
    yield model
    model.thread.close()


@pytest.fixture
def store(tmp_path) -> SessionStore:
    return SessionStore(note, tmp_path / "sessions")


@pytest.fixture
def chat(model, store) -> Chat:
    return Chat(model, Conversation(), store.new(), store, ChatOptions(GREEDY))


def say(chat: Chat, text: str, *files) -> None:
    handle(chat, Typed(text, list(files)))


def on_disk(store: SessionStore, chat: Chat) -> Conversation:
    """What another process would find. The chat can go on."""
    return store.read_file(chat.session.path).conversation


def texts(conversation: Conversation) -> list[str]:
    return [exchange.text for exchange in conversation.exchanges]


def test_turns_are_kept_read_again_and_on_disk(chat, store, capsys):
    say(chat, "hello")
    say(chat, "again")
    said = capsys.readouterr().out
    answers = [exchange.answer for exchange in chat.conversation.exchanges]
    assert texts(chat.conversation) == ["hello", "again"]
    assert said == "".join(answer if answer.endswith("\n") else f"{answer}\n" for answer in answers)
    assert on_disk(store, chat) == chat.conversation
    assert chat.answers[1].stats.cached_tokens > 0


def test_a_picture_waits_for_the_next_message(chat, capsys):
    say(chat, f"/image {picture()}")
    assert [attachment.name for attachment in chat.waiting] == ["cat.png"]
    say(chat, "what is it?")
    assert chat.waiting == []
    assert [attachment.name for attachment in chat.conversation.exchanges[0].attachments] == ["cat.png"]
    assert "120×90" in capsys.readouterr().err


def test_a_message_the_model_refuses_leaves_everything_as_it_was_and_stands_in_the_line_again(chat, store):
    say(chat, "hello")
    with pytest.raises(InputError, match=r"does not fit|context"):
        say(chat, "word " * 20_000)
    assert texts(chat.conversation) == ["hello"]
    assert on_disk(store, chat) == chat.conversation
    assert chat.prefilled == ("word " * 20_000).strip()
    say(chat, "go on")


def test_a_full_context_says_which_command_makes_room_and_it_does(chat):
    def fill() -> None:
        while True:
            say(chat, "more " + "word " * 500)

    with pytest.raises(ContextLengthError, match=r"/forget [1-3] makes room"):
        fill()
    count = len(chat.conversation.exchanges)
    assert count >= 2
    say(chat, "/forget 2")
    assert len(chat.conversation.exchanges) == count - 2
    say(chat, "more " + "word " * 500)


@pytest.mark.parametrize(
    ("typed", "agreed"), [("", False), ("\n", True), ("y\n", True), ("Yes\n", True), ("n\n", False), ("what?\n", False)]
)
def test_nothing_is_forgotten_by_a_terminal_that_closes(monkeypatch, typed, agreed):
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert agrees("forget the oldest message?") is agreed


def test_undo_takes_back_the_last_exchange_also_on_disk(chat, store):
    for text in ("one", "two", "/undo", "three"):
        say(chat, text)
    assert texts(chat.conversation) == ["one", "three"]
    assert on_disk(store, chat) == chat.conversation


def test_an_answer_again_is_another_one_with_a_seed_and_the_same_conversation(model, store):
    options = ChatOptions(Sampling(max_tokens=8, temperature=1.0, seed=3))
    chat = Chat(model, Conversation(), store.new(), store, options)
    say(chat, "hello")
    first = chat.conversation.exchanges[0].answer
    say(chat, "/regen")
    (exchange,) = chat.conversation.exchanges
    assert exchange.answer != first
    assert on_disk(store, chat) == chat.conversation


def test_words_behind_a_command_that_takes_none_stand_in_the_line_again(chat):
    with pytest.raises(InputError, match="takes nothing after it"):
        say(chat, "/clear is what I typed")
    assert chat.prefilled == "/clear is what I typed"


@pytest.mark.parametrize("text", ["/clear", "/quit", "quit", "help", "/system be rude"])
def test_words_that_read_like_a_command_are_sent(chat, text):
    chat.edits_lines = True
    handle(chat, Typed(text, literal=True))
    assert texts(chat.conversation) == [text]
    assert not chat.over


@pytest.mark.parametrize("text", ["/hepl", "/usr/bin is full", "//", "/* … */", "/clearly", "/nonsense"])
def test_what_is_exactly_no_command_is_sent(chat, text):
    say(chat, text)
    assert texts(chat.conversation) == [text]


@pytest.mark.parametrize(
    ("text", "samples", "attached"), [("", 0, 0), ("", 4_000, 0), ("", 32_000, 1), ("hi", 4_000, 1)]
)
def test_tab_at_once_attaches_nothing_and_says_so(chat, monkeypatch, capsys, text, samples, attached):
    heard = Heard(text, None, np.zeros(samples, np.float32), wants_sound=True, note=None)
    monkeypatch.setattr(chat_listening.microphone_line, "listen", lambda *_, **__: heard)
    chat.edits_lines = True
    say(chat, "/listen")
    assert len(chat.waiting) == attached
    assert ("nothing is attached" in capsys.readouterr().err) is not bool(attached)


def test_edit_puts_the_last_message_back_with_its_files(chat):
    cat = open_attachment(picture())
    say(chat, "what is it?", cat)
    say(chat, "/edit")
    assert chat.conversation.exchanges == []
    assert (chat.prefilled, chat.waiting) == ("what is it?", [cat])


def test_clear_begins_another_chat_and_leaves_the_first_on_disk(chat, store):
    say(chat, "/system be brief")
    say(chat, "one")
    first = chat.session.path
    say(chat, "/clear")
    say(chat, "two")
    assert chat.conversation.system == "be brief"
    assert texts(chat.conversation) == ["two"]
    assert texts(store.read_file(first).conversation) == ["one"]
    assert chat.session.path != first


def test_thinking_and_instructions_are_set_by_commands(chat):
    say(chat, "/think on")
    say(chat, "/system be  brief")
    assert (chat.conversation.system, chat.conversation.thinking) == ("be  brief", True)
    say(chat, "/system")
    say(chat, "/think off")
    assert (chat.conversation.system, chat.conversation.thinking) == (None, False)
    say(chat, "/think hide")
    assert not chat.show_thoughts


def test_more_tokens_for_pictures(chat):
    say(chat, "/detail 70")
    say(chat, "what is it?", open_attachment(picture()))
    few = chat.answers[-1].stats.prompt_tokens
    say(chat, "/detail 280")
    say(chat, "/regen")
    assert chat.answers[-1].stats.prompt_tokens > few


@pytest.mark.parametrize("suffix", [".md", ".json"])
def test_a_chat_is_written_to_a_file_once(chat, tmp_path, suffix):
    say(chat, "what is it?", open_attachment(picture()))
    path = tmp_path / f"my chat{suffix}"
    say(chat, f"/export {path}")
    assert "what is it?" in path.read_text()
    assert "cat.png" in path.read_text()
    with pytest.raises(InputError, match="there already"):
        say(chat, f"/export {path}")
    assert [file.name for file in tmp_path.iterdir() if file.suffix == suffix or "my chat" in file.name] == [path.name]


def test_an_exported_chat_is_gone_on_with(chat, store, tmp_path):
    say(chat, "/system be brief")
    say(chat, "what is it?", open_attachment(picture()))
    say(chat, f"/export {tmp_path}/a.json")
    before = chat.conversation
    say(chat, "/clear")
    say(chat, f"/load {tmp_path}/a.json")
    assert texts(chat.conversation) == ["what is it?"]
    assert chat.conversation.system == "be brief"
    assert chat.conversation.exchanges[0].replies == before.exchanges[0].replies
    assert chat.conversation.exchanges[0].attachments[0].data == picture().read_bytes()
    assert on_disk(store, chat) == chat.conversation


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"messages": [{"role": "user"}], "thinking": 0}', "\0"])
def test_a_file_that_is_no_chat_is_refused(chat, tmp_path, content):
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match="holds no chat"):
            say(chat, f"/load {tmp_path / name}")
    assert chat.conversation.exchanges == []


def test_the_chat_before_is_resumed(chat, store):
    say(chat, "one")
    say(chat, "/save first")
    say(chat, "/clear")
    say(chat, "two")
    say(chat, "/resume")
    assert (chat.session.name, texts(chat.conversation)) == ("first", ["one"])
    say(chat, "three")
    assert texts(on_disk(store, chat)) == ["one", "three"]


def test_another_model_goes_on_without_what_it_cannot_take(model, store, tmp_path, capsys):
    import shutil

    deaf = tmp_path / "deaf"
    shutil.copytree(checkpoint("dense"), deaf)
    sound = tmp_path / "a.wav"
    sound.write_bytes(wave_of(0.5))
    chat = Chat(model, Conversation(), store.new(), store, ChatOptions(GREEDY))
    say(chat, "listen", open_attachment(sound))
    say(chat, f"/model {deaf}")
    assert "cannot be given a.wav" in capsys.readouterr().err
    say(chat, "go on")
    assert texts(chat.conversation) == ["listen", "go on"]
    with pytest.raises(Gemma4Error):
        say(chat, f"/model {tmp_path}/nothing")
    assert chat.model.name == str(deaf)


def wave_of(seconds: float) -> bytes:
    import wave

    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"\0\1" * int(16000 * seconds))
    return stream.getvalue()


def test_figures_of_context_and_speed(chat, capsys):
    say(chat, "hello")
    say(chat, "again")
    stats = chat.answers[-1].stats
    capsys.readouterr()
    say(chat, "/context")
    told = capsys.readouterr().err
    total = int(told.splitlines()[-1].split()[0])
    # The last answer is counted as it will be read back: in other tokens than it was written in, perhaps.
    read_back = chat.model.thread.run(
        lambda: chat.model()[1](chat.conversation.messages(), add_generation_prompt=False).input_ids.shape[1]
    )
    assert stats.prompt_tokens < total == read_back
    assert "of 4,096 tokens" in told
    say(chat, "/stats")
    assert f"{stats.cached_tokens} of them read before" in capsys.readouterr().err


def test_a_video_a_picture_and_a_sound_are_counted_as_they_are_read(chat, tmp_path, capsys):
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame(96, 64, "yuv420p")))
        container.mux(stream.encode())
    say(
        chat,
        "What is this?",
        open_attachment(clip),
        open_attachment(picture()),
        open_attachment(wave_of(2), name="a.wav"),
    )
    capsys.readouterr()
    say(chat, "/context")
    total = int(capsys.readouterr().err.splitlines()[-1].split()[0].replace(",", ""))
    read_back = chat.model.thread.run(
        lambda: chat.model()[1](chat.conversation.messages(), add_generation_prompt=False).input_ids.shape[1]
    )
    assert total == read_back


class InterruptedScreen(io.StringIO):
    """Ctrl-C once, when a word of the answer has been written."""

    interrupted = False

    def write(self, text: str) -> int:
        if self.getvalue().strip() and not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        return super().write(text)


def test_a_stopped_answer_stays_in_the_conversation_as_far_as_it_came(chat, store, monkeypatch):
    screen = InterruptedScreen()
    monkeypatch.setattr(sys, "stdout", screen)
    say(chat, "hello")
    (exchange,) = chat.conversation.exchanges
    assert exchange.answer.startswith(screen.getvalue().rstrip("\n"))
    assert on_disk(store, chat) == chat.conversation
    say(chat, "go on")
    assert len(chat.conversation.exchanges) == 2


@pytest.mark.parametrize("command", sorted(command.name for command in COMMANDS))
def test_no_command_reaches_the_model_by_itself(chat, command, capsys):
    with contextlib.suppress(InputError):
        say(chat, command)
    assert chat.conversation.exchanges == []
    assert capsys.readouterr().out == ""
    assert chat.over == (command == "/quit")


def test_a_failing_model_ends_the_chat_and_what_was_said_is_on_disk(store, tmp_path):
    broken = ThreadedModel(ModelThread(), "broken", tmp_path)
    chat = Chat(broken, Conversation(), store.new(), store, ChatOptions(GREEDY))
    with pytest.raises(CheckpointError):
        say(chat, "hello")
    assert "cannot be loaded" in chat.footer()
    events = [json.loads(line)["event"] for line in chat.session.path.read_text().splitlines()]
    assert events == ["settings", "user"]
    broken.thread.close()


@pytest.mark.parametrize("tokens", [0, 2])
def test_an_error_of_the_gpu_ends_the_answer_and_not_the_chat(chat, store, monkeypatch, tokens):
    say(chat, "hello")
    undisturbed = chat.conversation.exchanges[-1].answer
    chat.edits_lines = True
    step, steps = Decode.step, []

    def failing(*arguments, **options):
        if len(steps) == tokens:
            with watched(Device(1)):
                return step(*arguments, **options)
        steps.append(arguments)
        return step(*arguments, **options)

    monkeypatch.setattr(Decode, "step", failing)
    with pytest.raises(OutOfMemoryError, match="out of memory: close other programs"):
        say(chat, "once more", open_attachment(str(SPEECH), "audio"))
    if tokens:
        assert len(chat.conversation.exchanges) == 2, "what was written of it stays"
    else:
        assert len(chat.conversation.exchanges) == 1
        assert (chat.prefilled, len(chat.waiting)) == ("once more", 1), "all of it is in the line again"
    assert texts(on_disk(store, chat)) == texts(chat.conversation)
    assert chat.model.thread.run(chat.model.cache).tokens == 0
    monkeypatch.undo()
    say(chat, "/clear")
    say(chat, "hello")
    assert chat.conversation.exchanges[-1].answer == undisturbed


def test_an_error_of_mlx_that_nobody_knows_ends_the_answer_and_not_the_chat(chat, monkeypatch):
    say(chat, "hello")
    undisturbed = chat.conversation.exchanges[-1].answer

    def failing(*_, **__):
        raise RuntimeError("[matmul] Something that never was")

    monkeypatch.setattr(Decode, "step", failing)
    with pytest.raises(DeviceError, match=r"the computation failed: \[matmul\] Something that never was"):
        say(chat, "once more")
    assert len(chat.conversation.exchanges) == 1
    assert chat.model.thread.run(chat.model.cache).tokens == 0
    monkeypatch.undo()
    say(chat, "/clear")
    say(chat, "hello")
    assert chat.conversation.exchanges[-1].answer == undisturbed


def test_a_mistake_of_ours_is_not_blamed_on_memory(chat, monkeypatch):
    def mistaken(*_, **__):
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(g4, "stream_generate", mistaken)
    with pytest.raises(RecursionError):
        say(chat, "hello")


def test_an_error_of_mlx_in_ask_and_transcribe_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    for command in (("ask", "hi"), ("transcribe", SPEECH), ("transcribe", SPEECH, "--simulate", "--speed", "9")):
        process = start(*command, model="demo", more_environment={"PYTHONPATH": str(tmp_path)})
        _, stderr = process.communicate(b"", timeout=60)
        assert process.returncode == 1
        told = stderr.decode().splitlines()[-1]
        assert told.startswith("error: out of memory: close other programs"), told
        assert b"Traceback" not in stderr


FAILING = """
import gemma4_mlx.model.gemma4 as file
def failing(*_, **__):
    raise RuntimeError("[malloc] Unable to allocate 9 bytes.")
file.Gemma4.__call__ = failing
"""


def test_drawing_the_footer_loads_nothing(store):
    model = ThreadedModel(ModelThread(), "tiny", checkpoint())
    chat = Chat(model, Conversation(), store.new(), store, ChatOptions(GREEDY))
    assert chat.footer() == "tiny is being loaded"
    assert not model.thread.busy
    model.thread.close()
