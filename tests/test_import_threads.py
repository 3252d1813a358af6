"""Threads that begin to use the package at once: none of them gets half a module."""

from __future__ import annotations

import subprocess
import sys

import pytest

RACE = """
import sys, threading
sys.setswitchinterval(1e-5)
together = threading.Barrier(2)
failed = []

def run(statement):
    together.wait()
    try:
        exec(statement, {})
    except BaseException as error:
        failed.append(error)

threads = [threading.Thread(target=run, args=(statement,)) for statement in sys.argv[1:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(repr(failed) if failed else 0)
"""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("import gemma4_mlx as g4; g4.generate", "import gemma4_mlx as g4; g4.Processor; g4.load"),
        # The chat: the model's thread, and a file that is attached meanwhile.
        ("import gemma4_mlx as g4; g4.generate_tokens", "from gemma4_mlx.processing.sources import resolve_source"),
        (
            "from gemma4_mlx.processing.tool_descriptions import read_tools",
            "from gemma4_mlx.processing import Processor",
        ),
        (
            "from gemma4_mlx.processing.settings import read_settings",
            "from gemma4_mlx.processing.sources import Source",
        ),
    ],
)
def test_two_threads_that_import_at_once_both_succeed(first: str, second: str) -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", RACE, first, second], capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
