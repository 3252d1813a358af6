"""How much of the model's context a conversation takes, and what must go when it is full."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .conversation import Conversation, Exchange

if TYPE_CHECKING:
    from gemma4_mlx.processing import Processor

    from ..answer.answering import Request
    from ..line.attachments import Attachment

# Forgetting happens in steps: a conversation that is always full would have to be read anew at every message.
_SHARE_TO_FREE = 0.25
_ROOM_FOR_AN_ANSWER = 256
_AROUND_A_MEDIUM = 2  # tokens before and after the soft tokens of a picture or sound


def limit_of(processor: Processor) -> int:
    """Tokens of the model's context."""
    return processor.config.text.max_position_embeddings


def room_for_an_answer(limit: int, max_tokens: int) -> int:
    """Tokens that must be left when the model begins to write."""
    return min(max_tokens, _ROOM_FOR_AN_ANSWER, limit // 8)


def count_tokens(processor: Processor, request: Request, exchanges: Sequence[Exchange]) -> int:
    """Tokens of the prompt for these exchanges. No picture and no sound is read for it.

    Args:
        request: everything else about the prompt; its messages are those of `exchanges`.
    """
    text = processor.render(
        request.messages,
        thinking=request.thinking,
        tools=request.tools,
        add_generation_prompt=request.messages[-1]["role"] != "assistant",
    )
    media = [a for exchange in exchanges for a in exchange.attachments if a.kind != "text"]
    # The text has one placeholder for each.
    return len(processor.tokenizer.encode(text)) + sum(_tokens(processor, request, medium) - 1 for medium in media)


def _tokens(processor: Processor, request: Request, attachment: Attachment) -> int:
    if attachment.video is not None:
        return processor.video_tokens(attachment.video)
    return (attachment.soft_tokens(request.image_tokens, processor.config.audio) or 0) + _AROUND_A_MEDIUM


def tokens_by_exchange(processor: Processor, request: Request, conversation: Conversation) -> list[int]:
    """Tokens of the prompt up to the end of each exchange."""
    counts = []
    for end in range(1, len(conversation.exchanges) + 1):
        part = replace(conversation, exchanges=conversation.exchanges[:end])
        counts.append(count_tokens(processor, replace(request, messages=part.messages()), part.exchanges))
    return counts


def oldest_to_drop(
    processor: Processor, request: Request, conversation: Conversation, max_tokens: int
) -> list[Exchange] | None:
    """The exchanges that must be forgotten for the last one to be answered.

    Returns:
        None when the last one does not fit even by itself; empty when all fit.
    """
    limit = limit_of(processor)
    most = limit - room_for_an_answer(limit, max_tokens)
    exchanges = conversation.exchanges

    def count(start: int) -> int:
        part = replace(conversation, exchanges=exchanges[start:])
        return count_tokens(processor, replace(request, messages=part.messages()), part.exchanges)

    if count(0) <= most:
        return []
    last = len(exchanges) - 1
    target = min(most, int(limit * (1 - _SHARE_TO_FREE)))
    start = bisect_left(range(last), True, lo=min(1, last), key=lambda start: count(start) <= target)
    return exchanges[:start] if start < last or count(last) <= most else None
