"""Errors a caller can mend. Each message is one line and says what to do.

A wrong argument (a negative length, an unknown option) is a plain `ValueError`.
"""


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
    """A prompt is longer than the model's context."""


def reason(error: Exception) -> str:
    """What a library said went wrong, on one line."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


class MediaWarning(UserWarning):
    """A picture, sound or video was used although something about it is not right.

    Said with Python's `warnings`, once for a file. The caller decides whether it is shown, kept or raised.
    """
