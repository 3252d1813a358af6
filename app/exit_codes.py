"""How a command ends: one exit code, and at most one line on stderr that says what to do.

0 done, 1 failed, 2 wrong usage (typer's own doing), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import typer

from gemma4_mlx.device_errors import device_errors
from gemma4_mlx.errors import Gemma4Error, reason

from .terminal import note
from .typed_ahead import leave_terminal_as_it_was

FAILED = 1
INTERRUPTED = 130


def one_line(error: BaseException) -> str:
    """What a person should read of an error: its message on one line, with the file when the system refused one."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {reason(error)}" if error.filename else reason(error)
    return " ".join(str(error).split()) or type(error).__name__


def leave_at_once(code: int) -> NoReturn:
    """End the process without Python's tidying up: MLX would crash in it while a thread computes."""
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    leave_terminal_as_it_was()
    os._exit(code)


@contextmanager
def exit_codes(debug: bool) -> Iterator[None]:
    """Run a command's body; whatever it raises becomes an exit code and one line (with `debug`, Python's traceback)."""
    try:
        with device_errors():
            yield
        sys.stdout.flush()
    except typer.BadParameter:
        raise
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader (`head`, a closed pager) has what it wanted. The interpreter flushes stdout once more on its way
        # out and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None
    except Exception as error:  # The outermost frame: nobody above could say it better, and --debug shows all of it.
        if debug:
            raise
        if isinstance(error, Gemma4Error | ValueError | OSError):
            note(f"error: {one_line(error)}")
        else:
            note(f"error: {type(error).__name__}: {one_line(error)} (a bug here; --debug shows where)")
        _drop_unwritten_output()
        raise SystemExit(FAILED) from None


def _drop_unwritten_output() -> None:
    """Write what stdout still holds; on a full disk forget it rather than fail again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
