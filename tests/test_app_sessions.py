"""Chats on disk: what is written is there after any end, and what is damaged costs no more than itself."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gemma4_mlx.app.chat.conversation import Conversation
from gemma4_mlx.app.chat.session import Session
from gemma4_mlx.app.chat.sessions import SessionStore
from gemma4_mlx.app.line.attachments import open_attachment
from gemma4_mlx.app.messages import assistant_message
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import picture
from gemma4_mlx.errors import InputError


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path, told) -> SessionStore:
    return SessionStore(told.append, tmp_path / "sessions")


def say(session: Session, conversation: Conversation, text: str, answer: str | None, attachments=()) -> None:
    exchange = conversation.begin(text, list(attachments))
    session.user(exchange, conversation, "demo")
    if answer is not None:
        exchange.replies = [assistant_message(answer)]
        session.replied(exchange)


def cut_off_in_another_answer(store: SessionStore, piece: str) -> list[tuple[str, str]]:
    """Open the session, have its first message answered anew and end after `piece` of that; what it held before."""
    session, replay = store.open()
    (first,) = replay.conversation.exchanges
    session.again(first)
    if piece:
        session.piece(first, piece)
    session.close()
    return texts(replay.conversation)


def cat():
    return open_attachment(picture().read_bytes(), "image", "cat.png")


def texts(conversation: Conversation) -> list[tuple[str, str]]:
    return [(exchange.text, exchange.answer) for exchange in conversation.exchanges]


def test_a_conversation_comes_back_as_it_was(store, told):
    conversation = Conversation(system="be brief", thinking=True)
    session = store.new()
    say(session, conversation, "what is\nthis? \u2028 \ud800", "a cat", [cat()])
    say(session, conversation, "sure?", "yes")
    session.close()
    _, replay = store.open()
    assert replay.conversation == conversation
    assert replay.conversation.exchanges[0].attachments[0].data == picture().read_bytes()
    assert replay.model == "demo"
    assert told == []


def test_there_is_no_file_before_the_first_message_and_only_its_owner_reads_it(store):
    session = store.new()
    session.close()
    assert store.names() == []
    session = store.new()
    say(session, Conversation(), "hello", None, [cat()])
    files = [session.path, *(store.folder / "attachments").iterdir()]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_an_attachment_is_kept_once(store):
    session, conversation = store.new(), Conversation()
    for text in ("one", "two"):
        say(session, conversation, text, "a cat", [cat()])
    assert len(list((store.folder / "attachments").iterdir())) == 1


def test_an_attachment_that_is_lost_or_changed_is_left_out_and_named(store, told):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "what is this?", "a cat", [cat()])
    session.close()
    (kept,) = (store.folder / "attachments").iterdir()
    kept.write_bytes(picture("dog.png").read_bytes() + b"?")
    _, replay = store.open()
    assert texts(replay.conversation) == [("what is this?", "a cat")]
    assert replay.conversation.exchanges[0].attachments == []
    assert "cat.png" in told[0]


def test_an_answer_whose_end_was_never_written_is_kept_as_far_as_it_came(store):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "hello", None)
    session.piece(conversation.exchanges[0], "good ")
    session.close()
    assert texts(store.open()[1].conversation) == [("hello", "good ")]


def test_while_a_message_is_answered_again_its_old_answer_is_not_lost(store):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "hello", "good day")
    session.again(conversation.exchanges[0])
    session.close()
    assert cut_off_in_another_answer(store, "hi") == [("hello", "good day")]
    assert texts(store.open()[1].conversation) == [("hello", "hi")]


def test_a_cut_off_answer_and_the_one_that_comes_in_its_place_are_never_glued_together(store):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "hello", None)
    session.piece(conversation.exchanges[0], "good ")
    session.close()
    for piece in ("", "", "hi "):  # twice nothing comes
        assert cut_off_in_another_answer(store, piece) == [("hello", "good ")]
    assert texts(store.open()[1].conversation) == [("hello", "hi ")]


def test_what_was_taken_back_does_not_come_back(store):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one", "first")
    say(session, conversation, "two", "second")
    dropped = conversation.exchanges[-1:]
    conversation.drop(dropped)
    session.forgotten(dropped)
    say(session, conversation, "three", "third")
    session.close()
    assert texts(store.open()[1].conversation) == [("one", "first"), ("three", "third")]


def test_half_a_line_at_the_end_is_no_damage_and_the_next_event_has_a_line_of_its_own(store, told):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one", "first")
    session.close()
    with session.path.open("ab") as file:
        file.write(b'{"event": "user", "excha')
    opened, replay = store.open()
    say(opened, replay.conversation, "two", "second")
    opened.close()
    assert texts(store.open()[1].conversation) == [("one", "first"), ("two", "second")]
    assert told == []


def test_damage_in_the_middle_costs_one_exchange_and_the_damaged_file_is_kept(store, told):
    session, conversation = store.new(), Conversation()
    for text, answer in (("one", "first"), ("two", "second"), ("three", "third")):
        say(session, conversation, text, answer)
    session.close()
    damaged = session.path.read_bytes().replace(b'"text": "two"', b'"text": "tw\0\xff')
    session.path.write_bytes(damaged)
    opened, replay = store.open()
    assert texts(replay.conversation) == [("one", "first"), ("three", "third")]
    kept = session.path.with_suffix(".damaged")
    assert kept.read_bytes() == damaged
    assert str(kept) in told[0]
    opened.close()
    del told[:]
    assert texts(store.open()[1].conversation) == [("one", "first"), ("three", "third")]
    assert told == []


@settings(max_examples=60)
@given(st.data())
def test_no_damage_anywhere_keeps_a_session_from_being_opened(data):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = SessionStore(lambda _: None, Path(folder))
        session, conversation = store.new(), Conversation()
        for number in range(4):
            say(session, conversation, f"question {number}", f"answer {number}")
        session.close()
        content = bytearray(session.path.read_bytes())
        start = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 60))
        content[start : start + length] = data.draw(st.binary(max_size=60))
        session.path.write_bytes(content)
        opened, replay = store.open()
        whole = {(f"question {number}", f"answer {number}") for number in range(4)}
        assert len(whole & set(texts(replay.conversation))) >= 2  # 60 bytes reach into two exchanges at most
        say(opened, replay.conversation, "next", "last")
        opened.close()
        assert texts(store.open()[1].conversation)[-1] == ("next", "last")


def test_two_chats_never_write_to_one_file(store, told):
    first = store.new()
    say(first, Conversation(), "one", "first")
    second = Session(store.folder, first.name, told.append)
    say(second, Conversation(), "two", "second")
    assert second.name == f"{first.name}-2"
    assert first.path != second.path
    with pytest.raises(InputError, match="open in another chat"):
        store.open(first.name)
    with pytest.raises(InputError, match="is open in another chat"):
        store.open()
    first.close()
    assert texts(store.open()[1].conversation) == [("one", "first")]


def test_a_session_is_found_by_its_new_name(store):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one", "first")
    session.rename("my trip")
    say(session, conversation, "two", "second")
    session.close()
    assert store.names() == ["my trip"]
    assert texts(store.open("my trip")[1].conversation) == [("one", "first"), ("two", "second")]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 300, " space", "new\nline"])
def test_a_name_no_file_can_have_is_refused(store, name):
    with pytest.raises(InputError, match="cannot be called"):
        store.new().rename(name)


def test_a_name_that_is_taken_is_refused(store):
    first, second = store.new(), store.new()
    say(first, Conversation(), "one", "first")
    first.rename("trip")
    with pytest.raises(InputError, match="there is a chat trip already"):
        second.rename("trip")


def test_the_same_file_by_another_name_is_not_taken_for_another_chat(store):
    session = store.new()
    say(session, Conversation(), "one", "first")
    session.rename("trip")
    os.link(session.path, session.path.with_stem("Trip"))  # as on a disk that takes upper and lower case for the same
    session.rename("Trip")
    assert session.name == "Trip"


def test_a_name_that_does_not_exist_lists_those_that_do(store):
    session = store.new()
    say(session, Conversation(), "one", "first")
    session.rename("trip")
    with pytest.raises(InputError, match="called other; saved are: trip"):
        store.open("other")


def test_on_a_full_disk_the_chat_goes_on_is_told_once_and_all_is_saved_later(store, told):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one", "first")
    attached = [cat()]  # drawn while there is room
    size = session.path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))  # room for half a line
        say(session, conversation, "two", "second", attached)
        say(session, conversation, "three", "third")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(told) == 1
    assert "cannot be saved" in told[0]
    assert session.path.read_bytes().endswith(b"\n")
    say(session, conversation, "four", "fourth")
    assert "saved again" in told[1]
    session.close()
    assert store.open()[1].conversation == conversation


def test_after_kill_9_nothing_that_was_recorded_is_missing_and_the_cut_is_told(store, told):
    program = f"""
import os, signal
from pathlib import Path
from gemma4_mlx.app.chat.conversation import Conversation
from gemma4_mlx.app.messages import assistant_message
from gemma4_mlx.app.chat.sessions import SessionStore
session, conversation = SessionStore(print, Path({str(store.folder)!r})).new(), Conversation()
first = conversation.begin("one", [])
session.user(first, conversation, "demo")
first.replies = [assistant_message("first")]
session.replied(first)
second = conversation.begin("two", [])
session.user(second, conversation, "demo")
session.piece(second, "the beginning")
os.kill(os.getpid(), signal.SIGKILL)
"""
    finished = subprocess.run([sys.executable, "-c", program], check=False)
    assert finished.returncode == -signal.SIGKILL
    assert texts(store.open()[1].conversation) == [("one", "first"), ("two", "the beginning")]
    assert told == ["note: the last answer was cut off; /regen has it written anew"]


def test_every_line_is_json(store):
    session = store.new()
    say(session, Conversation(), "one\r\n\x00", "first")
    assert [json.loads(line)["event"] for line in session.path.read_bytes().split(b"\n")[:-1]] == [
        "settings",
        "user",
        "replies",
    ]


def test_a_folder_that_cannot_be_written_is_no_end_of_the_chat(tmp_path, told):
    (tmp_path / "sessions").write_text("a file where the folder should be")
    session = SessionStore(told.append, tmp_path / "sessions").new()
    say(session, Conversation(), "one", "first")
    session.close()
    assert len(told) == 1
    assert os.fspath(tmp_path / "sessions") in told[0]


@pytest.fixture
def full_disk():
    """A function that fills the disk: no file can grow beyond so many bytes, and one that gives the room back."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def room(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))

    yield room
    room(None)
    signal.signal(signal.SIGXFSZ, handler)


def test_what_was_unwritten_when_another_chat_began_is_written_when_there_is_room(store, told, full_disk):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one", "first")
    full_disk(session.path.stat().st_size)
    say(session, conversation, "two", "second")
    store.put_away(session, conversation)
    assert not session.on_disk
    assert session.name in store.names()
    full_disk(None)
    store.try_again()
    assert session.on_disk
    assert "saved again" in told[-1]
    assert store.open(session.name)[1].conversation == conversation


def test_a_chat_that_is_not_on_disk_at_all_can_be_gone_on_with(store, full_disk):
    full_disk(0)
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one", "first")
    store.put_away(session, conversation)
    again, replay = store.open()
    assert (again, replay.conversation) == (session, conversation)
    full_disk(None)
    store.put_away(again, conversation)
    assert texts(store.open()[1].conversation) == [("one", "first")]


def test_leaving_says_which_chats_are_lost_and_no_others(store, told, full_disk):
    kept = store.new()
    say(kept, Conversation(), "hello", "good day")
    full_disk(0)
    session, conversation = store.new(), Conversation()
    session.name = "trip"
    say(session, conversation, "where to?", "there")
    for left, of in ((kept, Conversation()), (session, conversation)):
        store.put_away(left, of)
    del told[:]
    store.leave()
    assert told == ["error: the chat trip, which begins with “where to?”, could not be saved and is lost"]
    assert store.names() == [kept.name]


def test_a_disk_that_is_full_only_when_it_is_synced_keeps_what_is_unwritten(store, told, monkeypatch):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one", "first")

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        say(session, conversation, "two", "second")
        assert not session.on_disk
    say(session, conversation, "three", "third")
    session.close()
    assert store.open()[1].conversation == conversation


@pytest.mark.parametrize("name", ["../train", "/tmp/train", "a/b", "", ".hidden"])
def test_a_path_is_no_name_of_a_chat(store, name):
    other = store.folder.parent / "train.jsonl"
    other.write_text('{"text": "mine"}\n')
    with pytest.raises(InputError, match="cannot be called"):
        store.open(name)
    assert other.read_text() == '{"text": "mine"}\n'


@pytest.mark.parametrize("content", [b'{"text": "mine"}\n', b"half a line", b"\0" * 100 + b"\n", b"\n\n", b"[]\n1\n"])
def test_a_file_of_which_no_line_is_an_event_is_never_emptied(store, content):
    session = store.new()
    say(session, Conversation(), "one", "first")
    session.close()
    other = store.folder / "train.jsonl"
    other.write_bytes(content)
    with pytest.raises(InputError, match="holds no chat"):
        store.open("train")
    assert other.read_bytes() == content
    assert store.open()[0].name == session.name
    assert list(store.folder.glob("*.damaged")) == []


def event(**fields) -> str:
    return json.dumps(fields) + "\n"


USER = event(event="user", exchange=0, text="hello", attachments=[])
REPLY = {"role": "assistant", "content": "good day"}


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "user", "exchange": 1e999, "text": "a", "attachments": []}\n',
        '{"event": "user", "exchange": -1, "text": "a", "attachments": []}\n',
        '{"event": "user", "exchange": NaN, "text": "a", "attachments": []}\n',
        f'{{"event": "user", "exchange": {10**300}, "text": "a", "attachments": []}}\n',
        '{"event": "forgotten", "exchanges": [1e999]}\n',
        '{"event": "user", "exchange": 7, "text": ' + "[" * 100_000 + "]" * 100_000 + "}\n",
        event(event="replies", exchange=0, replies=[{"role": "tool", "content": {}}]),
        event(event="replies", exchange=0, replies=[{**REPLY, "tool_calls": "text"}]),
        event(event="replies", exchange=0, replies=[{**REPLY, "tool_calls": [{"function": {"name": "f"}}]}]),
        event(event="replies", exchange=0, replies=[{**REPLY, "reasoning_content": 3}]),
        event(event="replies", exchange=0, replies=["text"]),
        event(event="replies", exchange=0, replies=[{"role": ["assistant"], "content": "a"}]),
        '{"event": "replies", "exchange": 0, "replies": [{"role": "tool", "name": "f", "content": {"a": '
        + ("[" * 300 + "]" * 300)
        + "}}]}\n",
        event(event=["user"]),
        event(event="settings", model=None, system=3, thinking=True),
    ],
)
def test_a_strange_line_of_somebody_else_s_chat_costs_no_more_than_itself(store, tmp_path, line):
    chat = tmp_path / "friend.jsonl"
    chat.write_text(USER + event(event="replies", exchange=0, replies=[REPLY]) + line)
    assert texts(store.read_file(chat).conversation) == [("hello", "good day")]


def test_a_chat_of_very_many_lines_opens_in_seconds(store, tmp_path):
    chat = tmp_path / "friend.jsonl"
    many = "".join(event(event="user", exchange=n, text="a", attachments=[]) for n in range(1, 40_000))
    taken_back = "".join(event(event="forgotten", exchanges=[n]) for n in range(1, 40_000))
    pieces = event(event="piece", exchange=0, text="word ") * 300_000
    chat.write_text(USER + pieces + many + taken_back)
    began = time.monotonic()
    assert texts(store.read_file(chat).conversation) == [("hello", "word " * 300_000)]
    assert time.monotonic() - began < 15


def with_attachment(folder: Path, times: int = 1) -> tuple[Path, Path]:
    """A chat that names a picture so often, and where that would be."""
    data = picture().read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    named = [{"kind": "image", "name": f"{n}.png", "sha256": sha256} for n in range(times)]
    (folder / "attachments").mkdir()
    chat = folder / "friend.jsonl"
    chat.write_text(event(event="user", exchange=0, text="hello", attachments=named))
    return chat, folder / "attachments" / f"{sha256}.png"


@pytest.mark.parametrize("what", ["device", "fifo", "link", "folder", "large"])
def test_what_is_no_file_beside_a_chat_is_not_opened(store, told, tmp_path, what):
    chat, attachment = with_attachment(tmp_path)
    match what:
        case "device":
            attachment.symlink_to("/dev/zero")
        case "fifo":
            os.mkfifo(attachment)
        case "link":
            attachment.symlink_to(picture())
        case "folder":
            attachment.mkdir()
        case "large":
            with attachment.open("wb") as file:
                file.truncate(1 << 40)
    assert store.read_file(chat).conversation.exchanges[0].attachments == []
    assert told[0] == "note: 0.png could not be opened again and is left out"


def test_a_picture_that_was_sent_often_is_decoded_once(store, tmp_path):
    chat, attachment = with_attachment(tmp_path, times=40)
    attachment.write_bytes(picture().read_bytes())
    (exchange,) = store.read_file(chat).conversation.exchanges
    assert [file.name for file in exchange.attachments] == [f"{n}.png" for n in range(40)]
    assert len({id(file.content) for file in exchange.attachments}) == 1


@pytest.mark.parametrize("what", ["device", "fifo", "large"])
def test_a_chat_that_is_no_file_or_too_large_is_refused_at_once(store, tmp_path, what):
    chat = tmp_path / "friend.jsonl"
    if what == "device":
        chat.symlink_to("/dev/zero")
    elif what == "fifo":
        os.mkfifo(chat)
    else:
        with chat.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(OSError, match=r"regular|larger"):
        store.read_file(chat)
