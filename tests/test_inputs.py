"""Prompts cut into pieces, and soft tokens that must find their places."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import raw_config
from gemma4_mlx import InputError, ModelInputs
from gemma4_mlx.config import Config
from gemma4_mlx.model import Gemma4, ImagePatches
from gemma4_mlx.model.inputs import split_inputs
from parity import pair
from tiny_tokenizer import SPECIAL_IDS

CONFIG = Config.from_dict(raw_config("e2b"))
IMAGE, VIDEO, AUDIO = (SPECIAL_IDS[f"<|{kind}|>"] for kind in ("image", "video", "audio"))


@st.composite
def prompts(draw: st.DrawFn) -> ModelInputs:
    """Text, pictures, frames and clips in any order, each medium between its marks as in a real prompt."""
    ids: list[int] = []
    images, clips = [], []
    for kind in draw(st.lists(st.sampled_from(["text", "image", "video", "audio"]), min_size=1, max_size=8)):
        size = draw(st.integers(1, 40))
        if kind == "text":
            ids += draw(st.lists(st.integers(30, 500), min_size=size, max_size=size))
            continue
        ids += [200, *[{"image": IMAGE, "video": VIDEO, "audio": AUDIO}[kind]] * size, 201]
        # What they hold does not matter here, only which is which.
        if kind == "audio":
            clips.append(mx.full((1, 1), len(clips)))
        else:
            images.append(ImagePatches(mx.full((1, 1), len(images)), size, 9))
    return ModelInputs(mx.array([ids]), tuple(images), tuple(clips))


@settings(max_examples=200)
@given(inputs=prompts(), size=st.integers(1, 60))
def test_the_pieces_of_a_prompt_are_the_prompt_and_cut_no_picture_and_no_clip(inputs: ModelInputs, size: int) -> None:
    pieces = split_inputs(inputs, CONFIG, size)
    assert np.array_equal(np.concatenate([np.array(p.input_ids)[0] for p in pieces]), np.array(inputs.input_ids)[0])
    assert [id(image) for piece in pieces for image in piece.images] == [id(image) for image in inputs.images]
    assert [id(clip) for piece in pieces for clip in piece.sounds] == [id(clip) for clip in inputs.sounds]
    for piece in pieces:
        ids = np.array(piece.input_ids)[0]
        runs = np.count_nonzero(np.diff(np.isin(ids, (IMAGE, VIDEO)), prepend=False, append=False)) // 2
        assert runs == len(piece.images)
        filled = sum(image.rows for image in piece.images)
        assert np.isin(ids, (IMAGE, VIDEO)).sum() == filled
        longest_run = 40
        assert len(ids) <= max(size, longest_run)


def test_a_piece_has_at_least_one_token() -> None:
    with pytest.raises(ValueError, match="max_tokens must be at least 1"):
        split_inputs(ModelInputs(mx.array([[30]])), CONFIG, 0)


def test_a_placeholder_without_a_soft_token_is_an_error() -> None:
    model = pair("e2b").model
    clip = mx.zeros((8, 128))
    with pytest.raises(ValueError, match="3 placeholders in the ids, but 2 soft tokens"):
        model(ModelInputs(mx.array([[30, AUDIO, AUDIO, AUDIO]]), sounds=(clip,)))


def test_sound_for_a_model_without_ears_names_those_that_hear() -> None:
    deaf = Gemma4(Config.from_dict(raw_config("dense")))
    with pytest.raises(InputError, match="e2b, e4b or 12b"):
        deaf(ModelInputs(mx.array([[AUDIO]]), sounds=(mx.zeros((4, 128)),)))


def test_no_tokens_at_all_are_an_error() -> None:
    with pytest.raises(ValueError, match="not empty"):
        pair("e2b").model(mx.zeros((1, 0), mx.int32))


def test_a_placeholder_the_model_wrote_itself_is_read_as_the_reference_reads_it() -> None:
    import torch

    checkpoint = pair("e2b")
    ids = np.array([[30, IMAGE, 40, AUDIO, VIDEO, 50]])
    with torch.no_grad():
        theirs = checkpoint.reference(input_ids=torch.tensor(ids)).logits.numpy()
    assert np.abs(np.array(checkpoint.model(mx.array(ids))) - theirs).max() < 1e-3 * theirs.std()


@pytest.mark.parametrize("ids", [[[5, 99_999]], [[-600, 5]], [[5, 512]]])
def test_ids_outside_the_vocabulary_are_an_error_and_not_the_end_of_the_process(ids: list[list[int]]) -> None:
    model = pair("e2b").model
    cache = model.make_cache()
    for inputs in (mx.array(ids), np.array(ids), ModelInputs(mx.array(ids))):
        with pytest.raises(ValueError, match="token ids lie between 0 and 511"):
            model(inputs, cache=cache)
    assert cache[0].offset == 0


def test_a_numpy_array_of_ids_is_as_good_as_an_mlx_one() -> None:
    model = pair("e2b").model
    assert mx.array_equal(model(np.array([[30, 40, 50]])), model(mx.array([[30, 40, 50]])))
