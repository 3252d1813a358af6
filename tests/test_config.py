"""`config.json`, in both spellings, into a configuration; and what is refused, by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from mlx.utils import tree_flatten
from transformers import Gemma4Config

from checkpoints import VARIANTS, raw_config
from gemma4_mlx import ConfigError
from gemma4_mlx.config import Config
from gemma4_mlx.model import Gemma4

CONFIGS = Path(__file__).parent / "configs"  # the published config.json of each size
SIZES = {"e2b": 5.10e9, "e4b": 7.94e9, "26b-a4b": 25.8e9, "31b": 31.3e9}


def published(size: str) -> dict[str, Any]:
    return json.loads((CONFIGS / f"{size}.json").read_text())


@pytest.mark.parametrize("size", SIZES)
def test_every_published_size_builds_lazily_with_its_parameter_count(size: str) -> None:
    model = Gemma4(Config.from_dict(published(size)))
    count = sum(array.size for _, array in tree_flatten(model.parameters()))
    assert count == pytest.approx(SIZES[size], rel=2e-3)


@pytest.mark.parametrize("size", SIZES)
def test_the_spelling_transformers_writes_gives_the_same_configuration(size: str) -> None:
    rewritten = json.loads(Gemma4Config(**published(size)).to_json_string(use_diff=False))
    assert "per_layer_config" in rewritten["text_config"]
    assert "global_head_dim" not in rewritten["text_config"]
    assert Config.from_dict(rewritten) == Config.from_dict(published(size))


@pytest.mark.parametrize("variant", VARIANTS)
def test_zero_padded_layer_indices_are_read(variant: str) -> None:
    raw = raw_config(variant, "per_layer")
    overrides = raw["text_config"]["per_layer_config"]
    raw["text_config"]["per_layer_config"] = {f"{int(index):02d}": values for index, values in overrides.items()}
    assert Config.from_dict(raw) == Config.from_dict(raw_config(variant))


def test_unknown_keys_are_dropped() -> None:
    raw = raw_config("e2b")
    expected = Config.from_dict(copy.deepcopy(raw))
    for part in (raw, raw["text_config"], raw["vision_config"], raw["audio_config"]):
        part["invented_next_year"] = {"a": 1}
    assert Config.from_dict(raw) == expected


def test_kv_shared_layers_read_the_last_layer_of_their_kind() -> None:
    text = Config.from_dict(published("e2b")).text
    assert [text.kv_source(i) for i in (0, 13, 14, 15, 18, 19, 34)] == [0, 13, 14, 13, 13, 14, 14]
    assert [text.layer_intermediate_size(i) for i in (14, 15)] == [6144, 12288]


def test_k_and_v_are_one_on_the_full_layers_of_the_large_sizes_alone() -> None:
    large, small = (Config.from_dict(published(size)).text for size in ("26b-a4b", "e2b"))
    assert [large.layer_shares_k_and_v(i) for i in (4, 5)] == [False, True]
    assert [large.layer_kv_heads(i) for i in (4, 5)] == [8, 2]
    assert not any(small.layer_shares_k_and_v(i) for i in range(35))


# Where in the config, the key, a value it cannot have.
IMPOSSIBLE = [
    ("", "model_type", "llama"),
    ("", "text_config", None),
    ("text_config", "num_hidden_layers", 0),
    ("text_config", "hidden_size", None),
    ("text_config", "hidden_size", -64),
    ("text_config", "head_dim", 33),
    ("text_config", "num_key_value_heads", 3),
    ("text_config", "layer_types", ["sliding_attention"]),
    ("text_config", "layer_types", ["sliding_attention", "linear_attention"] * 3 + ["full_attention"]),
    ("text_config", "num_kv_shared_layers", 7),
    ("text_config", "num_kv_shared_layers", 6),
    ("text_config", "hidden_activation", "relu"),
    ("text_config", "final_logit_softcapping", 0),
    ("text_config", "use_bidirectional_attention", "all"),
    ("text_config", "hidden_size_per_layer_input", -1),
    ("text_config", "sliding_window", 0),
    ("text_config", "rope_parameters", {"full_attention": {"rope_type": "yarn", "rope_theta": 1e6}}),
    ("text_config", "per_layer_config", {"two": {"head_dim": 64}}),
    ("text_config", "per_layer_config", {"0": {"head_dim": 64}}),
    ("vision_config", "patch_size", 0),
    ("vision_config", "head_dim", 18),
    ("audio_config", "subsampling_conv_channels", [128]),
    ("audio_config", "num_attention_heads", 3),
    ("audio_config", "hidden_act", "gelu"),
]


@pytest.mark.parametrize(("part", "key", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_with_its_key(part: str, key: str, value: object) -> None:
    raw = raw_config("e2b")
    (raw[part] if part else raw)[key] = value
    with pytest.raises(ConfigError, match=key) as refusal:
        Config.from_dict(raw)
    assert "\n" not in str(refusal.value)


def test_experts_without_a_number_are_refused() -> None:
    raw = raw_config("moe")
    raw["text_config"]["top_k_experts"] = 9
    with pytest.raises(ConfigError, match="top_k_experts is 9"):
        Config.from_dict(raw)
