"""One answer on its way to a person: words to stdout as they come, thoughts dim on stderr, and why it ended early."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from .conversation import Message
from .terminal import note, write

if TYPE_CHECKING:
    from gemma4_mlx.generation import Generation
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; None leaves a choice to the checkpoint's generation_config."""

    max_tokens: int
    temperature: float | None = None
    seed: int | None = None


class StreamedAnswer:
    """Shows an answer while it is generated and remembers what was shown, also when it is interrupted."""

    def __init__(self, show_thoughts: bool) -> None:
        self.text = ""
        self._show_thoughts = show_thoughts
        self._thinking_aloud = False

    def stream(
        self,
        model: Gemma4,
        processor: Processor,
        messages: list[Message],
        thinking: bool,
        sampling: Sampling,
        schema: str | None = None,
    ) -> Generation:
        """Generate and show the answer to `messages`; it ends with a line break on stdout.

        Raises:
            InputError: something in `messages` cannot be given to this model.
        """
        import gemma4_mlx as g4

        try:
            chunks = g4.stream_generate(
                model, processor, messages, thinking=thinking, schema=schema, **asdict(sampling)
            )
            for chunk in chunks:
                if chunk.kind == "answer":
                    self._answer(chunk.text)
                elif chunk.kind == "thought" and self._show_thoughts:
                    self._think(chunk.text)
        finally:
            self._end()
        return chunks.result()

    def _answer(self, text: str) -> None:
        self._end_thought()
        self.text += text
        write(sys.stdout, text)

    def _think(self, text: str) -> None:
        self._thinking_aloud = True
        write(sys.stderr, text, dim=True)

    def _end_thought(self) -> None:
        if self._thinking_aloud:
            write(sys.stderr, "\n")
        self._thinking_aloud = False

    def _end(self) -> None:
        self._end_thought()
        if self.text and not self.text.endswith("\n"):
            write(sys.stdout, "\n")


def say_why_it_ended(answer: Generation, max_tokens: int) -> None:
    """A note when an answer is not what the model would have said if left alone, or is nothing."""
    match answer.finish_reason:
        case "length" if len(answer.tokens) < max_tokens:
            note("note: cut because the model's context is full; begin anew, or ask with less in front")
        case "length":
            note(f"note: cut after {max_tokens} tokens; --max-tokens allows more")
        case "loop":
            note("note: stopped because the answer repeated itself; ask in other words, or with another --temperature")
        case _ if not answer.text.strip():
            note("note: the model gave no answer")
