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


OSASCRIPT = """\
#!/bin/sh
echo "$LC_ALL" >> calls
cat held
"""
PASTEBOARD = """\
#!/bin/sh
test "$LC_ALL" = en_US.UTF-8 || exit 1
case "$0" in *pbcopy) cat > text ;; *) cat text ;; esac
"""


@pytest.fixture
def a_mac(folder: Path) -> Path:
    """What macOS' own commands answer, as AppleScript writes it; `held` is what is in the clipboard."""
    (folder / "xclip").unlink()
    for name, script in (("osascript", OSASCRIPT), ("pbcopy", PASTEBOARD), ("pbpaste", PASTEBOARD)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    (folder / "held").write_text("\n")
    return folder


def test_a_mac_is_asked_once_for_a_file_or_a_picture(a_mac):
    (a_mac / "held").write_text(f"«data PNGf{picture().read_bytes().hex().upper()}»\n")
    (attachment,) = clipboard.attachments()
    assert (attachment.kind, attachment.description) == ("image", "120×90")
    assert (a_mac / "calls").read_text().splitlines() == ["en_US.UTF-8"]


def test_a_file_copied_in_the_finder_is_that_file(a_mac):
    copied = a_mac / "Größe é.png"
    copied.write_bytes(picture().read_bytes())
    (a_mac / "held").write_text(f"file {copied}\n")
    (attachment,) = clipboard.attachments()
    assert attachment.name == copied.name


@pytest.mark.parametrize("held", ["file /nowhere/at all.png", "", "«data PNGf", "«data PNGfXY»", "«data PNGf89»"])
def test_whatever_a_mac_answers_is_a_picture_or_one_line(a_mac, held):
    (a_mac / "held").write_text(held)
    with pytest.raises(InputError) as refused:
        clipboard.attachments()
    assert "\n" not in str(refused.value)


def test_a_mac_without_a_utf_8_locale_copies_and_pastes_every_letter(a_mac, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    clipboard.copy("é — 字")
    assert clipboard.read() == "é — 字"
