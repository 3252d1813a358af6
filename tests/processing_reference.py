"""transformers' Gemma 4 processor on the tiny tokenizer, and ours beside it: what the processing tests compare.

transformers builds its video processor on torchvision, which is not a dependency here; everything else of its processor
runs without it.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from transformers import AutoTokenizer
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.gemma4.processing_gemma4 import Gemma4Processor

from checkpoints import raw_config
from gemma4_mlx.config import Config
from gemma4_mlx.processing import Processor
from tiny_tokenizer import write_tokenizer

# Removed when the interpreter ends.
_FOLDER = TemporaryDirectory(prefix="gemma4-tiny-tokenizer-")
SPEECH = Path(__file__).parent / "tiny" / "speech.flac"


class ReferenceProcessor(Gemma4Processor):
    """Accepts that there is no video processor."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument_name == "video_processor":
            return None
        return super().check_argument_for_proper_class(argument_name, argument)


@lru_cache(maxsize=1)
def tokenizer_folder() -> Path:
    """A folder with the tiny tokenizer's files, written once for all tests of a run; not to be changed."""
    write_tokenizer(_FOLDER.name)
    return Path(_FOLDER.name)


@lru_cache(maxsize=1)
def reference_processor() -> ReferenceProcessor:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder())
    return ReferenceProcessor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessorPil(),
        tokenizer,
        None,
        chat_template=tokenizer.chat_template,
    )


@lru_cache(maxsize=2)
def our_processor(variant: str = "e2b") -> Processor:
    """Ours, for a size that hears (`"e2b"`) or one that does not (`"dense"`)."""
    return Processor.from_folder(tokenizer_folder(), Config.from_dict(raw_config(variant)))


def reference_inputs(
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None = None,
    thinking: bool = False,
    image_tokens: int = 280,
    add_generation_prompt: bool = True,
    **kwargs: Any,
) -> dict[str, Any]:
    """What transformers makes of the same messages."""
    return reference_processor().apply_chat_template(
        copy.deepcopy(messages),
        tokenize=True,
        return_dict=True,
        tools=tools,
        enable_thinking=thinking,
        add_generation_prompt=add_generation_prompt,
        processor_kwargs={"max_soft_tokens": image_tokens},
        **kwargs,
    )


def ids_of(inputs: Any) -> list[int]:
    return np.array(inputs.input_ids)[0].tolist()
