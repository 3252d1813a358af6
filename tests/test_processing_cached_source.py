"""Pictures, sounds and videos that are in many prompts: prepared once, and the same as if each time anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gemma4_mlx.errors import InputError
from gemma4_mlx.model.inputs import ModelInputs
from gemma4_mlx.processing import CachedSource
from processing_reference import SPEECH, ids_of, our_processor
from test_processing_video import recorded


def gradient(width: int, height: int) -> Image.Image:
    return Image.radial_gradient("L").resize((width, height)).convert("RGB")


def prompt(kind: str, source: Any, image_tokens: int = 280) -> ModelInputs:
    return our_processor()([{"role": "user", "content": [{"type": kind, kind: source}]}], image_tokens=image_tokens)


def assert_equal(ours: ModelInputs, theirs: ModelInputs) -> None:
    assert ids_of(ours) == ids_of(theirs)
    features = [[*(image.patches for image in inputs.images), *inputs.sounds] for inputs in (ours, theirs)]
    assert features[0]
    for one, other in zip(*features, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))


def a_file(folder: Path, kind: str) -> Path:
    file = folder / {"image": "cat.png", "audio": "memo.flac", "video": "clip.mp4"}[kind]
    match kind:
        case "image":
            gradient(400, 300).save(file)
        case "audio":
            file.write_bytes(Path(SPEECH).read_bytes())
        case "video":
            file.write_bytes(recorded(40, 25, "mp4", "libx264"))
    return file


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_a_cached_file_is_read_once_and_gives_the_same_prompt_without_it(tmp_path: Path, kind: str) -> None:
    file = a_file(tmp_path, kind)
    plain, cached = prompt(kind, file), CachedSource(file)
    assert_equal(prompt(kind, cached), plain)
    file.unlink()
    assert_equal(prompt(kind, cached), plain)
    with pytest.raises(InputError, match="does not exist"):
        prompt(kind, file)


def test_a_cached_picture_follows_another_budget() -> None:
    picture = gradient(400, 300)
    cached = CachedSource(picture)
    for image_tokens in (280, 70, 280):
        assert_equal(prompt("image", cached, image_tokens), prompt("image", picture, image_tokens))


def test_a_cached_source_that_cannot_be_used_is_named_as_it_would_be_without() -> None:
    for source, words in ((b"words", "the picture given as bytes is not a picture"), ("/none.png", "/none.png does")):
        with pytest.raises(InputError, match=words):
            prompt("image", CachedSource(source))
