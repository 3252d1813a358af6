"""Files dropped on a terminal: every terminal's spelling of every name that a Mac can have is found again."""

from __future__ import annotations

from pathlib import Path

import pytest
from gemma4_mlx.app.line.dropped import dropped_files, files_within
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropped_spellings import NAMES, TERMINALS, vs_code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dropped") / "My Pictures"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("name", NAMES)
def test_every_terminals_spelling_of_every_name_is_found(folder, terminal, name):
    assert dropped_files(TERMINALS[terminal]([folder / name])) == [folder / name]


@pytest.mark.parametrize("terminal", TERMINALS)
def test_all_of_them_at_once_are_found_in_their_order(folder, terminal):
    paths = [folder / name for name in NAMES]
    if terminal == "VS Code":  # it takes characters out, and two of these names are the same without them
        paths = [path for path in paths if vs_code(path) == f"'{path}'"]
    assert dropped_files(TERMINALS[terminal](paths)) == paths


LETTERS = st.sampled_from("ab1 .,'’\"()[]{}!&;$#*?~^%=+-_@\u202f\u00a0éů日`|<>\\")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
@given(
    stems=st.lists(st.text(LETTERS, min_size=1, max_size=12), min_size=1, max_size=3, unique=True),
    terminal=st.sampled_from(sorted(TERMINALS)),
)
def test_names_of_any_characters_are_found_as_far_as_a_terminal_leaves_them_whole(tmp_path_factory, stems, terminal):
    folder = tmp_path_factory.mktemp("names")
    paths = [folder / f"x{stem}y.png" for stem in stems]
    for path in paths:
        path.write_bytes(b"x")
    spelled = TERMINALS[terminal](paths)
    if terminal == "WezTerm" and any("\\" in path.name or "'" in path.name for path in paths):
        return  # not to be told apart from an escape
    found = dropped_files(spelled)
    if terminal == "VS Code" and any(vs_code(path) != f"'{path}'" for path in paths):
        assert found is None or set(found) <= set(paths)
    else:
        assert found == paths


@pytest.mark.parametrize(
    "typed",
    [
        "Screenshot 2026-11-24 at 8.24.28 PM.png",
        "Snímek obrazovky 2026-11-24 v 8.24.28.png",
        "Žluťoučký kůň.png",
        "it`s a cat.png".replace("`", "'"),
        "a “quoted” cat.png",
    ],
)
def test_what_gets_lost_in_a_name_on_the_way_is_made_up_for(folder, typed):
    (found,) = dropped_files(f"{folder}/{typed}")
    assert found.exists()


def test_two_files_that_may_be_meant_are_not_guessed_between(tmp_path):
    for name in ("a\u202fb.png", "a\u00a0b.png"):
        (tmp_path / name).write_bytes(b"x")
    assert dropped_files(f"{tmp_path}/a b.png") is None


@pytest.mark.parametrize("text", ["", " ", "hello", "/help", "don't", "what's '", "a\0b", "~nobody/x", "/" * 30_000])
def test_words_are_no_files(text):
    assert dropped_files(text) is None


@given(st.text())
def test_no_text_is_too_odd(text):
    found = dropped_files(text)
    assert found is None or all(path.exists() for path in found)
    list(files_within(text, [".png"]))


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("name", ["cat.png", "two cats.png", "it's a cat.png", "cat (1) [final].png"])
def test_a_file_is_found_in_the_middle_of_a_sentence(folder, terminal, name):
    spelled = TERMINALS[terminal]([folder / name]).strip()
    sentence = f"What's on {spelled}, and isn't it nice?"
    ((start, end, path),) = files_within(sentence, [".png"])
    assert path == folder / name
    assert (sentence[:start], sentence[end:]) == ("What's on ", ", and isn't it nice?")
