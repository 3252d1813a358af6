"""`config.json`, in both spellings, into a configuration; and what is refused, by name."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from transformers import Gemma4AudioConfig, Gemma4Config, Gemma4TextConfig, Gemma4VisionConfig
from transformers.models.gemma4_unified import Gemma4UnifiedConfig

from checkpoints import VARIANTS, raw_config
from gemma4_mlx import CheckpointError, ConfigError
from gemma4_mlx.checkpoint import read_config
from gemma4_mlx.config import AudioConfig, Config, TextConfig, VisionConfig
from gemma4_mlx.config_rules import FULL, SLIDING
from gemma4_mlx.model import Gemma4

CONFIGS = Path(__file__).parent / "configs"  # the published config.json of each size
SIZES = {"e2b": 5.10e9, "e4b": 7.94e9, "12b": 11.96e9, "26b-a4b": 25.8e9, "31b": 31.3e9}


def published(size: str) -> dict[str, Any]:
    return json.loads((CONFIGS / f"{size}.json").read_text())


@pytest.mark.parametrize("size", SIZES)
def test_every_published_size_builds_lazily_with_its_parameter_count(size: str) -> None:
    model = Gemma4(Config.from_dict(published(size)))
    count = sum(array.size for _, array in tree_flatten(model.parameters()))
    assert count == pytest.approx(SIZES[size], rel=2e-3)


@pytest.mark.parametrize("size", SIZES)
def test_the_spelling_transformers_writes_gives_the_same_configuration(size: str) -> None:
    theirs = Gemma4UnifiedConfig if size == "12b" else Gemma4Config
    rewritten = json.loads(theirs(**published(size)).to_json_string(use_diff=False))
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


def test_kv_shared_layers_have_a_wider_mlp() -> None:
    text = Config.from_dict(published("e2b")).text
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
    ("audio_config", "subsampling_conv_channels", [1, 8]),
    ("audio_config", "num_attention_heads", 3),
    ("audio_config", "attention_window", 14),
    ("audio_config", "hidden_act", "gelu"),
]


@pytest.mark.parametrize(("part", "key", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_with_its_key(part: str, key: str, value: object) -> None:
    raw = raw_config("e2b")
    (raw[part] if part else raw)[key] = value
    with pytest.raises(ConfigError, match=key) as refusal:
        Config.from_dict(raw)
    assert "\n" not in str(refusal.value)


HUGE = [
    ("text_config", key) for key in ("num_hidden_layers", "hidden_size", "head_dim", "global_head_dim", "vocab_size")
]
HUGE += [("text_config", key) for key in ("intermediate_size", "num_attention_heads", "hidden_size_per_layer_input")]
HUGE += [("vision_config", key) for key in ("num_hidden_layers", "head_dim", "position_embedding_size", "patch_size")]
HUGE += [("audio_config", key) for key in ("num_hidden_layers", "hidden_size", "attention_context_left")]


@pytest.mark.parametrize(("part", "key"), HUGE)
@pytest.mark.parametrize("value", [10**9, 2 * 10**9, 10**4000, 1e30])
def test_a_size_no_model_has_is_refused_before_anything_is_built(part: str, key: str, value: float) -> None:
    raw = raw_config("e2b")
    raw[part][key] = value
    if key == "num_hidden_layers":
        raw[part].pop("layer_types", None)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=f"{key} is .*at most") as refusal:
        Config.from_dict(raw)
    assert time.perf_counter() - start < 0.5
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_the_largest_config_that_is_allowed_is_built_in_a_moment() -> None:
    raw = raw_config("dense")
    raw["text_config"] |= {
        "num_hidden_layers": 1000,
        "layer_types": None,
        "head_dim": 1 << 14,
        "global_head_dim": 1 << 14,
    }
    raw["text_config"] |= {"hidden_size": 1 << 20, "vocab_size": 1 << 24, "intermediate_size": 1 << 20}
    start = time.perf_counter()
    Gemma4(Config.from_dict(raw))
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b'{"a":' * 200_000, b"\xff\xfe", b"[]", b" " * (17 << 20), b"1" * 5000]
)
def test_a_config_file_that_is_damaged_deep_or_endless_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json") as refusal:
        read_config(tmp_path)
    assert "\n" not in str(refusal.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
PLACES = [(part, key) for part in ("text_config", "vision_config", "audio_config") for key in raw_config("e2b")[part]]
PLACES += [("", key) for key in raw_config("e2b")]
PLACES += [("text_config", key) for key in ("num_experts", "per_layer_config", "dtype", "tie_word_embeddings")]
PLACES += [("vision_config", "rope_parameters"), ("", "quantization"), ("", "quantization_config"), ("", "dtype")]


@settings(max_examples=400, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_anywhere_is_a_configuration_or_a_config_error(place: tuple[str, str], value: Any) -> None:
    part, key = place
    raw = raw_config("e2b")
    (raw[part] if part else raw)[key] = value
    # No other exception, neither here nor where a model is built of it.
    with contextlib.suppress(ConfigError):
        Gemma4(Config.from_dict(raw))


# What no field of an annotation can hold, whatever its name.
WRONG: dict[str, list[object]] = {
    "int": [True, "7", [7], {}, {"a": 1}, 1.5, -1, -1.0, float("nan"), float("inf"), 10**400, 1e300],
    "float": [True, False, "1e-6", [1.0], {}, float("nan"), float("-inf"), 1e300, 10**400],
    "bool": ["true", 0, 1, 1.0, [], {}, [True]],
    "str": [True, 0, 1.5, [], {}, ["vision"]],
    "Literal": [True, 0, 1.5, [], {}, "anything", ["vision"], {"vision": 1}],
    "tuple": [True, 0, 1.5, "", "ab", {}, {"a": 1}, [None], [[]], ["a", "b"], [True, True], [1, 2, 3], [-1, 1]],
}
#: Where null is neither "none" nor "the default".
NEVER_NULL = ("int", "float")
COUNTED = {"text_config": TextConfig, "vision_config": VisionConfig, "audio_config": AudioConfig, "": Config}
WRONG_VALUES = [
    (part, field.name, value)
    for part, cls in COUNTED.items()
    for field in dataclasses.fields(cls)
    for kind, values in WRONG.items()
    if str(field.type).startswith(kind)
    for value in (*values, *([None] if field.type in NEVER_NULL and not field.name.endswith("_token_id") else []))
    # The published files say these in a place of their own, below; `dtype` of another kind than text is told below.
    if not (field.name == "rope_theta" or (field.name == "dtype" and isinstance(value, str)))
]
WRONG_VALUES += [("", key, value) for key in ("dtype", "torch_dtype") for value in (True, 0, [], {})]
WRONG_VALUES += [("text_config", "dtype", value) for value in (True, 0, [], {})]
WRONG_VALUES += [("", key, v) for key in ("quantization", "quantization_config") for v in (True, 0, 1.5, "a", [], [1])]
WRONG_VALUES += [("", "eoa_token_index", value) for value in WRONG["int"]]
WRONG_VALUES += [(part, "rope_parameters", v) for part in ("text_config", "vision_config") for v in (0, True, "a", [1])]
WRONG_VALUES += [
    ("text_config", "per_layer_config", v) for v in (0, True, "a", [], {"5": 1}, {"5": [["head_dim", 64]]})
]
WRONG_VALUES += [(part, "hidden_activation", v) for part in ("text_config", "vision_config") for v in (0, True, [], {})]
WRONG_VALUES += [("audio_config", "attention_context_right", value) for value in (False, "0", [], {})]
WRONG_VALUES += [("text_config", "attention_bias", value) for value in (0, 0.0, "false", [], {})]
WRONG_VALUES += [("", part, value) for part in COUNTED if part for value in (True, 0, 1.5, "a", [], [1])]


def test_a_value_of_the_wrong_kind_is_refused_with_its_key_whatever_the_key() -> None:
    assert len(WRONG_VALUES) > 500
    for part, key, value in WRONG_VALUES:
        raw = raw_config("e2b")
        (raw[part] if part else raw)[key] = value
        refused = ""
        try:
            Config.from_dict(raw)
        except ConfigError as error:
            refused = str(error)
        assert key in refused, f"{part}: {key} is {value!r}"
        assert "\n" not in refused


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([SLIDING, FULL]),
    key=st.sampled_from(["rope_type", "rope_theta", "partial_rotary_factor", "factor"]),
    value=st.booleans() | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.just(float("nan")),
)
def test_a_rotation_of_the_wrong_kind_is_refused_with_its_key(kind: str, key: str, value: object) -> None:
    raw = raw_config("e2b")
    raw["text_config"]["rope_parameters"] = {kind: {"rope_type": "proportional", key: value}}
    with pytest.raises(ConfigError, match=key):
        Config.from_dict(raw)


@pytest.mark.parametrize("cls", [TextConfig, VisionConfig, AudioConfig])
def test_what_is_left_out_is_what_transformers_takes_for_it(cls: type) -> None:
    theirs = {TextConfig: Gemma4TextConfig, VisionConfig: Gemma4VisionConfig, AudioConfig: Gemma4AudioConfig}[cls]()
    ours = cls.from_dict({})
    for field in dataclasses.fields(cls):
        if field.name in vars(theirs) and field.name not in PER_LAYER:
            expected = getattr(theirs, field.name)
            found = getattr(ours, field.name)
            assert (list(found) if isinstance(found, tuple) else found) == expected, field.name


# In transformers these are asked layer by layer.
PER_LAYER = ("head_dim", "num_key_value_heads")

EMPTY_TOWERS = [("vision_config", VisionConfig()), ("audio_config", AudioConfig())]


@pytest.mark.parametrize(("part", "tower"), EMPTY_TOWERS)
def test_an_empty_tower_has_the_default_shape_and_null_is_none(part: str, tower: object) -> None:
    raw = raw_config("e2b")
    field = part.removesuffix("_config")
    assert getattr(Config.from_dict({**raw, part: {}}), field) == tower
    assert getattr(Config.from_dict({**raw, part: None}), field) is None


SAME = [
    ("text_config", "sliding_window", 24.0),
    ("text_config", "rms_norm_eps", 1e-06),
    ("text_config", "rope_scaling", None),
    ("text_config", "rope_theta", 5.0),
    ("text_config", "attention_bias", None),
    ("text_config", "hidden_activation", None),
    ("text_config", "attention_k_eq_v", None),
    ("text_config", "enable_moe_block", None),
    ("text_config", "pad_token_id", None),
    ("text_config", "eos_token_id", [1, 106]),
    ("text_config", "tie_word_embeddings", False),
    ("vision_config", "attention_bias", None),
    ("vision_config", "rope_parameters", None),
    ("vision_config", "rope_parameters", {"rope_type": "axial", "rope_theta": 100}),
    ("audio_config", "gradient_clipping", 10_000_000_000),
    ("audio_config", "attention_context_right", None),
    ("", "architectures", ["Gemma4ForCausalLM"]),
    ("", "eos_token_id", None),
    ("", "dtype", None),
    ("", "tie_word_embeddings", None),
    ("", "quantization_config", {"bits": 4}),
]


@pytest.mark.parametrize(("part", "key", "value"), SAME)
def test_another_way_to_write_the_same_is_the_same(part: str, key: str, value: object) -> None:
    raw = raw_config("e2b")
    expected = Config.from_dict(copy.deepcopy(raw))
    (raw[part] if part else raw)[key] = value
    assert Config.from_dict(raw) == expected


def test_experts_without_a_number_are_refused() -> None:
    raw = raw_config("moe")
    raw["text_config"]["top_k_experts"] = 9
    with pytest.raises(ConfigError, match="top_k_experts is 9"):
        Config.from_dict(raw)
