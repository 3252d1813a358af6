"""The 12B, which sees and hears without towers, against transformers in fp32 with the masks that it generates with."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import gemma4_mlx as g4
from checkpoints import build_checkpoint, raw_config
from gemma4_mlx import CheckpointError, ConfigError, InputError
from gemma4_mlx.config import Config
from gemma4_mlx.config_unified import UnifiedAudioConfig, UnifiedVisionConfig
from gemma4_mlx.model import Gemma4, ImagePatches
from gemma4_mlx.processing.images import image_patches
from parity import Question, pair
from test_parity import TOLERANCE, assert_same, picture, sound, text, user

PUBLISHED = Path(__file__).parents[2] / "shared" / "configs" / "12b.json"


def checkpoint(folder: Path, drop: str = "nothing", rename: dict[str, str] | None = None) -> Path:
    """A 12B-like checkpoint without the tensors that have `drop` in their names, others renamed."""
    build_checkpoint(folder, "unified")
    path = folder / "model.safetensors"
    tensors = {name: array for name, array in load_file(path).items() if drop not in name}
    for old, new in (rename or {}).items():
        tensors = {re.sub(old, new, name): array for name, array in tensors.items()}
    save_file(tensors, path, {"format": "pt"})
    return folder


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("image_tokens", [70, 280, 1120])
def test_pictures_of_three_budgets_have_the_reference_logits(image_tokens: int, seed: int) -> None:
    question = pair("unified", seed).ask(user(text("What is in"), picture(320, 240), text("this?")), image_tokens)
    # The largest is 29 windows of the sliding layers long.
    assert len(question.pair.model.encode_images(question.ours)[0]) > 0.8 * image_tokens
    if image_tokens < 1120:
        assert_same(question)
    else:
        assert question.error(question.logits()) < TOLERANCE


@pytest.mark.parametrize("samples", [1, 160, 639, 640, 641, 1_600, 32_000, 479_361, 480_000])
def test_sound_of_nine_lengths_has_the_reference_logits_and_a_token_for_every_640_samples(samples: int) -> None:
    question = pair("unified").ask(user(text("Write down"), sound(samples)))
    assert len(question.pair.model.encode_audio(question.ours)[0]) == -(-samples // 640)
    if samples < 100_000:
        assert_same(question)
    else:
        assert question.error(question.logits()) < TOLERANCE


def test_two_pictures_that_touch_and_sound_between_others_are_read_step_by_step_past_the_window() -> None:
    question = pair("unified", 1).ask(
        user(picture(200, 200), picture(200, 200, 1), sound(20_000), picture(64, 300, 2), text("which? " * 20)), 70
    )
    assert question.ours.input_ids.shape[1] > 4 * question.pair.model.config.text.sliding_window
    assert_same(question)
    assert question.error(question.logits(max_tokens=1)) < TOLERANCE


def test_a_video_with_its_sound_has_the_reference_logits() -> None:
    checkpoint = pair("unified")
    config = checkpoint.model.config
    frames = [image_patches(picture(96, 144, seed)["image"], 70) for seed in range(3)]
    counts = [frame.rows * frame.columns // 9 for frame in frames]
    runs = " ".join(f"00:0{i} <|image>{'<|video|>' * n}<image|>" for i, n in enumerate(counts))
    samples = sound(2_000)["audio"]
    ids = checkpoint.processor.tokenizer.encode(
        f"<bos><|turn>user\nWhat moves? {runs}<|audio>{'<|audio|>' * 4}<audio|><turn|>\n<|turn>model\n"
    )
    heard = np.pad(samples, (0, 560)).reshape(4, 640)
    ours = g4.ModelInputs(mx.array([ids], mx.int32), tuple(frames), (mx.array(heard),))
    theirs = {
        "input_ids": torch.tensor([ids]),
        "pixel_values_videos": torch.tensor(np.stack([squares(frame) for frame in frames])),
        "video_position_ids": torch.tensor(np.stack([places(frame) for frame in frames])),
        "num_frames_per_video": torch.tensor([len(frames)]),
        "input_features": torch.tensor(heard[None]),
        "input_features_mask": torch.ones(1, 4, dtype=torch.bool),
        "mm_token_type_ids": torch.tensor([[2 if i == config.video_token_id else 0 for i in ids]]),
    }
    assert_same(Question(checkpoint, ours, theirs))


def squares(image: ImagePatches) -> np.ndarray:
    """`[n, 48 * 48 * 3]`, cut out of the whole picture."""
    pixels = np.array(image.patches).reshape(image.rows, image.columns, 16, 16, 3)
    whole = pixels.transpose(0, 2, 1, 3, 4).reshape(16 * image.rows, 16 * image.columns, 3)
    return np.stack([whole[48 * y : 48 * y + 48, 48 * x : 48 * x + 48].ravel() for x, y in places(image)])


def places(image: ImagePatches) -> np.ndarray:
    return np.array([(x, y) for y in range(image.rows // 3) for x in range(image.columns // 3)])


RENAMED = {
    "embed_vision.embedding_projection": "embed_vision.multimodal_embedder.embedding_projection",
    "vision_embedder.": "embed_vision.",
}


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_both_names_of_its_tensors_are_read(prefix: str, tmp_path: Path) -> None:
    model, processor = g4.load(checkpoint(tmp_path, rename={**RENAMED, "^model.": prefix}))
    inputs = processor(user(picture(160, 120), sound(3_000), text("What?")), image_tokens=70)
    expected = np.array(pair("unified").model(inputs))
    np.testing.assert_array_equal(np.array(model(inputs)), expected)


def test_the_same_tensor_under_both_names_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_vision.pos_embedding"] = tensors["model.vision_embedder.pos_embedding"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="are the same weight"):
        g4.load(folder)


LARGE_TEMPLATE = PUBLISHED.parents[1] / "real" / "templates" / "31b.jinja"


@pytest.mark.skipif(not LARGE_TEMPLATE.is_file(), reason="needs ../shared/real/templates/31b.jinja")
def test_without_thinking_the_answer_begins_after_an_empty_thought(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    (folder / "chat_template.jinja").write_bytes(LARGE_TEMPLATE.read_bytes())
    _, processor = g4.load(folder)
    assert processor.render("Hello").endswith("<|turn>model\n<|channel>thought\n<channel|>")
    assert processor.render("Hello", thinking=True).endswith("<|turn>model\n")


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs ../shared/configs/12b.json")
def test_the_published_config_is_the_one_the_tests_have() -> None:
    ours = json.loads((Path(__file__).parent / "configs" / "12b.json").read_text())
    assert Config.from_dict(ours) == Config.from_dict(json.loads(PUBLISHED.read_text()))


def test_what_its_file_leaves_out_is_what_transformers_takes_for_it() -> None:
    from transformers.models.gemma4_unified import (
        Gemma4UnifiedAudioConfig,
        Gemma4UnifiedTextConfig,
        Gemma4UnifiedVisionConfig,
    )

    raw = {"model_type": "gemma4_unified", "text_config": {}, "vision_config": {}, "audio_config": {}}
    ours = Config.from_dict(raw)
    theirs = Gemma4UnifiedTextConfig()
    for key in ("hidden_size", "sliding_window", "max_position_embeddings", "use_bidirectional_attention"):
        assert getattr(ours.text, key) == getattr(theirs, key)
    assert ours.text.hidden_size_per_layer_input == 0
    eyes, ears = Gemma4UnifiedVisionConfig(), Gemma4UnifiedAudioConfig()
    assert ours.vision == UnifiedVisionConfig(
        eyes.patch_size, eyes.pooling_kernel_size, eyes.mm_embed_dim, eyes.mm_posemb_size, eyes.rms_norm_eps
    )
    assert ours.audio == UnifiedAudioConfig(ears.audio_embed_dim, ears.rms_norm_eps)


def test_a_decoder_alone_is_a_model_without_eyes_and_ears(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, drop="embed_", rename={"model.language_model.": "model."})
    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items() if "vision" not in k}
    whole = load_file(pair("unified").folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] = whole["model.language_model.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(raw_config("unified")["text_config"]))
    model, _ = g4.load(folder)
    ids = mx.array([[2, 50, 61, 200]])
    np.testing.assert_array_equal(np.array(model(ids)), np.array(pair("unified").model(ids)))


IMPOSSIBLE = [
    ("text_config", "hidden_size_per_layer_input", 256),
    ("text_config", "enable_moe_block", True),
    ("vision_config", "model_patch_size", 32),
    ("vision_config", "output_proj_dims", 640),
    ("vision_config", "mm_posemb_size", 0),
    ("vision_config", "mm_embed_dim", 1 << 30),
    ("vision_config", "rms_norm_eps", None),
    ("vision_config", "patch_size", "16"),
    ("audio_config", "audio_embed_dim", 320),
    ("audio_config", "audio_samples_per_token", 0),
    ("audio_config", "hidden_size", [640]),
    ("audio_config", "output_proj_dims", True),
    ("audio_config", "rms_norm_eps", -1.0),
]


@pytest.mark.parametrize(("part", "key", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_with_its_key(part: str, key: str, value: object) -> None:
    raw = raw_config("unified")
    raw[part][key] = value
    if key == "audio_embed_dim":
        key = "audio_samples_per_token"  # it is the other three that then say something else
    with pytest.raises(ConfigError, match=key) as refusal:
        Config.from_dict(raw)
    assert "\n" not in str(refusal.value)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_value_anywhere_is_a_model_or_a_config_error(data: st.DataObject) -> None:
    raw = raw_config("unified")
    part = raw[data.draw(st.sampled_from(["vision_config", "audio_config"]))]
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(
        st.none() | st.booleans() | st.integers(-2, 2000) | st.floats() | st.text(max_size=3) | st.lists(st.just(1))
    )
    with contextlib.suppress(ConfigError):
        Gemma4(Config.from_dict(raw))


def test_without_its_tensors_for_sound_it_reads_and_sees_and_says_that_it_does_not_hear(tmp_path: Path) -> None:
    model, processor = g4.load(checkpoint(tmp_path, drop="embed_audio"))
    assert model.config.audio is None
    assert model(processor(user(picture(100, 100), text("What?")), image_tokens=70)).shape[0] == 1
    for ask in (
        lambda: processor(user(sound(3_000))),
        model.audio_stream,
        lambda: model.encode_audio(g4.ModelInputs(mx.array([[2]]), sounds=(mx.zeros((1, 640)),))),
        lambda: g4.transcribe(model, processor, np.zeros(16_000, np.float32)),
    ):
        with pytest.raises(InputError, match=r"this checkpoint does not hear.*e2b, e4b or 12b"):
            ask()


def test_without_all_its_tensors_for_pictures_it_reads_and_hears_and_says_that_it_does_not_see(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, drop="vision")
    model, processor = g4.load(folder)
    assert model.config.vision is None
    assert model(processor(user(sound(3_000), text("What?")))).shape[0] == 1
    with pytest.raises(InputError, match="does not see"):
        processor(user(picture(100, 100)))


@pytest.mark.parametrize(
    "drop", ["embed_vision", "vision_embedder", "patch_dense.bias", "pos_embedding", "pos_norm.weight", "patch_ln1"]
)
def test_without_some_of_its_tensors_for_pictures_it_is_refused_with_their_names(drop: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"missing \((?=.*{drop.split('.')[0]})") as refusal:
        g4.load(checkpoint(tmp_path, drop=drop))
    assert "\n" not in str(refusal.value)


def test_sound_of_no_samples_is_refused_and_one_sample_is_a_token() -> None:
    processor = pair("unified").processor
    for empty in (np.zeros(0, np.float32), (np.zeros(0), 44_100), np.zeros((0, 2), np.float32), np.zeros(0, np.int16)):
        with pytest.raises(InputError, match="has no samples"):
            processor(user({"type": "audio", "audio": empty}))
    assert [len(clip) for clip in processor(user(sound(1))).sounds] == [1]


def test_a_sound_that_was_prepared_for_another_size_is_prepared_again() -> None:
    source = g4.processing.CachedSource(sound(3_200)["audio"])
    shapes = [
        pair(variant).processor(user({"type": "audio", "audio": source})).sounds[0].shape
        for variant in ("e2b", "unified", "e2b")
    ]
    assert shapes == [(19, 128), (5, 640), (19, 128)]


def test_a_picture_longer_than_the_position_table_is_refused() -> None:
    raw = raw_config("unified")
    raw["vision_config"]["mm_posemb_size"] = 4
    model = Gemma4(Config.from_dict(raw))
    wide = ImagePatches(mx.zeros((45, 768)), rows=3, columns=15)
    with pytest.raises(InputError, match="5 soft tokens, 4 is the most"):
        model.encode_images(g4.ModelInputs(mx.array([[2]]), images=(wide,)))


@pytest.mark.parametrize(("key", "value"), [("feature_size", 128), ("audio_samples_per_token", 320)])
def test_a_processor_that_cuts_sound_otherwise_is_refused(key: str, value: int, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    path = folder / "processor_config.json"
    said: dict[str, Any] = json.loads(path.read_text())
    said["feature_extractor"][key] = value
    path.write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match=f"feature_extractor.{key} is {value}, only 640"):
        g4.load(folder)


@pytest.mark.parametrize("recipe", ["4bit", "8bit", "mxfp4", "bf16", "speech"])
def test_every_recipe_converts_it_and_keeps_eyes_and_ears_to_the_bit(recipe: str, tmp_path: Path) -> None:
    folder = g4.convert(pair("unified").folder, tmp_path / "out", recipe=recipe, dtype="float32")
    model, processor = g4.load(folder)
    inputs = processor(user(picture(160, 120), sound(3_000), text("What?")), image_tokens=70)
    for encode in ("encode_images", "encode_audio"):
        (ours,), (theirs,) = getattr(model, encode)(inputs), getattr(pair("unified").model, encode)(inputs)
        np.testing.assert_array_equal(np.array(ours), np.array(theirs))
    assert np.isfinite(np.array(model(inputs))).all()
