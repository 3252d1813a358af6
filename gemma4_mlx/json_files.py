"""Reading the JSON files of a checkpoint: objects, of a size and depth that an honest file has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import CheckpointError

# The longest there is: tokenizer_config.json with 6,000 control tokens has 1 MB.
_MOST_BYTES = 16 << 20


def read_json_object(path: Path) -> dict[str, Any]:
    """The object a JSON file holds.

    Raises:
        CheckpointError: the file cannot be read, is larger than any of its kind, is not JSON, or holds no object.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise CheckpointError(f"{path} is larger than {_MOST_BYTES >> 20} MiB: download it again")
        found = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): download it again") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): download it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not a JSON object: download it again")
    return found
