"""generation_config.json: what generation reads from it is checked when the checkpoint is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checkpoints import raw_config
from gemma4_mlx import CheckpointError, Processor
from gemma4_mlx.config import Config
from tiny_tokenizer import write_tokenizer

CONFIG = Config.from_dict(raw_config("e2b"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "hot"),
        ("temperature", -1),
        ("top_p", 0),
        ("top_p", [0.9]),
        ("top_k", -4),
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


def test_keys_that_nobody_reads_may_be_anything(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    content = {"temperature": 0, "top_k": None, "eos_token_id": [1, 6], "watermark": "?"}
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    assert Processor.from_folder(tmp_path, CONFIG).generation_config == content
