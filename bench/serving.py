"""`gemma4-mlx serve` beside `mlx_lm.server`: the same checkpoint, the same clients, in turn.

    python bench/serving.py [-m demo] [--clients 1,4,8] [--rounds 3] [--tokens 64]

Every client streams answers to a prompt of its own, greedily. Shown are the tokens per second of all clients together
and the median time to a first token.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gemma4_mlx.checkpoint import resolve


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(command: list[str], port: int, path: str) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
            return process
        except OSError:
            time.sleep(0.2)
    process.kill()
    sys.exit(f"{' '.join(command)} does not answer")


def stream(port: int, model: str, prompt: str, tokens: int) -> tuple[float, int]:
    """Seconds to the first token, and how many came."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), headers)
    began, first, count = time.perf_counter(), 0.0, 0
    with urllib.request.urlopen(request, timeout=300) as response:
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            delta = event["choices"][0].get("delta", {}) if event.get("choices") else {}
            if not first and any(delta.get(name) for name in ("content", "reasoning_content", "reasoning")):
                first = time.perf_counter() - began
            if event.get("usage"):
                count = event["usage"]["completion_tokens"]
    return first, count


def measured(port: int, model: str, clients: int, tokens: int, marker: str) -> tuple[float, float]:
    """Tokens per second of all clients, and the median time to a first token."""
    prompts = [f"{marker} {number}: what is MLX, and how do I chat? {'Please. ' * 20}" for number in range(clients)]
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(lambda prompt: stream(port, model, prompt, tokens), prompts))
    seconds = time.perf_counter() - began
    return sum(count for _, count in results) / seconds, statistics.median(first for first, _ in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default="demo")
    parser.add_argument("--clients", default="1,4,8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    folder, ours, theirs = str(resolve(options.model)), free_port(), free_port()
    program = Path(sys.executable).with_name("gemma4-mlx")
    peer = [sys.executable, "-m", "mlx_lm", "server", "--model", folder, "--port", str(theirs), "--log-level", "ERROR"]
    servers = {
        "gemma4-mlx serve": (start([str(program), "serve", "-m", folder, "--port", str(ours)], ours, "/health"), ours),
        "mlx_lm.server": (start(peer, theirs, "/health"), theirs),
    }
    try:
        for clients in map(int, options.clients.split(",")):
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
            for number in range(options.rounds + 1):
                for name in list(servers)[:: 1 if number % 2 else -1]:
                    marker = f"Question {clients} {number}"
                    result = measured(servers[name][1], folder, clients, options.tokens, marker)
                    if number:  # the first round compiles
                        found[name].append(result)
            for name, results in found.items():
                speed, first = (statistics.median(values) for values in zip(*results, strict=True))
                print(f"{clients} clients, {name}: {speed:.0f} tokens/s, first token after {first * 1000:.0f} ms")
    except urllib.error.HTTPError as error:
        sys.exit(f"refused: {error.read().decode()}")
    finally:
        for process, _ in servers.values():
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
