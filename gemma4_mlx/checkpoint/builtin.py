"""The model that comes inside the package, under the name "demo", and whether its folder is still whole.

The folder lists the SHA-256 of each of its files in `SHA256SUMS`, in the form `sha256sum --check` reads. It is a few
megabytes, so all of it is checked each time the model is asked for. How the model was made is `tools/demo_model`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..errors import CheckpointError

DEMO = "demo"
FOLDER = Path(__file__).parents[1] / "demo"
CHECKSUMS = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  ([^/]+)")
_SHOWN = 12  # hexadecimal digits of a checksum in a message


def demo_folder() -> Path:
    """The built-in model's folder, every file as it was published.

    Raises:
        CheckpointError: a file is missing, damaged or not listed; every such file is named.
    """
    faults = list_faults(FOLDER)
    if faults:
        raise CheckpointError(f"the built-in model in {FOLDER} is not whole: {'; '.join(faults)}: reinstall gemma4-mlx")
    return FOLDER


def list_faults(folder: Path) -> list[str]:
    """What differs from `SHA256SUMS`, one phrase a file; empty if nothing does.

    A file that is not listed counts too, since `SHA256SUMS` may itself have lost lines; hidden files do not.
    """
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return [f"{CHECKSUMS} is missing"]
    except (OSError, UnicodeDecodeError):
        return [f"{CHECKSUMS} cannot be read"]
    entries = [_LINE.fullmatch(line) for line in lines]
    expected = {entry[2]: entry[1] for entry in entries if entry}
    if not expected or None in entries:
        return [f"{CHECKSUMS} is damaged"]
    present = {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}
    faults = [fault for name, digest in expected.items() if (fault := _fault(folder / name, digest))]
    return faults + [f"{name} is not in {CHECKSUMS}" for name in sorted(present - expected.keys() - {CHECKSUMS})]


def _fault(path: Path, expected: str) -> str | None:
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    if found != expected:
        return f"{path.name} is damaged (SHA-256 {found[:_SHOWN]}…, not {expected[:_SHOWN]}…)"
    return None
