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
import torch
from transformers import AutoTokenizer
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.gemma4.processing_gemma4 import Gemma4Processor
from transformers.models.gemma4_unified.feature_extraction_gemma4_unified import Gemma4UnifiedAudioFeatureExtractor
from transformers.models.gemma4_unified.processing_gemma4_unified import Gemma4UnifiedProcessor

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


class UnifiedReferenceProcessor(Gemma4UnifiedProcessor):
    """The 12B's, with its video processor left out and its picture processor, which is torchvision's too, below."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument_name in ("video_processor", "image_processor"):
            return None
        return super().check_argument_for_proper_class(argument_name, argument)


class UnifiedPictures(Gemma4ImageProcessorPil):
    """The other sizes' pictures, which are resized alike, joined to squares of 48 pixels."""

    def preprocess(self, *args: Any, **kwargs: Any) -> Any:
        cut = super().preprocess(*args, **kwargs)
        joined = [
            joined_patches(np.asarray(patches), np.asarray(places))
            for patches, places in zip(cut["pixel_values"], cut["image_position_ids"], strict=True)
        ]
        most = max(len(squares) for squares, _ in joined)
        pads = [[(0, most - len(squares)), (0, 0)] for squares, _ in joined]
        squares = np.stack([np.pad(s, pad) for (s, _), pad in zip(joined, pads, strict=True)])
        places = np.stack([np.pad(p, pad, constant_values=-1) for (_, p), pad in zip(joined, pads, strict=True)])
        cut["pixel_values"], cut["image_position_ids"] = torch.tensor(squares), torch.tensor(places)
        return cut


def joined_patches(patches: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patches of 16 pixels and their (x, y), padded with -1 → squares of 48 pixels, and theirs, in raster order."""
    picture = np.zeros(((places[:, 1].max() + 1) * 16, (places[:, 0].max() + 1) * 16, 3), np.float32)
    for patch, (x, y) in zip(patches, places, strict=True):
        if x >= 0:
            picture[y * 16 : (y + 1) * 16, x * 16 : (x + 1) * 16] = patch.reshape(16, 16, 3)
    height, width, _ = picture.shape
    corners = [(x, y) for y in range(height // 48) for x in range(width // 48)]
    squares = [picture[y * 48 : (y + 1) * 48, x * 48 : (x + 1) * 48].ravel() for x, y in corners]
    return np.stack(squares), np.array(corners)


@lru_cache(maxsize=1)
def tokenizer_folder() -> Path:
    """A folder with the tiny tokenizer's files, written once for all tests of a run; not to be changed."""
    write_tokenizer(_FOLDER.name)
    return Path(_FOLDER.name)


@lru_cache(maxsize=2)
def reference_processor(variant: str = "e2b") -> Any:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder())
    if variant == "unified":
        return UnifiedReferenceProcessor(
            Gemma4UnifiedAudioFeatureExtractor(),
            UnifiedPictures(),
            tokenizer,
            None,
            chat_template=tokenizer.chat_template,
        )
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
    variant: str = "e2b",
    **kwargs: Any,
) -> dict[str, Any]:
    """What transformers makes of the same messages, for the 12B (`"unified"`) or any other size."""
    return reference_processor(variant).apply_chat_template(
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
