"""Quantization recipes: which module of a Gemma 4 is packed how.

A recipe is a table of rules, read from the top; the first whose pattern fits a module decides. To change one, edit its
table, or give `convert` a `Recipe` of your own. `bench/recipes.py` measures what each of them costs.

Why the tables are as they are (mean KL divergences, from `bench/recipes.py`: on the built-in model, whose decoder was
trained for 4 bits, so that 4bit has 0.0004; on random weights at E2B's depth, where it has 0.058; and on a random
mixture of experts, where it has 0.032):

- The towers and their projections stay as they are. They are small (E2B: 0.95 GB), run once per picture or clip, and
  vision rows of 4304 columns fit no group.
- The embeddings are also the head: in 4 bits the KL is 0.031 on the built-in model and 0.096 at E2B's depth. Keeping
  them whole gains next to nothing over 8 bits.
- A router that picks another expert is wrong, not imprecise (0.036 in 4 bits). The dense MLP of the 26B sees every
  token; random weights do not show what that is worth (0.027 in 4 bits). On the real 26B others measured a perplexity
  of 274 with both in 4 bits, 220 with both in 8, and 208 unquantized (mlx-vlm issue 901).
- The per-layer gates and projections are 1 % of the weights, and in 4 bits the KL is 0.005 on the built-in model and
  0.072 at E2B's depth.
- The per-layer rows can stay on disk, where 8 bits cost no memory (0.061 in 4 bits).
- Speech is what 4 bits cost most in a model that was not trained for them, which is what `speech` is for. Of digits by
  voices it had never heard, the built-in model as it was before (commit a166702) got 7.0 % of the words wrong
  unquantized, 7.4 with 8bit and speech, 7.8 with 4bit, 8.5 with mxfp4; of their translations 8.2, 7.6, 9.4 and 10.1 %
  (`python -m tools.demo_model.quantized gemma4_mlx/demo`). As it is now: 4.4 with 8bit, 4.7 with 4bit; 4.6 and 4.5.
- `qat` is for the makers' "-qat-q4_0-unquantized" checkpoints. Sources disagree whether their embeddings, per-layer
  gates and routers lie on the lattice: the makers' own compressed-tensors form keeps embeddings and routers whole (vllm
  recipes 514), llama.cpp packs the embeddings without loss (its pull request 24603). So each such module is looked at:
  packed if every weight lies on it, kept if not. A layer's attention or MLP that does not is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..checkpoint.quantization import Packing
from ..errors import CheckpointError
from .q4_0 import Q4_0

AFFINE_4 = Packing(group_size=64, bits=4, mode="affine")
AFFINE_8 = Packing(group_size=64, bits=8, mode="affine")
MXFP4 = Packing(group_size=32, bits=4, mode="mxfp4")
KEPT = None


@dataclass(frozen=True)
class Rule:
    """What becomes of the modules that fit a pattern.

    Attributes:
        modules: shell-style pattern of module names as `Gemma4` has them; `*` matches dots too.
        packing: how they are packed; None keeps them.
        beside_experts: the rule is for models with a mixture of experts only.
        keep_indivisible: a module whose columns do not divide into groups is kept; otherwise it is an error.
        on_lattice: the weights must lie on the lattice of `q4_0`, and are packed without any difference.
        keep_off_lattice: a module whose weights do not lie on it is kept; otherwise it is an error.
    """

    modules: str
    packing: Packing | None
    beside_experts: bool = False
    keep_indivisible: bool = False
    on_lattice: bool = False
    keep_off_lattice: bool = False


@dataclass(frozen=True)
class Recipe:
    """A named table of rules. A module that fits none is kept."""

    name: str
    summary: str
    rules: tuple[Rule, ...]

    def rule_for(self, module: str, has_experts: bool) -> Rule | None:
        """The rule that decides about a module."""
        for rule in self.rules:
            if fnmatchcase(module, rule.modules) and (has_experts or not rule.beside_experts):
                return rule
        return None

    def packing_of(self, module: str, columns: int, has_experts: bool) -> Packing | None:
        """How a module of `columns` inputs is packed; None: not at all.

        Raises:
            CheckpointError: the columns do not divide into the rule's groups, and it does not say to keep them.
        """
        rule = self.rule_for(module, has_experts)
        if rule is None or rule.packing is None:
            return None
        if columns % rule.packing.group_size == 0:
            return rule.packing
        if rule.keep_indivisible:
            return None
        raise CheckpointError(
            f"{module} has {columns} columns, which groups of {rule.packing.group_size} do not divide: "
            f"choose another recipe than {self.name}, or one with a rule that keeps this module"
        )


_TOWERS = (
    Rule("vision_tower.*", KEPT),
    Rule("vision_embedder.*", KEPT),
    Rule("embed_vision.*", KEPT),
    Rule("audio_tower.*", KEPT),
    Rule("embed_audio.*", KEPT),
)
# Models made for tests have per-layer inputs that no group divides; the published ones have 256 a layer.
_PER_LAYER_ROWS = Rule("language_model.embed_tokens_per_layer", AFFINE_8, keep_indivisible=True)
_PER_LAYER_GATES = (
    Rule("language_model.layers.*.per_layer_input_gate", AFFINE_8),
    Rule("language_model.layers.*.per_layer_projection", AFFINE_8, keep_indivisible=True),
)
# What a 4-bit decoder keeps in 8 bits.
_SENSITIVE = (
    _PER_LAYER_ROWS,
    *_PER_LAYER_GATES,
    Rule("language_model.embed_tokens", AFFINE_8),
    Rule("language_model.lm_head", AFFINE_8),  # where it is not the embeddings
    Rule("language_model.layers.*.router.proj", AFFINE_8),
    Rule("language_model.layers.*.mlp.*", AFFINE_8, beside_experts=True),
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "4bit",
            "decoder in 4 bits; embeddings, router, the 26B's dense MLP and per-layer rows in 8; towers as they are",
            (*_TOWERS, *_SENSITIVE, Rule("language_model.*", AFFINE_4)),
        ),
        Recipe(
            "8bit",
            "decoder, embeddings and per-layer rows in 8 bits; towers as they are",
            (*_TOWERS, *_SENSITIVE, Rule("language_model.*", AFFINE_8)),
        ),
        Recipe(
            "mxfp4",
            "like 4bit, with the decoder in the microscaling format MXFP4",
            (*_TOWERS, *_SENSITIVE, Rule("language_model.*", MXFP4)),
        ),
        Recipe("bf16", "nothing quantized", ()),
        Recipe(
            "speech",
            "decoder and embeddings in 8 bits; per-layer rows and towers as they are: for long recordings",
            (
                *_TOWERS,
                Rule("language_model.embed_tokens_per_layer", KEPT),
                *_PER_LAYER_GATES,
                Rule("language_model.*", AFFINE_8),
            ),
        ),
        Recipe(
            "qat",
            "the makers' 4-bit training kept to the bit: what lies on its lattice in 4 bits, all else as it is",
            (
                *_TOWERS,
                Rule("language_model.layers.*.self_attn.*", Q4_0, on_lattice=True),
                Rule("language_model.layers.*.mlp.*", Q4_0, on_lattice=True),
                Rule("language_model.layers.*.experts.*", Q4_0, on_lattice=True),
                Rule("language_model.*", Q4_0, keep_indivisible=True, on_lattice=True, keep_off_lattice=True),
            ),
        ),
    )
}

_RECIPE_OF_BITS = {4: "4bit", 8: "8bit", 16: "bf16"}


def choose_recipe(recipe: str | Recipe | None, bits: int | None) -> Recipe:
    """The recipe of a name, or of a number of bits; `4bit` if neither is given.

    Raises:
        ValueError: an unknown name or number, or both.
    """
    if recipe is not None and bits is not None:
        raise ValueError("give a recipe or bits, not both")
    if isinstance(recipe, Recipe):
        return recipe
    if bits is not None:
        if bits not in _RECIPE_OF_BITS:
            raise ValueError(f"bits must be {', '.join(map(str, _RECIPE_OF_BITS))}, not {bits!r}")
        recipe = _RECIPE_OF_BITS[bits]
    if recipe is None:
        recipe = "4bit"
    if recipe not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, not {recipe!r}")
    return RECIPES[recipe]
