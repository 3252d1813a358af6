"""Asking the terminal itself what it does. It answers as if somebody typed, so this is only for when nobody does."""

from __future__ import annotations

import os
import re
import select
import termios
import time
import tty

# DECRQM (https://vt100.net/docs/vt510-rm/DECRQM.html): is mode 2004, bracketed paste, known?
_ASK_PASTE = b"\x1b[?2004$p"
_PASTE = re.compile(rb"\x1b\[\?2004;(\d)\$y")
# Primary device attributes: every terminal answers this, so whoever has not answered the other one by now never will.
_ASK_ATTRIBUTES = b"\x1b[c"
_ATTRIBUTES = re.compile(rb"\x1b\[\?[\d;]*c")
_NOT_RECOGNIZED = b"0"
_PATIENCE = 0.3  # seconds; over a slow line the answer may take as long


def brackets_pastes(terminal: int) -> bool | None:
    """Whether the terminal marks where a pasted text begins and ends; None: it does not say, or cannot be asked.

    Terminal.app shows a part of the question (https://github.com/neovim/neovim/pull/28453).

    Args:
        terminal: a descriptor that can be read and written.
    """
    if os.environ.get("TERM_PROGRAM") == "Apple_Terminal":
        return None
    before = termios.tcgetattr(terminal)
    answered = b""
    try:
        tty.setcbreak(terminal, termios.TCSANOW)
        os.write(terminal, _ASK_PASTE + _ASK_ATTRIBUTES)
        end = time.monotonic() + _PATIENCE
        while not _ATTRIBUTES.search(answered) and (left := end - time.monotonic()) > 0:
            if select.select([terminal], [], [], left)[0]:
                answered += os.read(terminal, 1024)
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
    said = _PASTE.search(answered)
    return None if said is None else said[1] != _NOT_RECOGNIZED
