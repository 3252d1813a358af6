"""Making the model speak: the token loop, sampling, and the way from tokens to answer, thought and tool calls.

It knows no file, no picture and no terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..doors import door

if TYPE_CHECKING:
    from .answers import generate, stream_generate
    from .async_answers import astream_generate
    from .channels import Chunk
    from .chat import Chat
    from .conversation_cache import ConversationCache
    from .generation_stream import Generation, GenerationStream, Stats
    from .logprobs import LikelyToken, TokenLogprob
    from .loop import generate_tokens
    from .many_prompts import batch_generate
    from .prompt_cache import load_prompt_cache, save_prompt_cache
    from .scoring import score
    from .tool_calls import ToolCall
    from .tool_functions import run_tools

__all__ = [
    "Chat",
    "Chunk",
    "ConversationCache",
    "Generation",
    "GenerationStream",
    "LikelyToken",
    "Stats",
    "TokenLogprob",
    "ToolCall",
    "astream_generate",
    "batch_generate",
    "generate",
    "generate_tokens",
    "load_prompt_cache",
    "run_tools",
    "save_prompt_cache",
    "score",
    "stream_generate",
]

__getattr__ = door(
    __name__,
    {
        "Chat": "chat",
        "Chunk": "channels",
        "ConversationCache": "conversation_cache",
        "Generation": "generation_stream",
        "GenerationStream": "generation_stream",
        "LikelyToken": "logprobs",
        "Stats": "generation_stream",
        "TokenLogprob": "logprobs",
        "ToolCall": "tool_calls",
        "astream_generate": "async_answers",
        "batch_generate": "many_prompts",
        "generate": "answers",
        "generate_tokens": "loop",
        "load_prompt_cache": "prompt_cache",
        "run_tools": "tool_functions",
        "save_prompt_cache": "prompt_cache",
        "score": "scoring",
        "stream_generate": "answers",
    },
)
