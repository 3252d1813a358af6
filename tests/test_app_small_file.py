"""Files that a person names and that have no end, or nest without one, are told of at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from gemma4_mlx.app.bench.report import read_result
from gemma4_mlx.app.settings import read_settings
from gemma4_mlx.app.whole_file import read_small_text

from command_line import only_line, run
from gemma4_mlx.errors import CheckpointError, Gemma4Error
from gemma4_mlx.processing.chat import ChatTemplate

ENDLESS = Path("/dev/zero")


@pytest.mark.parametrize("read", [read_small_text, read_result, read_settings])
def test_a_file_without_end_is_too_large(read):
    with pytest.raises(Gemma4Error, match="/dev/zero is larger than 16 MB"):
        read(ENDLESS)


def test_ask_refuses_a_schema_without_end():
    finished = run("ask", "hi", "--model", "demo", "--schema", ENDLESS)
    assert finished.returncode == 1
    assert only_line(finished.stderr) == "error: /dev/zero is larger than 16 MB: give the right file, or a part of it"


def test_a_pipe_is_a_file_too(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("naïve"))
    writer.start()
    assert read_small_text(pipe) == "naïve"
    writer.join()


@pytest.mark.parametrize(("read", "name", "opening"), [(read_result, "r.json", "["), (read_settings, "c.toml", "a = ")])
def test_what_nests_too_deep_is_told_of_by_its_name(tmp_path, read, name, opening):
    (tmp_path / name).write_text(opening + "[" * 200_000)
    with pytest.raises(Gemma4Error, match=name):
        read(tmp_path / name)


def test_a_template_larger_than_any_is_not_read(tmp_path):
    with (tmp_path / "chat_template.jinja").open("wb") as stream:
        stream.truncate(4 << 30)  # a hole: it takes no disk
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is larger than 1 MiB"):
        ChatTemplate.from_folder(tmp_path)
