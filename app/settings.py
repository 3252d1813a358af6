"""The config file: what a person sets once instead of typing it each time. Options on the command line win over it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from gemma4_mlx.errors import Gemma4Error

from .whole_file import read_small_text, write_whole


@dataclass(frozen=True)
class ChatSettings:
    """The table `[chat]`: what every chat begins with."""

    thinking: bool = False
    system: str | None = None
    image_tokens: int | None = None


@dataclass(frozen=True)
class TranscribeSettings:
    """The table `[transcribe]`. None: as without a config file."""

    language: str | None = None
    translate_to: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class Settings:
    """All of the config file. None leaves a choice to the checkpoint, or to what fits this machine."""

    model: str | None = None
    temperature: float | None = None
    max_tokens: int = 2048
    chat: ChatSettings = field(default_factory=ChatSettings)
    transcribe: TranscribeSettings = field(default_factory=TranscribeSettings)


Check = tuple[Callable[[Any], bool], str]
"""Whether a value will do, and what would."""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_image_budget(value: object) -> bool:
    from gemma4_mlx.config import IMAGE_TOKEN_BUDGETS

    return _is_count(value) and value in IMAGE_TOKEN_BUDGETS


def _text(example: str) -> Check:
    return _is_text, f'words in quotes, such as "{example}"'


KEYS: Mapping[str, Check] = {
    "model": (_is_text, 'a name in quotes, such as "e2b"'),
    "temperature": (_is_number, "a number from 0, such as 0.7"),
    "max_tokens": (_is_count, "a whole number from 1, such as 2048"),
    "chat.thinking": (lambda value: isinstance(value, bool), "true or false"),
    "chat.system": _text("Answer briefly."),
    "chat.image_tokens": (_is_image_budget, "70, 140, 280, 560 or 1120"),
    "transcribe.language": _text("English"),
    "transcribe.translate_to": _text("French"),
    "transcribe.device": _text("MacBook Pro Microphone"),
}
"""Every key there is; one in a table is written `table.key`."""

_TABLES = {"chat": ChatSettings, "transcribe": TranscribeSettings}


def config_file() -> Path:
    """Where the config file is: `~/Library/Application Support/gemma4-mlx/config.toml` or its XDG place."""
    return platformdirs.user_config_path("gemma4-mlx") / "config.toml"


def read_settings(file: Path) -> Settings:
    """What `file` says; nothing if there is none.

    Raises:
        Gemma4Error: it is not TOML, has a key there is not, or a value that will not do.
    """
    try:
        raw = tomllib.loads(read_small_text(file))
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise Gemma4Error(f"{file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Gemma4Error(f"{file} is not valid TOML ({error}): mend or delete it") from error
    values = _flat(raw)
    for key, value in values.items():
        if key not in KEYS:
            raise Gemma4Error(f"{file}: there is no setting {key}; those there are: {', '.join(KEYS)}")
        fits, wanted = KEYS[key]
        if not fits(value):
            raise Gemma4Error(f"{file}: {key} must be {wanted}, not {value!r}")
    tables: dict[str, Any] = {
        table: kind(**{key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{table}.")})
        for table, kind in _TABLES.items()
    }
    return Settings(**{key: value for key, value in values.items() if "." not in key}, **tables)


def _flat(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a table that there is get its name in front; whatever else stays, to be refused by its name."""
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        if key in _TABLES and isinstance(value, dict):
            flat |= {f"{key}.{inner}": inner_value for inner, inner_value in value.items()}
        else:
            flat[key] = value
    return flat


def remember_model(name: str, file: Path) -> None:
    """Write `model` into a config file that does not name one; the rest of it stays as it is.

    Raises:
        OSError: it cannot be written; it is as it was.
    """
    file = file.resolve()  # a link to a file kept elsewhere stays a link
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    # In front: below a table's heading it would be a key of that table.
    write_whole(file, f'model = "{name}"\n{before}')
