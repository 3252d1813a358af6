"""What is forgotten or deleted leaves the disk: files of chats, attachments, history; after any end, on a full disk."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gemma4_mlx.app.chat.conversation import Conversation
from gemma4_mlx.app.chat.session import PrivateSession, Session
from gemma4_mlx.app.chat.sessions import SessionStore
from gemma4_mlx.app.line.attachments import Attachment, open_attachment
from gemma4_mlx.app.line.history_file import HistoryFile, Place
from gemma4_mlx.app.messages import assistant_message
from PIL import Image

from gemma4_mlx.errors import InputError

SECRET = "xyzzy"
NEWER = ("session.py", "session_files.py", "history_file.py", "whole_file.py")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path, told) -> SessionStore:
    return SessionStore(told.append, tmp_path / "sessions")


@pytest.fixture
def history(tmp_path) -> HistoryFile:
    return HistoryFile(tmp_path / "chat-history")


def say(session: Session, conversation: Conversation, text: str, answer: str | None = "yes", attachments=()) -> None:
    exchange = conversation.begin(text, list(attachments))
    session.user(exchange, conversation, "demo")
    if answer is not None:
        exchange.replies = [assistant_message(answer)]
        session.replied(exchange)


def forget(session: Session, conversation: Conversation, *numbers: int, typed: bool = True) -> None:
    gone = [exchange for exchange in conversation.exchanges if exchange.number in numbers]
    conversation.drop(gone)
    session.forgotten(gone, typed)


def sample(colour: str) -> Attachment:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(stream, "PNG")
    return open_attachment(stream.getvalue(), "image", f"{colour}.png")


def texts(conversation: Conversation) -> list[str]:
    return [exchange.text for exchange in conversation.exchanges]


def kept(store: SessionStore) -> int:
    """How many attachments are on disk."""
    return len(list((store.folder / "attachments").iterdir()))


def holding(folder: Path, secret: str = SECRET) -> list[Path]:
    """The files, of all that is below a folder, that hold a word, or are called so."""
    return [
        file
        for file in folder.rglob("*")
        if secret in file.name or (file.is_file() and secret.encode() in file.read_bytes())
    ]


def test_what_is_forgotten_is_in_no_file_and_the_rest_is_as_it_was(store, history, tmp_path):
    session, conversation = store.new(), Conversation(system="be brief")
    history.add(f"my word is {SECRET}", session.place(conversation))
    say(session, conversation, f"my word is {SECRET}", f"{SECRET}, I see")
    history.add("and now?", session.place(conversation))
    say(session, conversation, "and now?", "now what?")
    forget(session, conversation, 0)
    assert holding(tmp_path) == []
    assert history.lines() == ["and now?"]
    say(session, conversation, "third")
    session.close()
    _, replay = store.open()
    assert replay.conversation == conversation
    assert stat.S_IMODE(session.path.stat().st_mode) == 0o600


def test_an_undone_message_leaves_the_chat_s_file_and_stays_for_the_arrow_keys(store, history, tmp_path):
    session, conversation = store.new(), Conversation()
    history.add(f"my word is {SECRET}", session.place(conversation))
    say(session, conversation, f"my word is {SECRET}", f"{SECRET}, I see")
    forget(session, conversation, 0, typed=False)
    assert holding(tmp_path) == [history.path]


def test_answers_and_instructions_that_others_came_in_place_of_go_with_what_is_forgotten(store, tmp_path):
    session, conversation = store.new(), Conversation(system=f"say {SECRET}")
    say(session, conversation, "one")
    say(session, conversation, "two", f"{SECRET}!")
    conversation.system = "be brief"
    session.settings(conversation, "demo")
    session.again(conversation.exchanges[1])
    conversation.exchanges[1].replies = [assistant_message("no")]
    session.replied(conversation.exchanges[1])
    forget(session, conversation, 0)
    assert holding(tmp_path) == []
    session.close()
    assert store.open()[1].conversation == conversation


def test_the_answer_that_another_is_to_come_in_place_of_survives_forgetting(store):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one")
    say(session, conversation, "two", "the old answer")
    session.again(conversation.exchanges[1])
    forget(session, conversation, 0)
    session.close()
    assert store.open()[1].conversation.exchanges[0].answer == "the old answer"


def test_attachments_go_unless_something_that_stays_needs_them(store):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one", attachments=[sample("red"), sample("blue"), sample("green")])
    say(session, conversation, "two", attachments=[sample("blue")])
    other, another = store.new(), Conversation()
    say(other, another, "three", attachments=[sample("green")])
    forget(session, conversation, 0)
    assert kept(store) == 2
    for opened, expected in ((session, "blue.png"), (other, "green.png")):
        opened.close()
        _, replay = store.open(opened.name)
        assert [file.name for exchange in replay.conversation.exchanges for file in exchange.attachments] == [expected]


def test_an_attachment_whose_message_is_not_on_disk_yet_is_not_swept_away(store, told, full_disk):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one")
    red = sample("red")
    full_disk(session.path.stat().st_size)
    assert len(red.data) < session.path.stat().st_size
    say(session, conversation, "two " * 100, attachments=[red])
    full_disk(None)
    other, another = store.new(), Conversation()
    say(other, another, "three")
    forget(other, another, 0)
    say(session, conversation, "four")
    session.close()
    _, replay = store.open(session.name)
    assert [file.name for file in replay.conversation.exchanges[1].attachments] == ["red.png"]


@pytest.mark.parametrize("spelled", [f" my word   is {SECRET}", f'"""\nmy word is\n{SECRET}\n"""'])
def test_lines_of_earlier_versions_go_by_their_words(store, history, tmp_path, spelled):
    plus = "".join(f"+{line}\n" for line in spelled.split("\n"))
    history.path.write_text(f"\n# 2026-11-01 10:00:00\n{plus}\n# 2026-11-01 10:01:00\n+other words\n")
    session, conversation = store.new(), Conversation()
    say(session, conversation, spelled.strip('" \n'))
    forget(session, conversation, 0)
    assert holding(tmp_path) == []
    assert history.lines() == ["other words"]


def test_the_same_words_typed_in_another_chat_stay_there(store, history):
    session, conversation = store.new(), Conversation()
    history.add("hello", Place("0" * 16, 0))
    history.add("hello", session.place(conversation))
    say(session, conversation, "hello")
    forget(session, conversation, 0)
    assert history.lines() == ["hello"]


def old_session(folder: Path) -> Path:
    """What earlier versions wrote: no id, and what was forgotten is in the file."""
    path = folder / "old.jsonl"
    path.parent.mkdir()
    events = [
        {"event": "settings", "model": "demo", "system": None, "thinking": False},
        {"event": "user", "exchange": 0, "text": f"my word is {SECRET}", "attachments": []},
        {"event": "replies", "exchange": 0, "replies": [assistant_message("I see")]},
        {"event": "forgotten", "exchanges": [0]},
        {"event": "user", "exchange": 1, "text": "two", "attachments": []},
        {"event": "replies", "exchange": 1, "replies": [assistant_message("no")]},
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def test_a_session_of_an_earlier_version_opens_and_loses_what_was_forgotten_then(store, told, tmp_path):
    path = old_session(store.folder)
    session, replay = store.open("old")
    assert texts(replay.conversation) == ["two"]
    assert holding(tmp_path) == []
    say(session, replay.conversation, "three")
    session.close()
    assert texts(store.open("old")[1].conversation) == ["two", "three"]
    assert json.loads(path.read_text().splitlines()[0])["event"] == "settings"
    assert told == []


def test_a_damaged_copy_goes_when_something_of_its_chat_is_forgotten(store, tmp_path):
    session, conversation = store.new(), Conversation()
    session.name = "trip"
    say(session, conversation, f"my word is {SECRET}")
    say(session, conversation, "two")
    session.close()
    session.path.write_bytes(session.path.read_bytes() + b"rubbish\n")
    (store.folder / "trip 2.damaged").write_text("of another chat")
    session, replay = store.open("trip")
    assert (store.folder / "trip.damaged").exists()
    session.rename("Rome")
    forget(session, replay.conversation, 0)
    assert holding(tmp_path) == []
    assert [file.name for file in store.folder.glob("*.damaged")] == ["trip 2.damaged"]


@pytest.fixture
def full_disk():
    """A function that fills the disk: no file can grow beyond so many bytes; None gives the room back."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def room(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))

    yield room
    room(None)
    signal.signal(signal.SIGXFSZ, handler)


def test_on_a_full_disk_forgetting_is_said_to_fail_and_is_done_when_there_is_room(store, told, tmp_path, full_disk):
    session, conversation = store.new(), Conversation()
    for text in (f"my word is {SECRET}", "two " * 50):
        say(session, conversation, text)
    for size, more in ((10, 1), (session.path.stat().st_size, 0)):  # no room, then only for what is there
        full_disk(size)
        forget(session, conversation, *(exchange.number for exchange in conversation.exchanges[:more]))
        say(session, conversation, "three")
    assert len(told) == 1
    assert session.holds_forgotten
    assert holding(tmp_path) == [session.path]
    full_disk(None)
    assert session.close()
    assert holding(tmp_path) == []
    assert "saved again" in told[1]
    assert store.open()[1].conversation == conversation


def test_who_leaves_with_a_full_disk_is_told_what_is_still_there(store, told, tmp_path, full_disk):
    session, conversation = store.new(), Conversation()
    say(session, conversation, f"my word is {SECRET}")
    say(session, conversation, "two " * 500)
    full_disk(session.path.stat().st_size // 2)
    forget(session, conversation, 0)
    store.put_away(session, conversation)
    store.leave()
    assert told[1] == f"error: what was forgotten of the chat {session.name} is still on disk: forget it there again"
    assert "could not be saved" in told[2]


def test_what_could_only_be_marked_as_forgotten_goes_when_the_chat_is_opened_again(
    store, history, told, tmp_path, full_disk
):
    session, conversation = store.new(), Conversation()
    for number in range(100):
        history.add("other words", Place("0" * 16, number))
    history.add(f"my word is {SECRET}", session.place(conversation))
    say(session, conversation, f"my word is {SECRET}")
    full_disk(history.path.stat().st_size // 2)  # room for the chat, none for the lines
    forget(session, conversation, 0)
    store.put_away(session, conversation)
    store.leave()
    assert "it goes when that is opened again" in told[-1]
    full_disk(None)
    assert texts(store.open()[1].conversation) == []
    assert holding(tmp_path) == []
    assert history.lines() == ["other words"] * 100


def steps_of(action) -> int:
    """How many lines of the package's own code an action runs through."""
    return _at_line(None, action)


def _at_line(number: int | None, action) -> int:
    count = 0

    def on_line(frame, event, _):
        nonlocal count
        if event == "line":
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: on_line if frame.f_code.co_filename.endswith(NEWER) else None)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def killed_at(number: int, action) -> None:
    """Run an action in a process of its own and kill that before the n-th line of the package's code.

    Or after five seconds, at any other: a fork of a process with threads may hang before it begins.
    """
    child = os.fork()
    if child == 0:
        _at_line(number, action)
        os._exit(0)
    deadline = time.monotonic() + 5
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def prepared(folder: Path) -> tuple[SessionStore, HistoryFile]:
    store, history = SessionStore(lambda _: None, folder / "sessions"), HistoryFile(folder / "chat-history")
    session, conversation = store.new(), Conversation()
    session.name = "trip"
    for text, colour in ((f"my word is {SECRET}", "red"), ("two", "blue")):
        history.add(text, session.place(conversation))
        say(session, conversation, text, attachments=[sample(colour)])
    session.close()
    return store, history


def opened_and_forgotten(store: SessionStore) -> None:
    session, replay = store.open("trip")
    forget(session, replay.conversation, 0)
    session.close()


def test_kill_9_at_any_moment_of_forgetting_leaves_the_old_chat_or_the_new_one(tmp_path):
    (tmp_path / "0").mkdir()
    total = steps_of(lambda: opened_and_forgotten(prepared(tmp_path / "0")[0]))
    ends = set()
    for run, at in enumerate(range(1, total, max(1, total // 60)), 1):
        folder = tmp_path / str(run)
        folder.mkdir()
        store, history = prepared(folder)
        killed_at(at, lambda store=store: opened_and_forgotten(store))
        session, replay = store.open("trip")
        conversation = replay.conversation
        ends.add(tuple(texts(conversation)))
        assert [len(exchange.attachments) for exchange in conversation.exchanges] == [1] * len(conversation.exchanges)
        if len(conversation.exchanges) == 1:
            assert holding(folder) == []
            assert kept(store) == 1
            assert history.lines() == ["two"]
        forget(session, conversation, 0)
        session.close()
        assert [file.name for file in folder.rglob(".*")] == []
        assert holding(folder) == []
    assert ends == {(f"my word is {SECRET}", "two"), ("two",)}


def test_kill_9_at_any_moment_of_deleting_leaves_a_chat_that_can_be_deleted_or_none(tmp_path):
    (tmp_path / "0").mkdir()
    total = steps_of(lambda: prepared(tmp_path / "0")[0].delete("trip"))
    for run, at in enumerate(range(1, total, max(1, total // 30)), 1):
        folder = tmp_path / str(run)
        folder.mkdir()
        store, history = prepared(folder)
        killed_at(at, lambda store=store: store.delete("trip"))
        if "trip" in store.names():
            store.delete("trip")
        assert holding(folder) == []
        assert kept(store) == 0
        assert history.lines() == []


def test_a_deleted_chat_takes_its_attachments_and_lines_along_and_leaves_those_of_others(store, history, tmp_path):
    trip, conversation = store.new(), Conversation()
    history.add(f"/system {SECRET}", trip.place(conversation))
    say(trip, conversation, "one", attachments=[sample("red"), sample("blue")])
    trip.rename(f"to {SECRET}")
    trip.close()
    other, another = store.new(), Conversation()
    history.add("hello", other.place(another))
    say(other, another, "hello", attachments=[sample("blue")])
    store.delete(f"to {SECRET}")
    assert holding(tmp_path) == []
    assert kept(store) == 1
    assert history.lines() == ["hello"]
    other.close()
    assert store.open()[1].conversation == another


def test_an_open_chat_a_missing_one_and_a_file_that_is_none_are_not_deleted(store, tmp_path):
    session = store.new()
    say(session, Conversation(), "one")
    with pytest.raises(InputError, match="is open in another chat: close it there first"):
        store.delete(session.name)
    (store.folder / "train.jsonl").write_text('{"text": "mine"}\n')
    with pytest.raises(InputError, match="holds no chat"):
        store.delete("train")
    for name in ("nothing", "../train"):
        with pytest.raises(InputError):
            store.delete(name)
    assert session.path.exists()
    assert (store.folder / "train.jsonl").read_text() == '{"text": "mine"}\n'


def test_a_chat_that_could_not_be_written_yet_can_be_deleted(store, told, tmp_path, full_disk):
    full_disk(0)
    session, conversation = store.new(), Conversation()
    say(session, conversation, f"my word is {SECRET}")
    store.put_away(session, conversation)
    store.delete(session.name)
    full_disk(None)
    store.leave()
    assert store.names() == []
    assert holding(tmp_path) == []


def test_a_chat_that_is_kept_elsewhere_by_a_link_is_forgotten_and_deleted_there(store, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    session, conversation = store.new(), Conversation()
    session.name = "trip"
    for text in (f"my word is {SECRET}", "two"):
        say(session, conversation, text)
    session.close()
    session.path.rename(elsewhere / "trip.jsonl")
    session.path.symlink_to(elsewhere / "trip.jsonl")
    session, replay = store.open("trip")
    forget(session, replay.conversation, 0)
    assert session.path.is_symlink()
    assert holding(tmp_path) == []
    session.close()
    store.delete("trip")
    assert list(elsewhere.iterdir()) == []
    assert store.names() == []


def test_who_waits_for_a_file_that_is_replaced_gets_the_new_one(store):
    session, conversation = store.new(), Conversation()
    say(session, conversation, "one")
    say(session, conversation, "two")
    inode = session.path.stat().st_ino
    forget(session, conversation, 0)
    assert session.path.stat().st_ino != inode
    with pytest.raises(InputError, match="open in another chat"):
        store.open(session.name)
    say(session, conversation, "three")
    session.close()
    assert texts(store.open()[1].conversation) == ["two", "three"]


def test_many_chats_add_lines_while_others_are_taken_out_and_none_is_lost(history, tmp_path):
    program = f"""
import sys
from pathlib import Path
from gemma4_mlx.app.line.history_file import HistoryFile, Place
history = HistoryFile(Path({str(history.path)!r}))
for number in range(200):
    history.add(f"line {{number}}", Place(sys.argv[1] * 16, 0))
"""
    others = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "ab"]
    over = threading.Event()

    def add_and_forget() -> None:
        while not over.is_set():
            history.add(SECRET, Place("c" * 16, 3))
            history.forget("c" * 16, {3}, [])

    forgetting = threading.Thread(target=add_and_forget)
    forgetting.start()
    codes = [other.wait() for other in others]
    over.set()
    forgetting.join()
    assert codes == [0, 0]
    assert sorted(history.lines()) == sorted([f"line {number}" for number in range(200)] * 2)
    assert stat.S_IMODE(history.path.stat().st_mode) == 0o600
    assert holding(tmp_path) == []


def test_a_history_that_everybody_could_read_is_its_owner_s_after_the_next_line(history):
    history.path.write_text("\n# 2026-11-01 10:00:00\n+old\n")
    history.path.chmod(0o644)
    history.add("new\nlines", Place("a" * 16, 0))
    assert history.lines() == ["old", "new\nlines"]
    assert stat.S_IMODE(history.path.stat().st_mode) == 0o600


def snapshot(folder: Path) -> dict[Path, tuple[int, int, bytes]]:
    return {
        file: (file.stat().st_mtime_ns, file.stat().st_ino, file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_a_private_chat_reads_a_saved_one_and_leaves_everything_as_it_is(store, told, tmp_path):
    old_session(store.folder)
    session, conversation = store.new(), Conversation()
    session.name = "trip"
    say(session, conversation, "one", attachments=[sample("red")])
    with session.path.open("ab") as file:
        file.write(b'half a line, and the chat is open elsewhere{"event"')
    before = snapshot(tmp_path)
    private = SessionStore(told.append, store.folder, private=True)
    for name in ("trip", "old", None):
        reading, replay = private.open(name)
        assert isinstance(reading, PrivateSession)
        assert replay.conversation.exchanges
        say(reading, replay.conversation, SECRET, attachments=[sample("blue")])
        reading.again(replay.conversation.exchanges[-1])
        forget(reading, replay.conversation, 0)
        private.put_away(reading, replay.conversation)
    fresh = private.new()
    say(fresh, Conversation(), SECRET)
    private.leave()
    assert snapshot(tmp_path) == before
    assert told == [
        f"note: {name} is read and stays as it is: this chat is private" for name in ("trip", "old", "trip")
    ]
