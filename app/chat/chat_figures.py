"""What /context and /stats say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gemma4_mlx.byte_sizes import byte_size
from gemma4_mlx.errors import InputError

from ..terminal import shortened
from .context import tokens_by_exchange

if TYPE_CHECKING:
    from .chat import Chat

_SHOWN = 50


def context_used(chat: Chat) -> list[str]:
    """Tokens of each message with its answer, and of all."""
    if not chat.conversation.exchanges:
        raise InputError("nothing has been said yet")
    chat.model.wait()
    request = chat.request()
    totals = chat.model.thread.run(
        lambda: tokens_by_exchange(chat.model()[1], replace(request, messages=[]), chat.conversation)
    )
    own = [total - before for total, before in zip(totals, [0, *totals], strict=False)]
    lines = [
        f"{count:>9,}  {shortened(exchange.title, _SHOWN)}"
        for count, exchange in zip(own, chat.conversation.exchanges, strict=True)
    ]
    share = totals[-1] / chat.model.context
    return [*lines, f"{totals[-1]:>9,}  of {chat.model.context:,} tokens ({share:.0%})"]


def speed_and_memory(chat: Chat) -> list[str]:
    """Of the last answer, and of all answers of this run."""
    if not chat.answers:
        raise InputError("there is no whole answer yet")
    last = chat.answers[-1].stats
    everything = [answer.stats for answer in chat.answers]
    written = sum(stats.generation_tokens for stats in everything)
    # The first token of each answer counts as reading.
    timed = [stats for stats in everything if stats.generation_tps]
    seconds = sum((stats.generation_tokens - 1) / stats.generation_tps for stats in timed)
    speed = sum(stats.generation_tokens - 1 for stats in timed) / seconds if seconds else 0.0
    read = sum(stats.prompt_tokens - stats.cached_tokens for stats in everything)
    return [
        f"last answer   {last.generation_tokens:,} tokens at {last.generation_tps:.1f} a second, "
        f"the first after {last.ttft_s:.2f} s",
        f"its prompt    {last.prompt_tokens:,} tokens, {last.cached_tokens:,} of them read before, "
        f"the others at {last.prompt_tps:.0f} a second",
        f"all answers   {len(everything)}: {written:,} tokens at {speed:.1f} a second, {read:,} tokens read",
        f"peak memory   {byte_size(last.peak_memory_bytes)}",
    ]
