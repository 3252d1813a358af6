"""Token ids in, chunks of answer, thought and tool calls out."""

from __future__ import annotations

from collections.abc import Sequence

from .channels import CALL_CLOSE, CALL_OPEN, CHANNEL_CLOSE, CHANNEL_OPEN, MARKERS, ChannelParser, Chunk
from .detokenizer import Detokenizer, TokenDecoder
from .loose_calls import Declared

# What ends a thought, or the turn that it is part of.
_ENDS_OF_CHANNEL = (CHANNEL_CLOSE, CALL_OPEN, CALL_CLOSE, "<|turn>", "<turn|>", "<|tool_response>", "<tool_response|>")


class AnswerReader:
    """Reads an answer as its ids come.

    A marker is one id. A tokenizer that has none for it can only spell it, and what is spelled is text.

    Args:
        prompt: the ids before the answer: they may have opened a thought.
        declared: the tools that the model was told of, by name, with the schemas of their parameters.
    """

    def __init__(self, tokenizer: TokenDecoder, prompt: Sequence[int] = (), declared: Declared | None = None) -> None:
        self._marker_of = {id_: marker for marker in MARKERS if (id_ := tokenizer.token_id(marker)) is not None}
        self._detokenizer = Detokenizer(tokenizer)
        self._parser = ChannelParser(declared)
        opened = opened_channel(tokenizer, prompt)
        if opened is not None:
            self._parser.resume(opened)

    @property
    def unread_calls(self) -> list[str]:
        """Texts of calls that could not be read, or not in one way only."""
        return list(self._parser.unread_calls)

    def feed(self, token: int) -> list[Chunk]:
        """Take the next id; return what has become certain, oldest first."""
        marker = self._marker_of.get(token)
        if marker is None:
            return self._parser.text(self._detokenizer.feed(token))
        return [*self._parser.text(self._detokenizer.flush()), *self._parser.control(marker)]

    def finish(self) -> list[Chunk]:
        """The rest, when no more ids come."""
        return [*self._parser.text(self._detokenizer.flush()), *self._parser.finish()]


def opened_channel(tokenizer: TokenDecoder, prompt: Sequence[int]) -> str | None:
    """What a prompt says after the `<|channel>` that it ends in, such as "thought\\n"; None if it ends in none.

    The makers' templates open the next thought themselves after a tool's result. A text in the prompt that spells the
    marker is another sequence of ids, and opens nothing.
    """
    opening = tokenizer.token_id(CHANNEL_OPEN)
    ends = {tokenizer.token_id(marker) for marker in _ENDS_OF_CHANNEL}
    for position in range(len(prompt) - 1, -1, -1):
        if prompt[position] == opening:
            return tokenizer.decode(list(prompt[position + 1 :]), skip_special_tokens=True)
        if prompt[position] in ends:
            break
    return None
