"""Which stored tensor each parameter of a model comes from, and whether they are what the model needs.

Told from the files' headers, before a weight is read or a byte written; loading and converting both begin here. Every
tensor must find its place and every place its tensor: what is missing, extra, of another shape or of a type that holds
no weights is an error that lists it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from ..config import Config
from ..errors import CheckpointError
from ..model import Gemma4
from ..shown import shown_name
from .element_types import FLOATS
from .headers import TensorHeader
from .names import AUDIO_PARTS, VISION_PARTS, canonical_name, is_unused
from .quantization import Packing
from .stored_numbers import same_content

_HEAD = "language_model.lm_head"
_EMBEDDINGS = "language_model.embed_tokens"
_LEAVES = ("weight", "weight_scale", "scales", "biases")
_LISTED = 8  # tensors named in an error before "and n more"

WHAT_TO_TAKE = "take the checkpoint it was made from, such as google/gemma-4-E2B-it, or one quantized for MLX"


@dataclasses.dataclass(frozen=True)
class Repacking:
    """How a stored tensor becomes a parameter that is packed otherwise.

    Attributes:
        shape, dtype: of what it becomes; the second is safetensors' name.
        of: makes it of the stored tensor, or of rows of it.
    """

    shape: tuple[int, ...]
    dtype: str
    of: Callable[[mx.array], mx.array]


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, or half of one, that becomes a parameter.

    Attributes:
        stored: its name in the file.
        header: where and how it is stored.
        half: 0 or 1 for the first or second half of the rows of a fused `gate_up_proj`; None for the whole.
        repacking: of a tensor that is not packed as MLX does it.
    """

    stored: str
    header: TensorHeader
    half: int | None = None
    repacking: Repacking | None = None

    @property
    def dtype(self) -> str:
        """safetensors' name of the element type it becomes."""
        return self.header.dtype if self.repacking is None else self.repacking.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        if self.repacking is not None:
            return self.repacking.shape
        shape = self.header.shape
        if self.half is None or len(shape) < 2 or shape[-2] % 2:
            return shape  # which for a half fits nothing
        return (*shape[:-2], shape[-2] // 2, shape[-1])


def find_sources(headers: Mapping[str, TensorHeader], config: Config) -> tuple[Config, dict[str, StoredTensor]]:
    """What `config.json` describes as the files have it: without a tower they lack, with a head of its own.

    Returns:
        The configuration of the model that can be built, and our name of each parameter → where it comes from.

    Raises:
        CheckpointError: two tensors are the same parameter.
    """
    sources = _sources(headers, config)
    return _with_its_head(_without_absent_towers(config, sources), sources), sources


def _sources(headers: Mapping[str, TensorHeader], config: Config) -> dict[str, StoredTensor]:
    sources: dict[str, StoredTensor] = {}
    for stored, header in headers.items():
        name = canonical_name(stored)
        if is_unused(name, config):
            continue
        if ".experts.gate_up_proj" in name:
            base, _, leaf = name.partition("gate_up_proj")
            found = {
                f"{base}{projection}{leaf or '.weight'}": StoredTensor(stored, header, half)
                for half, projection in enumerate(("gate_proj", "up_proj"))
            }
        elif name.endswith(".experts.down_proj"):
            found = {f"{name}.weight": StoredTensor(stored, header)}
        else:
            found = {name: StoredTensor(stored, header)}
        for name in found.keys() & sources.keys():
            both = f"{shown_name(stored)} and {shown_name(sources[name].stored)}"
            raise CheckpointError(f"{both} are the same weight: remove one of them")
        sources.update(found)
    return sources


def _without_absent_towers(config: Config, sources: Iterable[str]) -> Config:
    """Leave out the towers that have no tensor in `sources`: mlx-lm's conversions keep only the decoder."""
    present = {name.split(".")[0] for name in sources}
    if present.isdisjoint(VISION_PARTS):
        config = dataclasses.replace(config, vision=None)
    if present.isdisjoint(AUDIO_PARTS):
        config = dataclasses.replace(config, audio=None)
    return config


def _with_its_head(config: Config, sources: dict[str, StoredTensor]) -> Config:
    """Find out which head the files have. As in transformers (`tie_weights`), files outrank config.json.

    A head that equals the embeddings is dropped from `sources`. Where the embeddings are missing, the head takes their
    place. The model has a head of its own only where both are there and differ.
    """
    head, embeddings = (
        {leaf: sources[f"{module}.{leaf}"] for leaf in _LEAVES if f"{module}.{leaf}" in sources}
        for module in (_HEAD, _EMBEDDINGS)
    )
    tied = config.text.tie_word_embeddings
    if head and not embeddings and tied:
        for leaf in head:
            sources[f"{_EMBEDDINGS}.{leaf}"] = sources.pop(f"{_HEAD}.{leaf}")
    elif head:
        tied = head.keys() == embeddings.keys() and all(
            same_content(head[leaf].header, embeddings[leaf].header) for leaf in head
        )
        for leaf in head if tied else ():
            del sources[f"{_HEAD}.{leaf}"]
    return dataclasses.replace(config, text=dataclasses.replace(config.text, tie_word_embeddings=tied))


def find_packings(sources: Mapping[str, StoredTensor], model: Gemma4) -> dict[str, Packing]:
    """How each packed module of `model`, which is not packed yet, is stored.

    Raises:
        CheckpointError: a module has scales that belong to no packing of MLX's.
    """
    packings = {}
    packable = {name: module for name, module in model.named_modules() if hasattr(module, "to_quantized")}
    for name, scales in sources.items():
        module, _, leaf = name.rpartition(".")
        weight = sources.get(f"{module}.weight")
        if leaf != "scales" or weight is None or module not in packable:
            continue  # told as extra or missing by `check_fit`
        if not (weight.shape and scales.shape):
            raise CheckpointError(f"{weight.stored} and its scales are single numbers: {WHAT_TO_TAKE}")
        columns = packable[module].weight.shape[-1]
        has_biases = f"{module}.biases" in sources
        packings[module] = Packing.of(module, columns, weight.shape[-1], scales.shape[-1], has_biases)
    return packings


def parameter_shapes(model: Gemma4) -> dict[str, tuple[int, ...]]:
    parameters = tree_flatten(model.parameters())
    assert isinstance(parameters, list)
    return {name: tuple(array.shape) for name, array in parameters}


def check_fit(
    sources: Mapping[str, StoredTensor],
    expected: Mapping[str, tuple[int, ...]],
    packings: Mapping[str, Packing],
    folder: Path,
) -> None:
    """Make sure that every parameter has its tensor, of a fitting shape and type.

    Args:
        expected: shapes of the model's parameters, packed where `packings` says so.

    Raises:
        CheckpointError: a parameter has none; the message lists them.
    """
    missing = sorted(expected.keys() - sources.keys())
    extra = sorted(sources[name].stored for name in sources.keys() - expected.keys())
    misshapen = [
        f"{sources[name].stored} is {list(sources[name].shape)}, not {list(expected[name])}"
        for name in sorted(expected.keys() & sources.keys())
        if not _fits(name, sources[name].shape, expected[name])
    ]
    found = [
        f"{len(names)} {what} ({_listing(names)})"
        for what, names in (("missing", missing), ("extra", extra), ("of another shape", misshapen))
        if names
    ]
    if found:
        raise CheckpointError(
            f"{folder}: tensors do not fit config.json: {'; '.join(found)}: download or convert it again"
        )
    strange = sorted(
        f"{source.stored} is {source.header.dtype}"
        for name, source in sources.items()
        if source.dtype not in _types_of(name, packings)
    )
    if strange:
        raise CheckpointError(f"{folder} has weights of a type that is not read ({_listing(strange)}): {WHAT_TO_TAKE}")


def _fits(name: str, stored: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    if stored == expected or (_is_convolution(name) and stored == _torch_order(expected)):
        return True
    return math.prod(expected) == 1 == math.prod(stored)  # one number is written with and without a dimension


def _types_of(name: str, packings: Mapping[str, Packing]) -> Iterable[str]:
    """safetensors' types that a parameter may be stored in."""
    module, _, leaf = name.rpartition(".")
    packing = packings.get(module)
    if packing is None or leaf not in _LEAVES:
        return FLOATS
    if leaf == "weight":
        return ("U32",)
    return ("F32", "F16", "BF16") if packing.mode == "affine" else ("U8",)


def _torch_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape a convolution `[out, *kernel, in]` of MLX has in torch: `[out, in, *kernel]`."""
    return (shape[0], shape[-1], *shape[1:-1])


def _is_convolution(name: str) -> bool:
    return name.endswith(("conv.weight", "conv1d.weight"))


def in_our_order(array: mx.array, source: StoredTensor, expected: tuple[int, ...]) -> mx.array:
    """A stored tensor as the parameter of shape `expected` that it is, or has a half of.

    A half, and a convolution in another order, are views of it.
    """
    if source.repacking is not None:
        return source.repacking.of(array)
    if source.half is not None:
        return mx.split(array, 2, axis=-2)[source.half]
    if source.shape == expected:
        return array
    if array.size == 1:
        return array.reshape(expected)
    return mx.moveaxis(array, 1, -1)  # a convolution in torch's order


def _listing(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(map(shown_name, names[:_LISTED])) + (f" and {more} more" if more > 0 else "")
