"""Answers in an asyncio program: the model computes in worker threads, and the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from .answers import stream_generate, with_arguments_of
from .channels import Chunk


@with_arguments_of(stream_generate)
async def astream_generate(*arguments: Any, **options: Any) -> AsyncGenerator[Chunk]:
    """`stream_generate` for asyncio: an async generator of the same chunks.

    Arguments and errors are `generate`'s; errors come with the first chunk. `should_stop` and `on_prompt` are called in
    worker threads. For a whole answer there is `await asyncio.to_thread(g4.generate, model, processor, messages)`.

    When the task is cancelled, or the generator closed, the token or piece of the prompt that is being computed is the
    last one. Any number of tasks may answer at once; they take turns at the model, a piece each.
    """
    stream = await asyncio.to_thread(stream_generate, *arguments, **options)
    try:
        while (chunk := await asyncio.to_thread(next, stream, None)) is not None:
            yield chunk
    finally:
        stream.close()
