"""`gemma4-mlx serve` under requests that are odd, or whose client goes away: nothing fails, hangs, or stays.

    python bench/hostile_requests.py [--mutated 10000] [--cut 1000]

The requests are those of tests/test_serve_guard.py. The server's memory is shown before and after.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from served import served, wait_until_idle  # noqa: E402
from test_serve_guard import CHAT, mutated  # noqa: E402


def memory(pid: int) -> str:
    """Of a process, where the system tells it in a file."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("VmRSS")), "unknown")


def send_mutated(host: str, number: int, chance: random.Random) -> Counter[int]:
    found: Counter[int] = Counter()
    for _ in range(number):
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("POST", CHAT, mutated(chance))
        response = connection.getresponse()
        response.read()
        found[response.status] += 1
        connection.close()
    return found


def send_cut(host: str, number: int, chance: random.Random) -> None:
    name, _, port = host.partition(":")
    for _ in range(number):
        body = {"messages": [{"role": "user", "content": "Hello! " * chance.randint(1, 300)}]}
        body |= {"max_tokens": 200, "temperature": 2, "stream": chance.random() < 0.5}
        data = json.dumps(body).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        with socket.create_connection((name, int(port))) as connection:
            request = head + data
            cut = chance.random() < 0.3
            connection.sendall(request[: chance.randrange(len(request))] if cut else request)
            time.sleep(chance.random() * 0.03)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutated", type=int, default=10_000)
    parser.add_argument("--cut", type=int, default=1000)
    options = parser.parse_args()
    chance = random.Random(7)
    process, url = served("--context", "600")
    assert process.stderr is not None
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    try:
        host = urlsplit(url).netloc
        send_mutated(host, min(500, options.mutated), chance)
        before = memory(process.pid)
        print(f"mutated: {dict(send_mutated(host, options.mutated, chance))}")
        wait_until_idle(url, 60)
        print(f"memory {before}, then {memory(process.pid)}")
        send_cut(host, options.cut, chance)
        wait_until_idle(url, 120)
        print(f"cut off: {options.cut}, none left in work; memory {memory(process.pid)}")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
