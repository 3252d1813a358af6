"""What a conversion will write, to the byte and before anything is computed: tensors, files, and the memory they need.

Output names are mlx-vlm's (`language_model.model.…`, `experts.switch_glu.…`), which mlx-lm and this package read too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from ..checkpoint.element_types import ELEMENT_TYPES, PRECISIONS
from ..checkpoint.quantization import Packing
from ..config import Config
from ..model import Gemma4
from .recipes import Recipe

#: Bytes after which a new file begins. What an interruption can cost is one file.
SHARD_BYTES = 2 << 30

_PARTS = {
    "language_model.embed_tokens_per_layer": "per-layer table",
    "language_model.embed_tokens": "embeddings",
    "language_model.lm_head": "embeddings",
    "language_model": "decoder",
    "vision_tower": "vision tower",
    "vision_embedder": "vision tower",
    "embed_vision": "vision tower",
    "audio_tower": "audio tower",
    "embed_audio": "audio tower",
}


@dataclass(frozen=True)
class OutputTensor:
    """A tensor to be written: its name in the file, safetensors' element type, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ELEMENT_TYPES[self.dtype].bits // 8


@dataclass(frozen=True)
class OutputParameter:
    """A parameter of the model and what it becomes: one tensor, or if packed the weight, scales and biases.

    Attributes:
        name: as `Gemma4` has it.
        shape: as `Gemma4` has it, unpacked.
        packing: None: not packed.
        tensors: in the order `mx.quantize` returns them.
        exact: the packed weights must be no other than the source's.
    """

    name: str
    shape: tuple[int, ...]
    packing: Packing | None
    tensors: tuple[OutputTensor, ...]
    exact: bool = False

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True)
class Shard:
    """One safetensors file to be written."""

    file: str
    parameters: tuple[OutputParameter, ...]

    @property
    def tensors(self) -> Iterator[OutputTensor]:
        for parameter in self.parameters:
            yield from parameter.tensors

    @property
    def nbytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.parameters)


@dataclass(frozen=True)
class ConversionPlan:
    """All of a conversion's output but its small files.

    Attributes:
        indivisible: modules that are kept because their columns do not divide into the groups of their rule.
        off_lattice: modules that are kept because their weights do not lie on the lattice of their rule.
    """

    recipe: Recipe
    dtype: str
    shards: tuple[Shard, ...]
    indivisible: tuple[str, ...]
    off_lattice: tuple[str, ...] = ()

    @property
    def parameters(self) -> Iterator[OutputParameter]:
        for shard in self.shards:
            yield from shard.parameters

    @property
    def nbytes(self) -> int:
        return sum(shard.nbytes for shard in self.shards)

    @property
    def weights(self) -> int:
        """How many numbers the model has, packed or not."""
        return sum(math.prod(parameter.shape) for parameter in self.parameters)

    @property
    def part_bytes(self) -> dict[str, int]:
        """Bytes of each part a person knows by name: decoder, embeddings, per-layer table, towers."""
        parts = dict.fromkeys(("decoder", "embeddings", "per-layer table", "vision tower", "audio tower"), 0)
        for parameter in self.parameters:
            module = parameter.name.rpartition(".")[0]
            part = next(part for prefix, part in _PARTS.items() if f"{module}.".startswith(f"{prefix}."))
            parts[part] += parameter.nbytes
        return {part: nbytes for part, nbytes in parts.items() if nbytes}

    def memory_bytes(self, table_on_disk: bool, towers: bool) -> int:
        """Memory the weights fill, with the per-layer table on disk or not, the towers in use or not."""
        parts = self.part_bytes
        unused = ["per-layer table"] * table_on_disk + ["vision tower", "audio tower"] * (not towers)
        return self.nbytes - sum(parts.get(part, 0) for part in unused)

    def quantization(self) -> dict[str, Any] | None:
        """`quantization` of `config.json` as mlx-vlm and mlx-lm write it; None when nothing is packed.

        The packing of most modules stands at the top; every module packed otherwise is named.
        """
        packed = {p.tensors[0].name.removesuffix(".weight"): p.packing for p in self.parameters if p.packing}
        if not packed:
            return None
        ((usual, _),) = Counter(packed.values()).most_common(1)
        others = {module: packing.as_arguments() for module, packing in packed.items() if packing != usual}
        return {**usual.as_arguments(), **others}


def plan_conversion(
    config: Config,
    recipe: Recipe,
    dtype: str,
    off_lattice: Collection[str] = (),
    packings: Mapping[str, Packing] | None = None,
) -> ConversionPlan:
    """Plan the output for a model of this shape.

    Args:
        config: with a tower only if the checkpoint has its weights.
        recipe: from `choose_recipe`.
        dtype: a key of `PRECISIONS`: precision of what is not packed, and of scales.
        off_lattice: modules whose weights were seen not to lie on the lattice of their rule, which keeps them.
        packings: of a source that is packed already, which stays as it is; None: the recipe decides.

    Raises:
        CheckpointError: a module's columns do not divide into the groups the recipe wants.
    """
    model = Gemma4(config)
    flat = tree_flatten(model.parameters())
    assert isinstance(flat, list)
    packable = {f"{name}.weight" for name, module in model.named_modules() if _is_packable(module)}
    parameters, indivisible = [], []
    for name, array in flat:
        shape, module = tuple(array.shape), name.removesuffix(".weight")
        packing, rule = None, None
        if packings is not None:
            packing = packings.get(module) if name in packable else None
        elif name in packable and module not in off_lattice:
            has_experts = config.text.enable_moe_block
            packing = recipe.packing_of(module, shape[-1], has_experts)
            rule = recipe.rule_for(module, has_experts)
            if packing is None and rule is not None and rule.packing is not None:
                indivisible.append(module)
        tensors = _tensors(name, shape, packing, PRECISIONS[dtype].name)
        exact = packing is not None and (packings is not None or (rule is not None and rule.on_lattice))
        parameters.append(OutputParameter(name, shape, packing, tensors, exact))
    return ConversionPlan(recipe, dtype, _shards(parameters), tuple(indivisible), tuple(off_lattice))


def _is_packable(module: nn.Module) -> bool:
    return hasattr(module, "to_quantized")


def output_name(name: str) -> str:
    """Our name of a parameter → mlx-vlm's.

    >>> output_name("language_model.layers.0.experts.up_proj.weight")
    'language_model.model.layers.0.experts.switch_glu.up_proj.weight'
    """
    if name.startswith("language_model.") and not name.startswith("language_model.lm_head."):
        name = name.replace("language_model.", "language_model.model.", 1)
    return name.replace(".experts.", ".experts.switch_glu.")


def _tensors(name: str, shape: tuple[int, ...], packing: Packing | None, dtype: str) -> tuple[OutputTensor, ...]:
    weight = output_name(name)
    if packing is None:
        return (OutputTensor(weight, dtype, shape),)
    module = weight.removesuffix(".weight")
    *rows, columns = shape
    packed = OutputTensor(weight, "U32", (*rows, columns * packing.bits // 32))
    groups = (*rows, columns // packing.group_size)
    if packing.mode != "affine":
        return (packed, OutputTensor(f"{module}.scales", "U8", groups))
    return (packed, OutputTensor(f"{module}.scales", dtype, groups), OutputTensor(f"{module}.biases", dtype, groups))


def _shards(parameters: Sequence[OutputParameter]) -> tuple[Shard, ...]:
    groups: list[list[OutputParameter]] = [[]]
    size = 0
    for parameter in parameters:
        if groups[-1] and size + parameter.nbytes > SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += parameter.nbytes
    count = len(groups)
    names = (
        ["model.safetensors"]
        if count == 1
        else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    )
    return tuple(Shard(name, tuple(group)) for name, group in zip(names, groups, strict=True))
