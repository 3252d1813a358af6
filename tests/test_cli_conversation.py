"""What is said in a chat and what goes to the model. No model here."""

from __future__ import annotations

from gemma4_mlx.app.chat.conversation import Conversation
from gemma4_mlx.app.line.attachments import Attachment
from gemma4_mlx.app.messages import assistant_message, user_message

CAT = Attachment("image", "cat.png", "", "the picture")
VOICE = Attachment("audio", "voice.wav", "", "the sound")
CLIP = Attachment("video", "clip.mov", "", b"the video")
NOTES = Attachment("text", "notes.md", "", "the text")


def said(conversation: Conversation, text: str, answer: str | None = None, attachments=()) -> None:
    exchange = conversation.begin(text, list(attachments))
    if answer is not None:
        exchange.replies = [assistant_message(answer)]


def test_what_is_seen_and_read_comes_before_the_words_and_sound_after_them():
    message = user_message("what is this?", [VOICE, NOTES, CLIP, CAT])
    assert message["role"] == "user"
    assert [part["type"] for part in message["content"]] == ["image", "video", "text", "text", "audio"]
    assert message["content"][0] == CAT.part()
    assert message["content"][0]["image"].source == "the picture"
    assert "the text" in message["content"][2]["text"]
    assert message["content"][3] == {"type": "text", "text": "what is this?"}


def test_a_file_without_words_is_a_message():
    assert user_message("", [CAT])["content"] == [CAT.part()]


def test_turns_alternate_and_instructions_come_first():
    conversation = Conversation(system="be brief")
    said(conversation, "one", "first")
    said(conversation, "two", "second")
    said(conversation, "three")
    roles = [message["role"] for message in conversation.messages()]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


def test_an_attachment_stays_in_its_turn():
    conversation = Conversation()
    said(conversation, "what is this?", "a cat", [CAT])
    said(conversation, "sure?")
    first, _, second = conversation.messages()
    assert first["content"][0] == CAT.part()
    assert second["content"] == [{"type": "text", "text": "sure?"}]


def test_a_turn_that_was_never_answered_is_read_with_the_next_one():
    conversation = Conversation()
    said(conversation, "look", attachments=[CAT])
    said(conversation, "and?")
    (message,) = conversation.messages()
    assert [part["type"] for part in message["content"]] == ["image", "text", "text"]


def test_after_a_stop_at_a_tools_result_the_model_has_its_turn_before_the_person_goes_on():
    conversation = Conversation()
    exchange = conversation.begin("the weather?", [])
    exchange.replies = [
        {**assistant_message(""), "tool_calls": [{"id": "1", "function": {"name": "weather", "arguments": {}}}]},
        {"role": "tool", "tool_call_id": "1", "name": "weather", "content": {"value": "sun"}},
    ]
    assert conversation.messages()[-1]["role"] == "tool"
    said(conversation, "thanks")
    assert [message["role"] for message in conversation.messages()] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]


def test_a_number_is_never_used_twice_also_after_the_last_exchange_is_dropped():
    conversation = Conversation()
    said(conversation, "one", "first")
    said(conversation, "two", "second")
    conversation.drop(conversation.exchanges[-1:])
    assert conversation.begin("three", []).number == 2
    assert [exchange.text for exchange in conversation.exchanges] == ["one", "three"]
