"""A running `gemma4-mlx serve` for tests, on the built-in model: one for all tests of a process.

Not a test itself.
"""

from __future__ import annotations

import atexit
import re
import subprocess
import time
import urllib.request
from functools import cache

from command_line import start


def served(*options: str) -> tuple[subprocess.Popen[bytes], str]:
    """A new server and its address; who asks for it ends it."""
    process = start("serve", "-m", "demo", "--port", "0", *options)
    assert process.stderr is not None
    first = process.stderr.readline().decode()
    found = re.search(r"http://\S+(?=/v1)", first)
    assert found, first + process.stderr.read().decode()
    return process, found[0]


@cache
def address() -> str:
    """Of the server that all tests share."""
    process, url = served("--parallel", "8")
    atexit.register(process.wait)
    atexit.register(process.terminate)
    return url


def metric(name: str, url: str | None = None) -> float:
    """One of the server's counts."""
    with urllib.request.urlopen(f"{url or address()}/metrics") as response:
        text = response.read().decode()
    return float(re.search(rf"^gemma4_{name} (\S+)$", text, re.MULTILINE)[1])


def wait_until_idle(url: str | None = None, seconds: float = 20) -> None:
    """Until no request is in work."""
    end = time.monotonic() + seconds
    while metric("requests_in_work", url):
        assert time.monotonic() < end, "a request has not ended"
        time.sleep(0.02)
