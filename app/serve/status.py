"""What a person at a terminal sees while the server runs: one line, drawn again every second."""

from __future__ import annotations

import asyncio
import time

from gemma4_mlx.byte_sizes import memory_size

from ..progress import Progress
from .engine import Engine

_SECONDS = 1.0


async def show_status(engine: Engine) -> None:
    """Show it until this is cancelled."""
    with Progress("serving") as progress:
        at, written = time.perf_counter(), engine.tokens_written
        while True:
            await asyncio.sleep(_SECONDS)
            now, count = time.perf_counter(), engine.tokens_written
            progress.show(status_line(engine, (count - written) / (now - at)))
            at, written = now, count


def status_line(engine: Engine, tokens_per_second: float) -> str:
    """Requests, speed and memory."""
    parts = [f"{engine.counts.requests:,} so far", f"{engine.in_work} in work", f"{tokens_per_second:.0f} tokens/s"]
    if engine.counts.peak_memory_bytes >= 2**30:
        parts.append(f"{memory_size(engine.counts.peak_memory_bytes)} at most")
    return ", ".join(parts)
