"""The real command, slowed down so that Ctrl-C can fall into every part of its work. Not a test itself.

The first argument is the seconds that loading takes; the others are those of `gemma4-mlx`. Whatever the model says to a
message that begins with "call", it wants the function `wait` called before.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gemma4_mlx as g4
from gemma4_mlx import checkpoint
from gemma4_mlx.generation import GenerationStream, ToolCall, answers, loop

PIECE_SECONDS, TOKEN_SECONDS = 0.03, 0.03

_generate_tokens, _stream_generate, _load_model = (
    answers.generate_tokens,
    answers.stream_generate,
    checkpoint.load_model,
)


def slowly(*arguments: Any, on_prompt: Any = None, **options: Any) -> Iterator[int]:
    def tell(read: int, of: int) -> None:
        time.sleep(PIECE_SECONDS)
        if on_prompt is not None:
            on_prompt(read, of)

    tokens = _generate_tokens(*arguments, on_prompt=tell, **options)

    def handed_out() -> Iterator[int]:
        try:
            for token in tokens:
                time.sleep(TOKEN_SECONDS)
                yield token
        finally:
            tokens.close()

    return handed_out()


def stream_that_calls(model: Any, processor: Any, messages: Any, **options: Any) -> GenerationStream:
    stream = _stream_generate(model, processor, messages, **options)
    if messages[-1]["role"] == "user" and "call" in str(messages[-1]["content"]):
        result = stream.result
        stream.result = lambda: replace(result(), tool_calls=[ToolCall("wait", {})])
    return stream


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    load_seconds = float(sys.argv.pop(1))

    def load_slowly(*arguments: Any, **options: Any) -> Any:
        time.sleep(load_seconds)
        return _load_model(*arguments, **options)

    checkpoint.load_model = load_slowly
    loop.PREFILL_TOKENS = 16
    answers.generate_tokens = slowly
    g4.stream_generate = stream_that_calls
    from gemma4_mlx.app.cli import main

    main()


if __name__ == "__main__":
    main()
