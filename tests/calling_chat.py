"""A program for tests: `gemma4-mlx` with a model that calls `add(a=3, b=4)` first and repeats what it is asked then.

Not a test itself. The built-in model calls no functions.
"""

from __future__ import annotations

from typing import Any

from gemma4_mlx.app.answer.answering import Request
from gemma4_mlx.app.chat import kept_answer
from gemma4_mlx.app.cli import main

from gemma4_mlx.generation import Chunk, Generation, ToolCall


def answer(model: object, processor: object, request: Request, hand_out: Any, cache: object, **_: object) -> Generation:
    """Stands for `answering.generate`."""
    if request.messages[-1]["role"] == "user":
        return Generation("", "", [ToolCall("add", {"a": 3, "b": 4})], [], "tool_call", None)
    said = next(message for message in reversed(request.messages) if message["role"] == "user")["content"]
    words = "You said " + "".join(part.get("text", "") for part in said)
    hand_out(Chunk(words, "answer"))
    return Generation(words, "", [], [], "stop", None)


if __name__ == "__main__":
    kept_answer.generate = answer
    main()
