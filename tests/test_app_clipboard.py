"""The clipboard: a script stands for the system's own command, because nobody can copy anything here."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from gemma4_mlx.app.line import clipboard

from command_line import picture
from gemma4_mlx.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has a clipboard of its own")

XCLIP = """\
#!/bin/sh
case "$*" in
  *image/png*) test -f image && cat image || { echo "Error: target image/png not available" >&2; exit 1; } ;;
  *-out*) test -f text && cat text || exit 1 ;;
  *-in*) cat > text ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cat").symlink_to(str(shutil.which("cat")))
    (tmp_path / "xclip").write_text(XCLIP)
    (tmp_path / "xclip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_picture_in_it_becomes_an_attachment(folder):
    (folder / "image").write_bytes(picture().read_bytes())
    (attachment,) = clipboard.attachments()
    assert (attachment.kind, attachment.name, attachment.description) == ("image", "clipboard.png", "120×90")
    assert attachment.data.startswith(b"\x89PNG")


def test_text_in_it_is_text_and_no_attachment(folder):
    (folder / "text").write_text("two\nlines")
    assert clipboard.read() == "two\nlines"
    with pytest.raises(InputError, match="holds text and no picture"):
        clipboard.attachments()


def test_an_empty_one_says_so(folder):
    with pytest.raises(InputError, match="the clipboard is empty"):
        clipboard.read()


def test_what_is_copied_can_be_pasted(folder):
    clipboard.copy("žluťoučký\nkůň")
    assert clipboard.read() == "žluťoučký\nkůň"


def test_where_there_is_none_it_says_what_to_do(folder):
    (folder / "xclip").unlink()
    with pytest.raises(InputError, match="install wl-clipboard or xclip"):
        clipboard.attachments()
    with pytest.raises(InputError, match="there is no clipboard here"):
        clipboard.copy("text")
