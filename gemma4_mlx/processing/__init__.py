"""Messages in the Hugging Face chat form → token ids and features a Gemma 4 model reads.

Pictures, sound, video, the chat template and the tokenizer live here; no weights do. Of the model only `model.inputs`,
the form its inputs have, is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..doors import door

if TYPE_CHECKING:
    from .cached_source import CachedSource
    from .processor import Processor
    from .tokenizer import Tokenizer
    from .tool_descriptions import read_tools

__all__ = [
    "CachedSource",
    "Processor",
    "Tokenizer",
    "read_tools",
]

__getattr__ = door(
    __name__,
    {
        "CachedSource": "cached_source",
        "Processor": "processor",
        "Tokenizer": "tokenizer",
        "read_tools": "tool_descriptions",
    },
)
