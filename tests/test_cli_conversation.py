"""What is said in a chat and what goes to the model; paths in what a person types. No model here."""

from __future__ import annotations

from pathlib import Path

import pytest
from gemma4_mlx.app.attachments import Attachment, attachments_in
from gemma4_mlx.app.conversation import Conversation
from hypothesis import given
from hypothesis import strategies as st

from command_line import picture
from gemma4_mlx.errors import InputError

CAT = Attachment("image", "cat.png", "", "the picture")
VOICE = Attachment("audio", "voice.wav", "", "the sound")


def test_pictures_come_before_the_words_and_sound_after_them():
    conversation = Conversation(waiting=[VOICE, CAT])
    (message,) = conversation.messages_with("what is this?")
    assert message == {
        "role": "user",
        "content": [
            {"type": "image", "image": "the picture"},
            {"type": "text", "text": "what is this?"},
            {"type": "audio", "audio": "the sound"},
        ],
    }


def test_asking_changes_nothing_until_the_answer_is_there():
    conversation = Conversation(waiting=[CAT])
    conversation.messages_with("hello")
    assert conversation == Conversation(waiting=[CAT])


def test_turns_alternate_and_instructions_come_first():
    conversation = Conversation(system="be brief")
    conversation.answered("one", "first")
    conversation.answered("two", "second")
    roles = [message["role"] for message in conversation.messages_with("three")]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


def test_an_attachment_goes_with_one_message_and_stays_in_its_turn():
    conversation = Conversation(waiting=[CAT])
    conversation.answered("what is this?", "a cat")
    first, _, second = conversation.messages_with("sure?")
    assert first["content"][0] == {"type": "image", "image": "the picture"}
    assert second["content"] == [{"type": "text", "text": "sure?"}]


def test_clearing_forgets_turns_and_attachments_but_not_the_instructions():
    conversation = Conversation(system="be brief", thinking=True, waiting=[CAT])
    conversation.answered("one", "first")
    conversation.clear()
    assert conversation == Conversation(system="be brief", thinking=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("cat.png", "two cats.png", "it's.png"):
        (tmp_path / name).write_bytes(picture().read_bytes())
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "fake.jpg").write_text("not a picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words", "names"),
    [
        ("cat.png", "", ["cat.png"]),
        ("two cats.png", "", ["two cats.png"]),
        ("it's.png", "", ["it's.png"]),
        ("two\\ cats.png ", "", ["two cats.png"]),
        ("'two cats.png'", "", ["two cats.png"]),
        ('look at "two cats.png" and cat.png please', "look at and please", ["two cats.png", "cat.png"]),
        ("cat.png what is this?", "what is this?", ["cat.png"]),
        ("what's in cat.png", "what's in", ["cat.png"]),
        ("what is a dog.png?", "what is a dog.png?", []),
        ("read  notes.txt", "read  notes.txt", []),
        ("don't", "don't", []),
        ("", "", []),
    ],
)
def test_paths_of_pictures_are_found_in_what_is_typed(folder, line, words, names):
    rest, found = attachments_in(line)
    assert (rest, [attachment.name for attachment in found]) == (words, names)


def test_a_path_from_the_root_is_a_picture_not_a_command(folder):
    rest, found = attachments_in(f"{folder}/cat.png")
    assert rest == ""
    assert [attachment.description for attachment in found] == ["120×90"]


def test_a_text_file_named_jpg_is_refused_by_name(folder):
    with pytest.raises(InputError, match=r"fake\.jpg is not a picture"):
        attachments_in("look at fake.jpg")


@given(st.text())
def test_words_without_files_come_back_as_they_were_typed(line):
    assert attachments_in(line) == (line, [])
