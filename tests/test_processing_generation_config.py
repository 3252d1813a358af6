"""generation_config.json: what generation reads from it is checked when the checkpoint is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import pytest

from checkpoints import raw_config
from gemma4_mlx import CheckpointError, Processor
from gemma4_mlx.config import Config
from gemma4_mlx.generation.answers import Request, end_of_turn_ids, sampling_settings
from gemma4_mlx.generation.sampling import make_sampler
from tiny_tokenizer import write_tokenizer

CONFIG = Config.from_dict(raw_config("e2b"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "hot"),
        ("temperature", -1),
        ("top_p", -0.5),
        ("top_p", [0.9]),
        ("top_k", True),
        ("top_k", float("nan")),
        ("top_k", float("inf")),
        ("temperature", float("nan")),
        ("top_k", 1.5),
        ("do_sample", "yes"),
        ("eos_token_id", "one"),
        ("eos_token_id", [1, None]),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_file(key: str, value: object, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({key: value}))
    with pytest.raises(CheckpointError, match=rf"generation_config.json: {key} is .*, must be") as error:
        Processor.from_folder(tmp_path, CONFIG)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "written", "read"),
    [
        ("top_k", -1, 0),
        ("top_k", 64.0, 64),
        ("top_k", 0, 0),
        ("top_k", None, None),
        ("top_p", 1.5, 1.0),
        ("top_p", 1, 1),
        ("top_p", None, None),
        ("temperature", None, None),
        ("temperature", 1, 1),
        ("do_sample", 0, False),
        ("do_sample", None, None),
        ("eos_token_id", None, None),
        ("eos_token_id", 1.0, 1),
        ("eos_token_id", -1, []),
        ("eos_token_id", [1, -1, 6], [1, 6]),
        ("eos_token_id", [], []),
        ("min_p", 0.1, 0.1),
        ("typical_p", 0.9, 0.9),
        ("pad_token_id", None, None),
    ],
)
def test_every_way_to_write_a_choice_that_the_reference_loads_is_read(
    key: str, written: object, read: object, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({key: written}))
    processor = Processor.from_folder(tmp_path, CONFIG)
    assert processor.generation_config == {key: read}
    settings = sampling_settings(processor.generation_config, Request())
    make_sampler(**settings)
    assert end_of_turn_ids(processor)


def test_top_p_0_keeps_the_most_likely_token_alone(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"top_p": 0, "top_k": -1, "temperature": 1.5}')
    processor = Processor.from_folder(tmp_path, CONFIG)
    draw = make_sampler(**sampling_settings(processor.generation_config, Request()))
    logits = mx.random.normal((1, 512), key=mx.random.key(3))
    for seed in range(20):
        assert draw(logits, mx.random.key(seed))[0].item() == logits.argmax().item()


def test_keys_that_nobody_reads_may_be_anything(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    content = {"temperature": 0, "top_k": None, "eos_token_id": [1, 6], "watermark": "?"}
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    assert Processor.from_folder(tmp_path, CONFIG).generation_config == content
