"""Random messages, typed and pasted: quick, nothing lost, attached what exists (10,000: bench/messages.py)."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from gemma4_mlx.app.line.line_input import InputLine
from gemma4_mlx.app.line.named_files import names_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from random_messages import Message, pictures, random_message

MESSAGES = 150
LONGEST_SECONDS = 0.1


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return pictures(tmp_path_factory.mktemp("random").resolve() / "My Pictures")


@pytest.fixture
def line(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> InputLine:
    monkeypatch.chdir(files[0].parent)
    return InputLine([], str)


@pytest.mark.parametrize("seed", range(MESSAGES))
def test_a_message_is_sent_as_it_stands_with_what_exists(line, files, seed):
    message: Message = random_message(random.Random(seed), files)
    typed = line.sent(line.checked(message.text))
    assert [attachment.path for attachment in typed.attachments] == message.files
    assert typed.text.strip() == ("" if message.is_files else message.text.strip())
    dropped = line.dropped(message.text)
    assert [attachment.path for attachment in dropped.attachments] == (message.files if message.is_files else [])


SLOW = {
    "paths of programs": "\n".join(f"/usr/bin/x{number}: command not found" for number in range(2_000)),
    "paths of programs alone": "\n".join(f"/usr/bin/x{number}" for number in range(5_000)),
    "names in a large folder": "\n".join(f"{{folder}}/Screenshot 2026-11-24 at 9{n:03} PM.jpg" for n in range(1_000)),
    "a name nearly there": "{folder}/Screenshot 2026-11-24 at 9999 PM.jpg",
    "folders": "\n".join(f"/proc/{number}/Screenshot {number} PM.png" for number in range(2_000)),
    "one path again and again": "{folder}/gone.png " * 2_000,
    "suffixes": ".png" * 25_000,
    "names": "a.png " * 16_000,
    "home": "~/ " * 33_000,
    **{f"only {character!r}": character * 100_000 for character in "/'\"\\. ~\n"},
    "escaped quotes": "\\'" * 50_000,
    "quoted": "'a b.png' " * 10_000,
    "escaped": "/tmp/a\\ b\\ c.png " * 5_000,
}


@pytest.mark.parametrize("name", SLOW)
def test_no_message_of_100_kb_takes_a_tenth_of_a_second_whatever_it_names(line, files, name):
    text = SLOW[name].replace("{folder}", str(files[0].parent))[:100_000]
    taken = []
    for _ in range(5):  # something else may be running
        began = time.thread_time()
        line.sent(line.checked(text))
        line.dropped(text)
        names_in(text)
        taken.append(time.thread_time() - began)
        if taken[-1] < LONGEST_SECONDS:
            return
    pytest.fail(f"{min(taken):.3f} s")


PARTS = st.sampled_from(
    ["/", "//", "~/", "./", "a", " ", "\n", "\t", '"""', '"', "'", "\\", ".png", "cat.png", "é", "%00"]
)


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=300)
@given(st.lists(PARTS | st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=5), max_size=20).map("".join))
def test_no_words_are_lost_whatever_is_typed(line, text):
    checked = line.checked(text)
    if checked.is_ready and not any(line._tokens.attachments(checked.line)) and not text.startswith('"""'):
        assert line.sent(checked).text == text
    line.dropped(text)
    names_in(text)
