"""Running the real `gemma4-mlx` command in tests: its own process, its own home folder, a small random model.

Not a test itself.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from PIL import Image

# Ctrl-C must arrive also when whoever started the tests had it switched off (as a shell does for `command &`).
COMMAND = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from gemma4_mlx.app.cli import main; main()",
]


@cache
def scratch() -> Path:
    """A folder for this run of the tests."""
    folder = tempfile.mkdtemp(prefix="gemma4-mlx-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def checkpoint(variant: str = "e2b") -> Path:
    """The folder of a small random model."""
    from checkpoints import build_checkpoint

    folder = scratch() / variant
    build_checkpoint(folder, variant)
    return folder


def environment(model: Path | None = None) -> dict[str, str]:
    """A user who has set nothing but, perhaps, a model; no network."""
    home = scratch() / "home"
    home.mkdir(exist_ok=True)
    passed_on = {name: os.environ[name] for name in ("PATH", "TMPDIR", "VIRTUAL_ENV") if name in os.environ}
    named = {"GEMMA4_MLX_MODEL": str(model)} if model else {}
    return {
        **passed_on,
        **named,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


# Runs a command of which no file can grow beyond so many bytes.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


def run(
    *arguments: str | Path,
    stdin: str | bytes | None = None,
    model: Path | None = None,
    cwd: Path | None = None,
    largest_file: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. Without `stdin` it has none; no file can grow beyond `largest_file` bytes."""
    # Not with `preexec_fn`: after a fork Python 3.13 takes down what belongs to other threads, and a decoder of theirs
    # waits for ever.
    limited = [] if largest_file is None else [sys.executable, "-c", LIMITED, str(largest_file)]
    finished = subprocess.run(
        [*limited, *COMMAND, *map(str, arguments)],
        env=environment(model),
        cwd=cwd or scratch(),
        timeout=120,
        check=False,
        capture_output=True,
        **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": _bytes(stdin)}),
    )
    return subprocess.CompletedProcess(
        finished.args, finished.returncode, finished.stdout.decode("utf-8"), finished.stderr.decode("utf-8")
    )


def start(
    *arguments: str | Path, model: Path | None = None, more_environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start the command, all three streams piped."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env={**environment(model), **(more_environment or {})},
        cwd=scratch(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def picture(name: str = "cat.png") -> Path:
    """A small picture on disk."""
    path = scratch() / name
    if not path.exists():
        Image.radial_gradient("L").resize((120, 90)).convert("RGB").save(path)
    return path


def only_line(text: str) -> str:
    """The one line there is."""
    (line,) = text.splitlines()
    return line


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
