"""Errors a caller can mend. Each message is one line and says what to do.

A wrong argument (a negative length, an unknown option) is a plain `ValueError`.
"""

import errno
import sys


class Gemma4Error(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(Gemma4Error):
    """`config.json` describes a model this package cannot build."""


class CheckpointError(Gemma4Error):
    """A checkpoint's files are missing, damaged, or do not fit its configuration."""


class HubError(Gemma4Error):
    """A model could not be found or fetched on the Hugging Face Hub."""


class InputError(Gemma4Error):
    """A message, picture, sound or video that the model cannot be given."""


class ContextLengthError(InputError):
    """A prompt is longer than the model's context.

    Attributes:
        tokens: how many it has, with those that a cache holds before it; None: nobody counted.
        limit: how many the context holds; None likewise.
    """

    def __init__(self, message: str, tokens: int | None = None, limit: int | None = None) -> None:
        super().__init__(message, tokens, limit)
        self.tokens = tokens
        self.limit = limit

    def __str__(self) -> str:
        return str(self.args[0])


class DeviceError(Gemma4Error):
    """The GPU, or whatever MLX computes on, did not do what it was asked. What to do is in the message.

    Caches that the work was writing to are empty, and `ConversationCache` reads its conversation anew. Keep no arrays
    that were being computed.
    """


class OutOfMemoryError(DeviceError, MemoryError):
    """There is not enough memory: found out on the way, or known before anything was done.

    Attributes:
        needed: bytes that a prompt's keys and values would take, where that was known before; None: found out.
        available: bytes there are for them; None likewise.
    """

    def __init__(self, message: str, needed: int | None = None, available: int | None = None) -> None:
        super().__init__(message, needed, available)
        self.needed = needed
        self.available = available

    def __str__(self) -> str:
        return str(self.args[0])


def reason(error: BaseException) -> str:
    """What a library or the system said went wrong, on one line; with what to do where only the system's owner can."""
    said = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
    return said + permission_hint(error, sys.platform)


def permission_hint(error: BaseException, platform: str) -> str:
    """Where a Mac is told that a program may read a folder; empty for every other error.

    macOS keeps programs out of Desktop, Documents, Downloads and removable disks until they are allowed to read them,
    and refuses with EPERM. What a file's own permissions forbid is EACCES.
    """
    if platform == "darwin" and isinstance(error, OSError) and error.errno == errno.EPERM:
        return "; allow your terminal app in System Settings › Privacy & Security › Files and Folders"
    return ""


class PrecisionWarning(UserWarning):
    """A model computes in a precision that may be too small for it. Said with Python's `warnings`."""


class MediaWarning(UserWarning):
    """A picture, sound or video was used although something about it is not right.

    Said with Python's `warnings`, once for a file. The caller decides whether it is shown, kept or raised.
    """
