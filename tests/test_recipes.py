"""Recipes: which module is packed how, for the real sizes, from their shapes alone."""

from __future__ import annotations

from typing import Any

import pytest
from gemma4_mlx.app.options import RecipeName, StoredType

from gemma4_mlx.checkpoint.element_types import PRECISIONS
from gemma4_mlx.checkpoint.quantization import Packing
from gemma4_mlx.config import Config
from gemma4_mlx.conversion.conversion_plan import ConversionPlan, plan_conversion
from gemma4_mlx.conversion.recipes import AFFINE_4, AFFINE_8, KEPT, MXFP4, RECIPES, Recipe, Rule, choose_recipe
from gemma4_mlx.errors import CheckpointError

_S, _F = "sliding_attention", "full_attention"


def _vision(width: int, intermediate: int, layers: int, heads: int, head_dim: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": head_dim,
    }


_SMALL_VISION = {**_vision(768, 3072, 16, 12, 64), "use_clipped_linears": True}
_LARGE_VISION = {**_vision(1152, 4304, 27, 16, 72), "standardize": True}
_AUDIO = {"hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 8, "output_proj_dims": 1536}

# Shapes of the published checkpoints: total weights in the last column of the table in the makers' model card.
SIZES: dict[str, dict[str, Any]] = {
    "e2b": {
        "text_config": {
            "hidden_size": 1536,
            "intermediate_size": 6144,
            "layer_types": ([_S] * 4 + [_F]) * 7,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "hidden_size_per_layer_input": 256,
            "num_kv_shared_layers": 20,
            "use_double_wide_mlp": True,
        },
        "vision_config": _SMALL_VISION,
        "audio_config": _AUDIO,
    },
    "e4b": {
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "layer_types": ([_S] * 5 + [_F]) * 7,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "hidden_size_per_layer_input": 256,
            "num_kv_shared_layers": 18,
        },
        "vision_config": _SMALL_VISION,
        "audio_config": _AUDIO,
    },
    "26b": {
        "text_config": {
            "hidden_size": 2816,
            "intermediate_size": 2112,
            "layer_types": ([_S] * 5 + [_F]) * 5,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "num_global_key_value_heads": 2,
            "hidden_size_per_layer_input": 0,
            "attention_k_eq_v": True,
            "enable_moe_block": True,
            "num_experts": 128,
            "top_k_experts": 8,
            "moe_intermediate_size": 704,
        },
        "vision_config": _LARGE_VISION,
    },
    "12b": {
        "model_type": "gemma4_unified",
        "text_config": {
            "hidden_size": 3840,
            "intermediate_size": 15360,
            "layer_types": ([_S] * 5 + [_F]) * 8,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
        },
        "vision_config": {},
        "audio_config": {},
    },
    "31b": {
        "text_config": {
            "hidden_size": 5376,
            "intermediate_size": 21504,
            "layer_types": ([_S] * 5 + [_F]) * 10,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "num_global_key_value_heads": 4,
            "hidden_size_per_layer_input": 0,
            "attention_k_eq_v": True,
        },
        "vision_config": _LARGE_VISION,
    },
}
WEIGHTS = {"e2b": 5.10e9, "e4b": 7.94e9, "12b": 11.96e9, "26b": 25.8e9, "31b": 31.3e9}


def plan(size: str, recipe: str | Recipe) -> ConversionPlan:
    raw = {"model_type": "gemma4", **SIZES[size]}
    raw["text_config"] = {**raw["text_config"], "num_hidden_layers": len(raw["text_config"]["layer_types"])}
    return plan_conversion(Config.from_dict(raw), choose_recipe(recipe, None), "bfloat16")


def packings(size: str, recipe: str) -> dict[str, Packing | None]:
    return {parameter.name: parameter.packing for parameter in plan(size, recipe).parameters}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", SIZES)
def test_every_recipe_fits_every_published_size(size: str, recipe: str) -> None:
    planned = plan(size, recipe)
    assert planned.weights == pytest.approx(WEIGHTS[size], rel=0.005)
    if recipe == "bf16":
        assert planned.nbytes == 2 * planned.weights
        assert planned.quantization() is None


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", SIZES)
def test_no_recipe_packs_a_tower(size: str, recipe: str) -> None:
    towers = {
        name: packing for name, packing in packings(size, recipe).items() if not name.startswith("language_model")
    }
    assert len(towers) == 11 if size == "12b" else len(towers) > 100
    assert set(towers.values()) == {None}


@pytest.mark.parametrize(("recipe", "usual"), [("4bit", AFFINE_4), ("8bit", AFFINE_8), ("mxfp4", MXFP4)])
@pytest.mark.parametrize("size", SIZES)
def test_attention_and_the_usual_mlp_have_the_bits_the_recipe_is_named_for(
    size: str, recipe: str, usual: Packing
) -> None:
    found = packings(size, recipe)
    assert found["language_model.layers.3.self_attn.q_proj.weight"] == usual
    if size != "26b":
        assert found["language_model.layers.3.mlp.down_proj.weight"] == usual


@pytest.mark.parametrize("recipe", ["4bit", "mxfp4"])
def test_the_26b_keeps_its_router_and_dense_mlp_in_8_bits_and_packs_its_experts_smaller(recipe: str) -> None:
    found = packings("26b", recipe)
    assert found["language_model.layers.7.router.proj.weight"] == AFFINE_8
    assert found["language_model.layers.7.mlp.down_proj.weight"] == AFFINE_8
    expert = found["language_model.layers.7.experts.down_proj.weight"]
    assert expert is not None
    assert expert.bits == 4


@pytest.mark.parametrize("recipe", ["4bit", "8bit", "mxfp4"])
@pytest.mark.parametrize("size", ["e2b", "e4b"])
def test_embeddings_and_per_layer_rows_have_8_bits(size: str, recipe: str) -> None:
    found = packings(size, recipe)
    for table in ("embed_tokens", "embed_tokens_per_layer"):
        packing = found[f"language_model.{table}.weight"]
        assert packing is not None
        assert packing.bits == 8


def test_the_speech_recipe_leaves_per_layer_rows_as_they_are() -> None:
    assert packings("e2b", "speech")["language_model.embed_tokens_per_layer.weight"] is None
    assert packings("e2b", "speech")["language_model.layers.0.mlp.up_proj.weight"] == AFFINE_8


def test_the_memory_of_a_plan_leaves_out_what_stays_on_disk() -> None:
    planned = plan("e2b", "bf16")
    table = 262_144 * 35 * 256 * 2
    assert planned.memory_bytes(False, towers=True) == planned.nbytes
    assert planned.memory_bytes(True, towers=True) == planned.nbytes - table
    assert sum(planned.part_bytes.values()) == planned.nbytes


def test_a_module_whose_columns_do_not_divide_is_named() -> None:
    greedy = Recipe("greedy", "packs the towers too", (Rule("*", AFFINE_8),))
    with pytest.raises(CheckpointError, match=r"vision_tower\.\S+\.down_proj\.linear has 4304 columns.*groups of 64"):
        plan("26b", greedy)


def test_a_rule_that_keeps_a_module_comes_before_one_that_could_not_pack_it() -> None:
    rules = (Rule("vision_tower.*.down_proj.linear", KEPT), Rule("vision_tower.*", AFFINE_8))
    found = {p.name: p.packing for p in plan("26b", Recipe("mine", "", rules)).parameters}
    layer = "vision_tower.encoder.layers.0.mlp"
    assert found[f"{layer}.down_proj.linear.weight"] is None
    assert found[f"{layer}.up_proj.linear.weight"] == AFFINE_8


def test_an_indivisible_module_is_kept_where_its_rule_says_so_and_is_listed() -> None:
    lenient = Recipe("lenient", "", (Rule("vision_tower.*", AFFINE_8, keep_indivisible=True),))
    planned = plan("26b", lenient)
    kept = {f"vision_tower.encoder.layers.{layer}.mlp.down_proj.linear" for layer in range(27)}
    assert set(planned.indivisible) == kept
    assert all(plan(size, recipe).indivisible == () for size in SIZES for recipe in RECIPES)


def test_bits_are_a_short_way_to_a_recipe() -> None:
    assert [choose_recipe(None, bits).name for bits in (4, 8, 16, None)] == ["4bit", "8bit", "bf16", "4bit"]


@pytest.mark.parametrize(
    ("recipe", "bits", "told"),
    [
        ("3bit", None, "recipe must be one of 4bit, 8bit, mxfp4, bf16, speech, qat, not '3bit'"),
        (None, 3, "bits must be 4, 8, 16, not 3"),
        ("4bit", 4, "not both"),
    ],
)
def test_an_unknown_recipe_is_told_with_the_known_ones(recipe: str | None, bits: int | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        choose_recipe(recipe, bits)


def test_the_command_line_offers_the_recipes_and_precisions_there_are() -> None:
    assert [name.value for name in RecipeName] == list(RECIPES)
    assert {name.value for name in StoredType} == set(PRECISIONS)
