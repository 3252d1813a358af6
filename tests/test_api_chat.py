"""`g4.Chat`: questions and answers that remember, with pictures, sound and tools; saved and gone on with."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import gemma4_mlx as g4
from scripted_model import ScriptedModel

CALL = "<|tool_call>call:double{number:4}<tool_call|>"
TONE = (np.sin(np.arange(16_000) / 20) / 4).astype(np.float32)
BRIEF = {"max_tokens": 6, "temperature": 0, "image_tokens": 70}


def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo")


@pytest.fixture
def writing(demo):
    model, processor = demo
    return lambda *texts: (ScriptedModel(processor, model.config, *texts), processor)


def png(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (96, 96), colour).save(file, "PNG")
    return file.getvalue()


def test_a_chat_answers_as_generate_does_with_the_whole_history(demo):
    chat = g4.Chat(*demo, system="Be brief.")
    first = chat.ask("Hello", **BRIEF)
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first.text},
    ]
    assert chat.messages == history
    history.append({"role": "user", "content": "Who are you?"})
    second = chat.ask("Who are you?", **BRIEF)
    assert second.tokens == g4.generate(*demo, history, **BRIEF).tokens
    assert second.stats.cached_tokens > 0


def test_a_stream_is_part_of_the_conversation_once_it_is_over(demo):
    chat = g4.Chat(*demo)
    with chat.stream("Hello", **BRIEF) as stream:
        text = next(stream).text
        assert chat.messages == []
        text += "".join(chunk.text for chunk in stream)
    assert chat.messages[-1] == {"role": "assistant", "content": text}
    assert stream.result().text == text


def test_a_closed_stream_leaves_the_conversation_as_it_was_and_the_next_question_is_free(demo):
    chat = g4.Chat(*demo)
    chat.ask("Hello", **BRIEF)
    before = list(chat.messages)
    with chat.stream("Who are you?", **BRIEF) as stream:
        next(stream)
    assert chat.messages == before
    left = chat.stream("Who are you?", **BRIEF)
    next(left)
    out = chat.ask("Who are you?", **BRIEF)  # ends the one before
    assert list(left) == []
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2
    assert out.tokens == g4.generate(*demo, chat.messages[:-1], **BRIEF).tokens


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"images": ["gone.png"]}, g4.InputError),
        ({"images": "one.png"}, ValueError),
        ({"audio": [np.full(16_000, np.nan, np.float32)]}, g4.InputError),
        ({"max_tokens": 0}, ValueError),
        ({"schema": {"type": "no type"}}, ValueError),
    ],
)
def test_a_question_that_fails_leaves_the_conversation_as_it_was(demo, given, error):
    chat = g4.Chat(*demo)
    chat.ask("Hello", **BRIEF)
    before = list(chat.messages)
    with pytest.raises(error):
        chat.ask("And this?", **given)
    assert chat.messages == before
    assert chat.ask("Again", **BRIEF).tokens == g4.generate(*demo, chat.messages[:-1], **BRIEF).tokens


def test_functions_are_run_on_the_way_and_all_rounds_are_shown(writing):
    chat = g4.Chat(*writing(CALL, "Eight."), tools=[double])
    with chat.stream("Twice four?", temperature=0) as stream:
        kinds = [chunk.kind for chunk in stream]
    assert (kinds[0], kinds[-1], str(stream.result())) == ("tool_call", "answer", "Eight.")
    assert [message["role"] for message in chat.messages] == ["user", "assistant", "tool", "assistant"]
    assert chat.messages[2]["content"] == {"value": 8}


def test_a_person_may_say_no_to_a_call(writing):
    chat = g4.Chat(*writing(CALL, "No."), tools=[double], may_run=lambda call: False)
    chat.ask("Twice four?", temperature=0)
    assert chat.messages[2]["content"] == {"error": "the user did not allow this call"}


def test_an_interrupted_function_leaves_the_conversation_as_it_was(writing):
    def stop(number: int) -> int:
        """Ends the program."""
        raise KeyboardInterrupt

    chat = g4.Chat(*writing(CALL, CALL.replace("double", "stop")), tools=[double, stop])
    with pytest.raises(KeyboardInterrupt):
        chat.ask("Twice four?", temperature=0)
    assert chat.messages == []


def test_a_picture_is_read_when_it_is_given_and_asked_about_when_its_file_is_gone(demo, tmp_path: Path):
    path = tmp_path / "red.png"
    path.write_bytes(png())
    chat = g4.Chat(*demo)
    chat.ask("What is this?", images=(each for each in [path]), **BRIEF)
    path.unlink()
    out = chat.ask("And the colour?", **BRIEF)
    assert out.stats.cached_tokens > 49
    assert "red.png" in repr(chat.messages)


def test_a_saved_chat_goes_on_where_it_was_with_pictures_and_sound(writing, demo, tmp_path: Path):
    path = tmp_path / "trip.json"
    photo = tmp_path / "red.png"
    photo.write_bytes(png())
    chat = g4.Chat(*writing(CALL, "Eight.", "<|channel>thought\nHm.<channel|>Red."), system="Be brief.", tools=[double])
    chat.ask("Twice four?", temperature=0)
    chat.ask(
        "What are these?",
        images=[photo, png("blue"), Image.new("L", (50, 60), 7), np.zeros((48, 48, 3), np.uint8), io.BytesIO(png())],
        audio=[TONE, ((TONE * 32768).astype(np.int16), 16_000)],
        temperature=0,
        image_tokens=70,
    )
    photo.unlink()
    chat.thinking = True
    chat.save(path)
    again = g4.Chat.load(path, *writing("Still red."), tools=[double])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (again.thinking, len(again.messages)) == (True, len(chat.messages))
    processor = demo[1]
    before, after = (processor(each.messages, image_tokens=70) for each in (chat, again))
    assert before.input_ids.tolist() == after.input_ids.tolist()
    for one, other in zip(before.images, after.images, strict=True):
        assert np.array_equal(one.patches, other.patches)
    for one, other in zip(before.sounds, after.sounds, strict=True):
        assert np.array_equal(one, other)
    assert str(again.ask("And now?", temperature=0, image_tokens=70)) == "Still red."
    second = tmp_path / "again.json"
    g4.Chat.load(path, *demo).save(second)
    assert second.read_bytes() == path.read_bytes()


def test_messages_added_by_hand_in_other_forms_are_saved_with_their_pictures(demo, tmp_path: Path):
    photo = tmp_path / "red.png"
    photo.write_bytes(png())
    chat = g4.Chat(*demo)
    chat.messages.append(
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": str(photo)}}, "What?"]}
    )
    chat.save(tmp_path / "chat.json")
    photo.unlink()
    assert g4.Chat.load(tmp_path / "chat.json", *demo).ask("And?", **BRIEF).tokens


def test_what_cannot_be_saved_is_named_and_the_file_before_stays(demo, tmp_path: Path):
    path = tmp_path / "chat.json"
    chat = g4.Chat(*demo, system="Be brief.")
    chat.save(path)
    before = path.read_bytes()
    for message, says in (
        ({"role": "user", "content": "Hi", "when": 3}, "message 2 has when"),
        ({"role": "user", "content": [{"type": "image", "image": object()}]}, "message 2 holds a object"),
        ({"role": "tool", "content": {"value": object()}}, "plain JSON"),
        ({"role": "user", "content": [{"type": "image", "image": "gone.png"}]}, "gone.png does not exist"),
    ):
        chat.messages[1:] = [message]
        with pytest.raises(g4.InputError, match=says):
            chat.save(path)
    assert path.read_bytes() == before
    with pytest.raises(OSError, match="cannot be written"):
        g4.Chat(*demo).save(tmp_path / "no folder" / "chat.json")
    assert list(tmp_path.iterdir()) == [path]


def _file(tmp_path: Path, *messages: object, **fields: object) -> Path:
    path = tmp_path / "chat.json"
    chat = {"format": "gemma4-mlx chat", "version": 1, "thinking": False, "messages": list(messages), **fields}
    path.write_text(json.dumps(chat))
    return path


@pytest.mark.parametrize(
    "message",
    [
        "Hi",
        {"role": "user"} | {"images": ["http://127.0.0.1/a.png"]},
        {"role": "user", "content": [{"type": "image", "image": "/etc/hosts"}]},
        {"role": "user", "content": [{"type": "image", "image": {"url": "http://127.0.0.1/a.png"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/hosts"}}]},
        {"role": "user", "content": [{"type": "image", "image": {"name": "a.png", "data": "?"}}]},
        {"role": "user", "content": [{"type": "image", "image": {"name": "a\x1b[31m", "data": ""}}]},
        {"role": "user", "content": [{"type": "audio", "audio": {"dtype": "object", "shape": [1], "data": "AAAA"}}]},
        {"role": "user", "content": [{"type": "audio", "audio": {"dtype": "int16", "shape": [9**9], "data": "AAAA"}}]},
        {"role": "user", "content": "/etc/hosts", "tool_calls": []},
        {"role": "tool", "content": [{"type": "image", "image": "/etc/hosts"}]},
        {"role": "tool", "content": {"value": 1}},
        {"role": "wizard", "content": "Hi"},
    ],
)
def test_a_file_that_save_never_writes_is_refused(demo, tmp_path: Path, message):
    with pytest.raises(g4.InputError, match=r"chat.json holds no chat: give a file that Chat.save wrote") as caught:
        g4.Chat.load(_file(tmp_path, {"role": "user", "content": "Hi"}, message), *demo)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"version": 2}, "version 2"), ({"format": "x"}, "holds no chat"), ({"thinking": 1}, "holds no chat")],
)
def test_a_file_of_another_kind_or_time_is_refused(demo, tmp_path: Path, fields, says):
    with pytest.raises(g4.InputError, match=says):
        g4.Chat.load(_file(tmp_path, **fields), *demo)


@settings(max_examples=60)
@given(st.binary(max_size=40) | st.just(b"[" * 100_000) | st.just(b'{"a":' * 100_000))
def test_bytes_that_are_no_chat_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("chat") / "chat.json"
    path.write_bytes(data)
    with pytest.raises(g4.InputError):
        g4.Chat.load(path, None, None)


@pytest.mark.parametrize("path", ["gone.json", "."])
def test_a_chat_that_is_not_there_is_named(demo, tmp_path: Path, path):
    with pytest.raises(g4.InputError, match=r"does not exist|is a folder"):
        g4.Chat.load(tmp_path / path, *demo)


def test_a_chat_prints_in_one_line(demo):
    assert repr(g4.Chat(*demo, system="Be brief.")) == "Chat(1 messages, 0 tokens)"


def test_instructions_that_are_no_text_and_tools_that_are_no_functions_are_refused(demo):
    with pytest.raises(ValueError, match="system must be a text, not a list"):
        g4.Chat(*demo, system=[])
    with pytest.raises(ValueError, match="is a description, which cannot be run"):
        g4.Chat(*demo, tools=[{"name": "f"}])


@pytest.mark.parametrize("option", ["tools", "cache"])
def test_what_a_chat_has_from_its_beginning_is_not_given_with_a_question(demo, option):
    with pytest.raises(ValueError, match=f"{option} cannot be given with a question"):
        g4.Chat(*demo).ask("Hi", **{option: None})


def test_half_a_character_is_saved_and_comes_back(demo, tmp_path: Path):
    chat = g4.Chat(*demo)
    chat.messages.append({"role": "user", "content": "caf\u00e9 \ud800 <turn|>"})
    chat.save(tmp_path / "chat.json")
    assert g4.Chat.load(tmp_path / "chat.json", *demo).messages == chat.messages
