"""The gate for text from outside: nothing that lies to the eye gets past it, and ordinary text loses nothing."""

from __future__ import annotations

import ast
import io
import re
import sys
import unicodedata
from pathlib import Path

import pytest
from gemma4_mlx.app.printable import Gate, on_one_line, printable, spelled
from gemma4_mlx.app.progress import Progress
from gemma4_mlx.app.terminal import console, note, say, write
from hypothesis import given
from hypothesis import strategies as st

ORDINARY = [
    "Plain text, with\ttabs\nand lines – “quoted” … 3 × 4 ≤ 12 €",
    "👨‍👩‍👧 ❤️‍🔥 👩🏽‍💻 1️⃣ 🏳️‍🌈 🧑‍⚕️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇨🇿",
    "क्‍ष नमस्ते ന്‍ ക്ഷ සිංහල ශ්‍රී বাংলা",
    "می‌خواهم السلام عليكم (C++\u200e) שלום C++\u200e כן",
    "葛\U000e0100城 日本語 한국어 ไทย",
    "Žluťoučký kůň e\u0301 \ue0b0",
]
HOSTILE = [
    *("\x1b[2J", "\x1b]52;c;ZWNobw==\x07", "\x9b3D", "\r", "\x08", "\x00", "\x7f", "\x85", "\x0b"),
    *("\u202e", "\u202a", "\u2066", "\u2069", "\u200f", "\u061c", "\u2028", "\u2029"),
    *("\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\U000e0041", "\U000e0001", "\u3164", "\u115f", "\ufe0f\ufe0f"),
    *("\ud800", "\U000e0100", "\u180e", "\u2063"),
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_in_any_script_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_what_lies_to_the_eye_is_left_out(text):
    shown = printable(f"a{text}b")
    assert all(unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029\u3164\u115f" for c in shown)
    assert shown.startswith("a")
    assert shown.endswith("b")


def test_what_separates_lines_begins_none_where_a_name_stands():
    assert on_one_line("a\nb\u2028c\td\x85e") == "a b c de"


@given(st.text(), st.lists(st.integers(1, 5), min_size=1))
def test_in_whatever_pieces_a_text_comes_the_same_is_let_through(text, sizes):
    gate, shown, start = Gate(), "", 0
    for number in range(len(text)):
        end = start + sizes[number % len(sizes)]
        shown += gate.let_through(text[start:end])
        start = end
    assert shown + gate.finish() == printable(text)


@given(st.lists(st.sampled_from([*ORDINARY, *HOSTILE, "x", "🙂", "ش", "\n"])).map("".join), st.integers(1, 4))
def test_pieces_may_end_anywhere_in_emoji_and_between_marks(text, size):
    gate = Gate()
    shown = "".join(gate.let_through(text[start : start + size]) for start in range(0, len(text), size))
    assert shown + gate.finish() == printable(text)


@given(st.text())
def test_what_has_passed_the_gate_passes_it_again(text):
    assert printable(printable(text)) == printable(text)


@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.dictionaries(st.text(), inner)))
def test_a_spelled_value_is_one_line_in_which_all_is_seen(value):
    text = spelled(value)
    assert all(c == " " or unicodedata.category(c)[0] not in "CZ" for c in text)
    assert printable(text) == text
    assert not re.search(" {10}", text)
    assert "\u2800" not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Plzeň नमस्ते", '"Plzeň नमस्ते"'),
        ("milk" + " " * 3_000 + "x", '"milk␣×3000x"'),
        ("\u2800" * 3_000, r'"\u2800×3000"'),
        ("a␣×3", r'"a\u2423×3"'),
        ("ʺ) ”", r'"\u02ba) \u201d"'),
        ("a\n\x1b\u202e", r'"a\n\u001b\u202e"'),
        (3, "3"),
    ],
)
def test_a_value_is_spelled_so_that_nothing_in_it_is_taken_for_its_end(value, shown):
    assert spelled(value) == shown


# Who prints.

APP = Path(__file__).parents[1] / "app"
GATE = APP / "terminal.py"
PRINTS = {"print", "echo", "secho", "print_formatted_text", "pprint", "Console", "Live", "show_exception"}
CONSOLES = {"page.print", "screen.print", "self._console.print", "console.print"}  # given out by the gate
WRITES = {
    "chat/chat.py: answer.write",  # no stream
    "whole_file.py: os.write",  # a file
    "speech/unfinished_transcript.py: file.write",  # a file
    "whole_file.py: file.write",  # a file
    "doctor/terminal_answers.py: os.write",  # our own question to the terminal
    "speech/transcribe_live.py: os.write",  # words of our own, in a signal handler
    "line/steady_output.py: super().write",  # prompt_toolkit's own, which shows control characters as ^[
}


def calls() -> list[tuple[str, str]]:
    """Every call in the app but for the gate's own: where, and what."""
    return [
        (str(path.relative_to(APP)), ast.unparse(node.func))
        for path in sorted(APP.rglob("*.py"))
        if path != GATE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def test_nobody_prints_but_through_the_gate():
    printing = {
        f"{where}: {called}"
        for where, called in calls()
        if called.rpartition(".")[2] in PRINTS and called not in CONSOLES
    }
    assert printing == set()


def test_nobody_writes_to_a_stream_but_the_gate():
    assert {f"{where}: {called}" for where, called in calls() if called.endswith((".write", ".writelines"))} == WRITES


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("hostile", HOSTILE)
def test_each_way_of_printing_is_gated(hostile, monkeypatch):
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    text = f"a{hostile}b"
    note(text)
    say(text)
    write(out, text)
    console(out, width=80).print(text, markup=False)
    with Progress(text) as progress:
        progress.show(text)
    written = re.sub(r"\r|\x1b\[(2K|1A|\?7[lh])", "", out.getvalue() + err.getvalue())
    assert printable(written) == written
    assert written.count("a") == 6
    assert len(written.splitlines()) == 4


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_note_is_safe_in_a_file_as_well_and_an_answer_there_is_what_the_model_wrote(hostile, monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    note(f"a{hostile}b")
    write(out, f"a{hostile}b")
    assert err.getvalue() == printable(f"a{hostile}b") + "\n"
    assert out.getvalue() == f"a{hostile}b"
