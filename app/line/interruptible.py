"""Ctrl-C while a key's work is being done.

An editor of lines takes Ctrl-C as a key like any other, and would come to it only after the work: thirty pictures to
decode, a folder on a network that does not answer.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..terminal import somebody_types

# Fields of what tcgetattr gives.
_LOCAL, _CHARACTERS = 3, 6


@contextmanager
def ctrl_c_interrupts() -> Iterator[None]:
    """In the body Ctrl-C raises KeyboardInterrupt; other keys wait."""
    if threading.current_thread() is not threading.main_thread() or not somebody_types():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    meanwhile = termios.tcgetattr(sys.stdin)
    meanwhile[_LOCAL] |= termios.ISIG | termios.NOFLSH
    for other in (termios.VSUSP, termios.VQUIT):
        meanwhile[_CHARACTERS][other] = bytes([os.fpathconf(sys.stdin.fileno(), "PC_VDISABLE")])
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = signal.set_wakeup_fd(-1)  # the editor's, which would take it for the key
    termios.tcsetattr(sys.stdin, termios.TCSANOW, meanwhile)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        signal.set_wakeup_fd(loop)
        signal.signal(signal.SIGINT, handler)
