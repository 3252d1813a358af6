"""Install what is committed here as the README says, with the Python that runs this, and try the result.

`pip install .` without extras, in a clone and a virtual environment of their own; then the demonstration, recordings
and a picture on the built-in model, from outside the clone, as somebody who has set nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DIGITS = "8 1 3 9"
RECORDING = REPOSITORY / "tests" / "demo_recordings" / f"slt-{DIGITS.replace(' ', '-')}.flac"
# Of somebody who has set nothing; no download may be what makes it work.
SET = ("GEMMA4_MLX", "HF_", "PYTHONPATH", "VIRTUAL_ENV", "XDG_DATA", "XDG_CACHE")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(SET)} | {"HF_HUB_OFFLINE": "1"}
DRAW = """
import random
from gemma4_mlx.app.demo.demo_picture import draw_two_shapes
picture = draw_two_shapes((("red", "circle"), ("blue", "star")), random.Random(0))
picture.image.save("picture.png")
print(picture.sentence)
"""
CONVERT = """
import sys, av
with av.open(sys.argv[1]) as source, av.open("recording.m4a", "w") as target:
    track = target.add_stream("aac", rate=16_000, layout="mono")
    for frame in source.decode(audio=0):
        target.mux(track.encode(frame))
    target.mux(track.encode(None))
"""


def main() -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gemma4-mlx-fresh-") as folder:
        place = Path(folder)
        run("git", "clone", "--quiet", REPOSITORY, place / "clone", cwd=place)
        run(sys.executable, "-m", "venv", place / "venv", cwd=place)
        python = place / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", ".", cwd=place / "clone")
        shutil.rmtree(place / "clone")  # what runs now is what was installed
        try_out(place / "venv" / "bin" / "gemma4-mlx", python, place)
        versions = run(python, "-m", "pip", "list", "--format", "freeze", cwd=place).split()
    named = [version for version in versions if version.partition("==")[0] in ("mlx", "numpy", "av", "pillow", "typer")]
    seconds = time.monotonic() - started
    print(
        f"Python {platform.python_version()}: installed and tried in {seconds:.0f} s ({', '.join(named)})", flush=True
    )


def try_out(command: Path, python: Path, place: Path) -> None:
    """Run the three, and see that they say what is so."""
    shown = run(command, "demo", cwd=place)
    # Another picture every time, which the model may take for something else; the recording is always the same.
    for expected in ("Looks at a picture", "call 4 2 7 1 ✓", "French: appelle quatre deux sept un", "nothing is sent"):
        check(shown, expected)

    run(python, "-c", CONVERT, RECORDING, cwd=place)
    for recording in (RECORDING, "recording.m4a"):
        check(run(command, "transcribe", recording, "-m", "demo", cwd=place), DIGITS)

    sentence = run(python, "-c", DRAW, cwd=place).strip()
    check(run(command, "ask", "What is in this picture?", "-i", "picture.png", "-m", "demo", cwd=place), sentence)


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; its failure, with all it said, ends everything."""
    finished = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if finished.returncode:
        fail(f"{' '.join(map(str, command))}\nended with {finished.returncode}:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def check(shown: str, expected: str) -> None:
    if expected not in shown:
        fail(f"{expected!r} was not said, but:\n{shown}")


def fail(why: str) -> None:
    sys.exit(f"Python {platform.python_version()}: {why}")


if __name__ == "__main__":
    main()
