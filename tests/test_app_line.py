"""The chat's line: keys, paste, tokens for attachments, completion, history. A pipe stands for the keyboard."""

from __future__ import annotations

import dataclasses
import io
import shutil
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gemma4_mlx.app.line import line_editor, line_input
from gemma4_mlx.app.line.line_completion import LineCompleter
from gemma4_mlx.app.line.line_editor import fitted
from gemma4_mlx.app.line.line_input import InputLine, Typed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from command_line import picture
from gemma4_mlx.errors import InputError

CTRL_J, CTRL_O, CTRL_T, SHIFT_ENTER = "\n", "\x0f", "\x14", "\x1b[13;2u"
ENTER, ALT_ENTER, BACKSPACE, LEFT, UP, UNDO = "\r", "\x1b\r", "\x7f", "\x1b[D", "\x1b[A", "\x1f"
CTRL_C, CTRL_D, CTRL_G, CTRL_R, CTRL_U, CTRL_V, CTRL_W = "\x03", "\x04", "\x07", "\x12", "\x15", "\x16", "\x17"


@dataclasses.dataclass(frozen=True)
class Command:
    name: str
    argument: str
    help: str = "what it does"


COMMANDS = [
    Command("/image", "FILE"),
    Command("/think", "on|off|show|hide"),
    Command("/translate", "LANGUAGE"),
    Command("/undo", ""),
]


def pasted(text: object) -> str:
    return f"\x1b[200~{text}\x1b[201~"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("cat.png", "two cats.png", "it's.png"):
        shutil.copy(picture(), tmp_path / name)
    (tmp_path / "notes.md").write_text("# Notes\nto take\n")
    (tmp_path / "fake.jpg").write_text("just words")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLORTERM", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    output = DummyOutput()
    monkeypatch.setattr(line_input, "edits_lines", lambda: True)
    monkeypatch.setattr(line_editor, "steady_output", lambda: output)
    with create_pipe_input() as keys, create_app_session(input=keys, output=output):
        yield keys


@pytest.fixture
def line(folder: Path, keyboard: PipeInput) -> InputLine:
    return InputLine(COMMANDS, lambda: "e2b · 12 tokens")


def names(typed: Typed) -> list[str]:
    return [attachment.name for attachment in typed.attachments]


def test_a_dropped_picture_becomes_a_token_and_goes_with_the_words(line, keyboard, folder):
    keyboard.send_text("what is " + pasted(f"{folder}/two\\ cats.png ") + "about?" + ENTER)
    typed = line.read()
    assert (typed.text, names(typed)) == ("what is about?", ["two cats.png"])


def test_one_backspace_deletes_a_whole_token_and_an_undo_brings_it_back(line, keyboard, folder):
    keyboard.send_text("a" + pasted(folder / "cat.png") + pasted(folder / "it's.png") + BACKSPACE + "b" + ENTER)
    typed = line.read()
    assert (typed.text, names(typed)) == ("a b", ["cat.png"])
    keyboard.send_text(pasted(folder / "cat.png") + BACKSPACE + UNDO + ENTER)
    assert names(line.read()) == ["cat.png"]


def test_the_cursor_goes_over_a_token_in_one_step(line, keyboard, folder):
    keyboard.send_text("a " + pasted(folder / "cat.png") + LEFT + "b" + LEFT + BACKSPACE + ENTER)
    typed = line.read()
    assert (typed.text, names(typed)) == ("ab", ["cat.png"])


def test_several_files_are_dropped_at_once_in_their_order(line, keyboard, folder):
    keyboard.send_text(pasted(f"{folder}/it's.png\n{folder}/notes.md\n{folder}/cat.png") + "compare" + ENTER)
    typed = line.read()
    assert (typed.text, names(typed)) == ("compare", ["it's.png", "notes.md", "cat.png"])


def test_a_file_is_read_when_it_is_dropped_because_it_may_be_gone_a_second_later(line, keyboard, folder):
    line_with_picture = InputLine(COMMANDS, str)
    (attachment,) = line_with_picture.dropped(str(folder / "cat.png")).attachments
    (folder / "cat.png").unlink()
    assert attachment.data == picture().read_bytes()
    assert attachment.part()["image"].source.size == (120, 90)


def test_a_path_that_is_typed_is_found_when_the_line_is_sent(line, keyboard, folder):
    keyboard.send_text(f"what's in {folder}/two\\ cats.png, then?{ENTER}")
    typed = line.read()
    assert (typed.text, names(typed)) == (f"what's in {folder}/two\\ cats.png, then?", ["two cats.png"])


def test_a_path_that_begins_with_a_slash_is_no_command_and_a_command_takes_its_path_as_typed(line, keyboard, folder):
    keyboard.send_text(f"{folder}/cat.png{ENTER}")
    assert names(line.read()) == ["cat.png"]
    keyboard.send_text("/image " + pasted(f"{folder}/two\\ cats.png ") + ENTER)
    assert line.read() == Typed(f"/image {folder}/two\\ cats.png ")


def test_a_pasted_sentence_stays_one_and_its_lines_stay_lines(line, keyboard):
    keyboard.send_text(pasted("first\r\nsecond\x1b[31m red\x1b[0m\x07") + ENTER)
    assert line.read() == Typed("first\nsecond red")


@pytest.mark.parametrize("rubbish", [b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"caf\xe9"])
def test_binary_is_refused_and_the_line_stays(line, keyboard, capsys, rubbish):
    keyboard.send_bytes(b"before \x1b[200~" + rubbish + b"\x1b[201~after\r")
    assert line.read() == Typed("before after")
    assert "what was pasted is not text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dropped", "said", "words"),
    [
        ("{folder}/gone.png", "not attached: {folder}/gone.png does not exist", "hello {folder}/gone.png"),
        ("{folder}", "not attached: {folder} is a folder", "hello {folder}"),
        ("{folder}/fake.jpg", "fake.jpg is not a picture", "hello "),
    ],
)
def test_a_drop_that_cannot_be_attached_is_named_and_what_may_be_words_stays(
    line, keyboard, folder, capsys, dropped, said, words
):
    keyboard.send_text("hello " + pasted(dropped.format(folder=folder)) + ENTER)
    assert line.read() == Typed(words.format(folder=folder))
    assert said.format(folder=folder) in capsys.readouterr().err


def test_a_typed_path_of_nothing_is_words(line, keyboard, folder, capsys):
    keyboard.send_text(f"{folder}/gone.png{ENTER}")
    assert line.read() == Typed(f"{folder}/gone.png")
    assert capsys.readouterr().err == ""


def test_several_lines_are_typed_with_alt_enter_or_within_triple_quotes(line, keyboard):
    keyboard.send_text(f"one{ALT_ENTER}two{ENTER}")
    assert line.read().text == "one\ntwo"
    keyboard.send_text(f'"""one{ENTER}two{ENTER}"""{ENTER}')
    assert line.read().text == "one\ntwo"


def test_ctrl_c_clears_the_line_and_leaves_an_empty_one_and_ctrl_d_ends_it(line, keyboard):
    keyboard.send_text(f"half a thought{CTRL_C}whole{ENTER}")
    assert line.read() == Typed("whole")
    keyboard.send_text(CTRL_C)
    with pytest.raises(KeyboardInterrupt):
        line.read()
    keyboard.send_text(CTRL_D)
    with pytest.raises(EOFError):
        line.read()


def test_ctrl_r_listens_and_what_was_typed_comes_back_before_what_was_heard(line, keyboard, folder):
    keyboard.send_text("Dear " + pasted(folder / "cat.png") + CTRL_R)
    assert line.read() == Typed("/listen")
    keyboard.send_text(ENTER)
    typed = line.read("how are you?")
    assert (typed.text, names(typed)) == ("Dear how are you?", ["cat.png"])


def test_what_is_prefilled_can_be_edited(line, keyboard, folder):
    (attachment,) = line.dropped(str(folder / "cat.png")).attachments
    keyboard.send_text(BACKSPACE + "!" + ENTER)
    assert line.read("again?", [attachment]) == Typed("again!", [attachment])


@pytest.mark.parametrize("message", ["/undo that, will you", '"""What it is for.', "/image cat.png"])
def test_a_message_that_is_prefilled_stays_one(line, keyboard, folder, message):
    keyboard.send_text(ENTER)
    assert line.read(message) == Typed(" " + message)
    assert not line.is_command(" " + message)


def test_a_prefilled_message_attaches_nothing_anew(line, keyboard, folder):
    keyboard.send_text(ENTER)
    assert line.read("look at ./cat.png") == Typed("look at ./cat.png")


def test_earlier_lines_come_back_also_in_the_next_chat_with_their_files(line, keyboard, folder):
    keyboard.send_text("look " + pasted(folder / "two cats.png") + ENTER)
    line.read()
    keyboard.send_text(UP + ENTER)
    assert names(InputLine(COMMANDS, str).read()) == ["two cats.png"]
    mode = stat.S_IMODE((folder / "data" / "gemma4-mlx" / "chat-history").stat().st_mode)
    assert mode == 0o600


def test_a_history_that_cannot_be_written_is_said_once_and_lines_still_come(line, keyboard, folder, capsys):
    (folder / "data").write_text("a file where a folder should be")
    keyboard.send_text(f"one{ENTER}")
    assert line.read() == Typed("one")
    keyboard.send_text(f"{UP}{ENTER}")
    assert line.read() == Typed("one")
    assert capsys.readouterr().err.count("what you type is not remembered") == 1


def test_an_editor_gets_tokens_as_words_and_gives_back_those_that_were_left(line, keyboard, folder, monkeypatch):
    editor = folder / "editor"
    # sed's -i is not the same on a Mac.
    edits = "s/\\[image 1: [^]]*\\]//; s/see/look at/"
    editor.write_text(f'#!/bin/sh\nsed \'{edits}\' "$1" > "$1.edited" && mv "$1.edited" "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    keyboard.send_text("see " + pasted(folder / "cat.png") + pasted(folder / "it's.png") + CTRL_G)
    threading.Timer(1.0, lambda: keyboard.send_text("!" + ENTER)).start()
    typed = line.read()
    assert (typed.text, names(typed)) == ("look at !", ["it's.png"])


def test_a_token_says_what_it_is_and_what_it_takes_of_the_context_as_chosen_now(folder):
    budget = [280]
    line = InputLine(COMMANDS, str, image_tokens=lambda: budget[0])
    tokens = line._tokens.add(line.dropped(f"{folder}/cat.png\n{folder}/notes.md\n{folder}/it's.png").attachments)
    assert list(line._tokens.labels(tokens).values()) == [
        "[image 1: cat.png 120×90 → 266 tokens]",
        "[text 1: notes.md 2 lines]",
        "[image 2: it's.png 120×90 → 266 tokens]",
    ]
    budget[0] = 1120
    assert "cat.png 120×90 → 1,064 tokens" in line._tokens.labels(tokens)[tokens[0]]


MESSAGES = [
    "// TODO: say why",
    "/* a comment */",
    "//",
    "/usr/bin/x is broken",
    "/usr/bin /usr/lib",
    "/helpless",
    "/undo: what does that do?",
    "/image\nof a cat",
    " /undo",
    "./a.png or ./b.png",
    "/no/such/a.png",
    "error in /no/such/main.py",
    "make: *** [/build/x.o] Error 1",
    "C:\\Users\\me\\cat.png",
    "'",
    "~nobody/cat.png",
]


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("way", [str, pasted], ids=["typed", "pasted"])
def test_what_is_no_commands_name_and_no_file_is_a_message(line, keyboard, message, way):
    keyboard.send_text(way(message.replace("\n", CTRL_J)) + ENTER)
    typed = line.read()
    assert (typed.text, typed.attachments) == (message, [])
    assert not line.is_command(message)


@pytest.mark.parametrize("message", ["/undo", "/image cat.png", "/undo\nall of it", "/think on"])
def test_a_command_is_typed_and_never_pasted_nor_in_a_block(line, keyboard, monkeypatch, message):
    keyboard.send_text(pasted(message) + ENTER)
    assert (line.read().text.strip(), line.is_command(" " + message)) == (message, False)
    keyboard.send_text(f'"""{message.replace(chr(10), ENTER)}"""{ENTER}')
    block = line.read()
    assert (block.text, block.literal, block.attachments) == (message, True, [])
    keyboard.send_text(UP + UP + ENTER)  # nor when it comes back
    assert line.read().text.strip() == message


def test_a_pasted_docstring_opens_no_block(line, keyboard):
    keyboard.send_text(pasted('"""What it is for.\n\nimport os') + ENTER)
    assert line.read().text == ' """What it is for.\n\nimport os'


def test_a_block_that_a_pipe_does_not_close_is_sent_as_it_stands(folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Pipe(b'"""never\nclosed'))
    assert InputLine(COMMANDS, str).read() == Typed('"""never\nclosed')


def test_typed_names_go_along_and_the_words_stay_as_they_are(line, keyboard, folder):
    keyboard.send_text(f"./cat.png or './two cats.png', or ./gone.png?{ENTER}")
    typed = line.read()
    assert (typed.text, names(typed)) == ("./cat.png or './two cats.png', or ./gone.png?", ["cat.png", "two cats.png"])


def test_a_file_that_a_sentence_names_and_that_is_broken_is_named_and_the_sentence_is_sent(
    line, keyboard, folder, capsys
):
    keyboard.send_text(f"why is ./fake.jpg broken?{ENTER}")
    assert line.read() == Typed("why is ./fake.jpg broken?")
    assert "not attached: " in capsys.readouterr().err


def test_a_broken_file_that_is_all_there_is_waits_for_a_second_enter(line, keyboard, folder, capsys):
    keyboard.send_text(f"fake.jpg{ENTER}{ENTER}")
    assert line.read() == Typed("fake.jpg")
    assert "fake.jpg is not a picture" in capsys.readouterr().err


def test_of_thirty_pictures_one_is_broken_and_the_others_share_a_label(line, keyboard, folder, capsys):
    paths = [shutil.copy(picture(), folder / f"{number}.png") for number in range(29)]
    keyboard.send_text(pasted("\n".join(map(str, [*paths[:7], folder / "fake.jpg", *paths[7:]]))) + "compare" + ENTER)
    typed = line.read()
    assert (typed.text, names(typed)) == ("compare", [f"{number}.png" for number in range(29)])
    assert "fake.jpg is not a picture" in capsys.readouterr().err
    label, *more = line._tokens.labels(line._tokens.add(typed.attachments)).values()
    assert (label, more) == ("[29 pictures, 7,714 tokens]", [])


def test_files_of_a_shared_label_are_deleted_together_and_opened_one_by_one(line, keyboard, folder):
    paths = [shutil.copy(picture(), folder / f"{number}.png") for number in range(6)]
    drop = pasted("\n".join(map(str, paths)))
    keyboard.send_text("a" + drop + BACKSPACE + ENTER)
    assert line.read() == Typed("a")
    keyboard.send_text(drop + CTRL_O + BACKSPACE + ENTER)
    assert names(line.read()) == [f"{number}.png" for number in range(5)]


LONG = "".join(f"line {number}\n" for number in range(1_400))


def test_a_long_paste_is_one_label_and_is_sent_whole(line, keyboard):
    keyboard.send_text("see " + pasted(LONG) + "why?" + ENTER)
    assert line.read().text == f"see {LONG}why?"
    assert list(line._tokens.labels(line._tokens.add_pasted(LONG)).values()) == ["[pasted 1,400 lines]"]
    assert list(line._tokens.labels(line._tokens.add_pasted("x" * 2_000)).values()) == ["[pasted 2,000 characters]"]


def test_a_long_paste_is_opened_and_edited_or_deleted_at_once(line, keyboard):
    keyboard.send_text(pasted(LONG + "end") + CTRL_O + BACKSPACE * 3 + ENTER)
    assert line.read().text == LONG
    keyboard.send_text("a" + pasted(LONG) + BACKSPACE + ENTER)
    assert line.read().text == "a"


@pytest.mark.parametrize("text", [f"/undo all\n{LONG}", f'"""{LONG}'])
def test_a_long_paste_is_no_command_and_no_block_also_in_the_next_chat(line, keyboard, text):
    keyboard.send_text(pasted(text) + ENTER)
    assert line.read().text == text
    keyboard.send_text(UP + ENTER)
    again = InputLine(COMMANDS, str).read()
    assert again.text == text
    assert again.literal or not text.startswith("/")


def test_what_a_pasted_text_names_is_offered_and_not_attached_by_itself(line, keyboard, folder):
    secret = folder / "credentials.txt"
    secret.write_text("hush")
    prompt = f"Tidy up this text, and mind ~/credentials.txt and {folder}/cat.png."
    keyboard.send_text(pasted(prompt) + ENTER)
    assert line.read() == Typed(prompt)
    keyboard.send_text(UP + ENTER)
    assert line.read() == Typed(prompt)
    keyboard.send_text(pasted(prompt) + " Then " + pasted("some more") + CTRL_T + ENTER)
    typed = line.read()
    assert (typed.text, names(typed)) == (f"{prompt} Then some more", ["credentials.txt", "cat.png"])


def test_a_name_that_is_typed_next_to_a_paste_goes_along(line, keyboard, folder):
    keyboard.send_text(pasted(f"mind {folder}/cat.png") + " and ./two\\ cats.png too" + ENTER)
    assert names(line.read()) == ["two cats.png"]


def test_a_name_that_was_copied_goes_along_and_stays_in_the_words(line, keyboard, folder):
    keyboard.send_text("what is in " + pasted("cat.png") + "?" + ENTER)
    typed = line.read()
    assert (typed.text, names(typed)) == ("what is in cat.png?", ["cat.png"])


def test_files_of_an_earlier_chat_that_are_gone_are_named_and_the_words_stay(line, keyboard, folder, capsys):
    keyboard.send_text("look " + pasted(folder / "two cats.png") + ENTER)
    line.read()
    (folder / "two cats.png").unlink()
    keyboard.send_text(UP + ENTER + "?" + ENTER)
    assert InputLine(COMMANDS, str).read() == Typed("look ?")
    assert "two cats.png does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("key", [CTRL_J, *(f"\x1b[13;{n}u" for n in range(2, 9)), "\x1b[27;2;13~", "\x1b[27;5;13~"])
def test_keys_that_begin_a_new_line(line, keyboard, key):
    keyboard.send_text(f"one{key}two{ENTER}")
    assert line.read().text == "one\ntwo"


def test_everything_that_is_pasted_is_sent_as_it_stands(folder, keyboard):
    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Co"]) | st.sampled_from("\n\t /\"'")))
    def sent(text):
        keyboard.send_text("a" + pasted(text) + "z" + ENTER)
        assert line.read().text == f"a{text}z"

    line = InputLine(COMMANDS, str)
    sent()


def completed(text: str, by_tab: bool = True) -> list[str]:
    completer = LineCompleter(COMMANDS)
    event = CompleteEvent(completion_requested=by_tab, text_inserted=not by_tab)
    return [completion.text for completion in completer.get_completions(Document(text), event)]


@pytest.mark.parametrize(
    ("typed", "choices"),
    [
        ("/", ["/image", "/think", "/translate", "/undo"]),
        ("/t", ["/think", "/translate"]),
        ("/think ", ["on", "off", "show", "hide"]),
        ("/think o", ["on", "off"]),
        ("/translate fr", ["French"]),
        ("/image tw", ["two\\ cats.png"]),
        ("/image ./", ["cat.png", "fake.jpg", "it\\'s.png", "notes.md", "two\\ cats.png"]),
        ("/undo ", []),
        ("look at ./ca", ["cat.png"]),
        ("look at ./two\\ c", ["two\\ cats.png"]),
        ("look at ca", []),
        ("look at /no/such/folder/", []),
    ],
)
def test_tab_completes_commands_choices_languages_and_paths(folder, typed, choices):
    assert completed(typed) == choices


def test_folders_are_not_read_while_somebody_types(folder):
    assert completed("look at ./", by_tab=False) == []


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (80, "e4b · 1,204 of 131,072 tokens · 9.1 GB · 34 tok/s · mic off"),
        (40, "e4b · 1,204 of 131,072 tokens · 9.1 GB"),
        (20, "e4b"),
        (2, "e4b"),
    ],
)
def test_a_narrow_footer_keeps_what_matters_most(columns, shown):
    assert fitted("e4b · 1,204 of 131,072 tokens · 9.1 GB · 34 tok/s · mic off", columns) == shown


class Pipe(io.TextIOWrapper):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))


def test_without_a_terminal_lines_are_read_as_they_are(folder, monkeypatch):
    content = f'hello\n{folder}/cat.png\nlook at cat.png please\n/image cat.png\n"""a\nb"""\n\nlast'
    monkeypatch.setattr(sys, "stdin", Pipe(content.encode()))
    line = InputLine(COMMANDS, str)
    read = [line.read() for _ in range(7)]
    assert [typed.text for typed in read] == [
        "hello",
        "",
        "look at cat.png please",
        "/image cat.png",
        "a\nb",
        "",
        "last",
    ]
    assert [names(typed) for typed in read] == [[], ["cat.png"], ["cat.png"], [], [], [], []]
    with pytest.raises(EOFError):
        line.read()


def test_a_line_of_a_pipe_that_is_not_text_is_an_error_and_the_next_one_is_read(folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Pipe(b"\x89PNG\n\0\nhello\n"))
    line = InputLine(COMMANDS, str)
    for _ in range(2):
        with pytest.raises(InputError, match="not UTF-8 text"):
            line.read()
    assert line.read() == Typed("hello")


@pytest.mark.parametrize(
    ("typed", "offered"), [("/delete t", ["trip"]), ("/delete ", ["trip", "Rome"]), ("/delete x", [])]
)
def test_tab_completes_the_names_of_saved_chats(typed, offered):
    completer = LineCompleter([Command("/delete", "CHAT")], lambda: ["trip", "Rome"])
    found = completer.get_completions(Document(typed), CompleteEvent(completion_requested=True))
    assert [completion.text for completion in found] == offered
