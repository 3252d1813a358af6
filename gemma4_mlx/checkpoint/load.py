"""A checkpoint folder → a `Gemma4` with its weights.

Shapes are checked from the files' headers; the weights themselves are read on first use, so the towers of a model that
only chats are never read. Every tensor must find its place and every place its tensor: what is missing, extra or of
another shape is an error that lists it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..config import Config
from ..errors import CheckpointError
from ..model import Gemma4
from .folder_kind import read_config_json
from .headers import TensorHeader, read_headers
from .names import canonical_name, is_unused
from .per_layer_table import PerLayerTable
from .quantization import Packing, quantize_modules

PerLayer = Literal["auto", "disk", "memory"]

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}

_FLOATS = {"F32": mx.float32, "BF16": mx.bfloat16, "F16": mx.float16}
_TABLE = "language_model.embed_tokens_per_layer"
_SHARE_FOR_WEIGHTS = 0.5  # of physical memory; Metal may use about two thirds of a Mac's
_LISTED = 8  # tensors named in an error before "and n more"


@dataclasses.dataclass(frozen=True)
class Source:
    """A stored tensor, or half of one.

    Attributes:
        stored: its name in the file.
        header: where and how it is stored.
        half: 0 or 1 for the first or second half of the rows of a fused `gate_up_proj`; None for the whole.
    """

    stored: str
    header: TensorHeader
    half: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.header.shape
        return shape if self.half is None else (*shape[:-2], shape[-2] // 2, shape[-1])


def read_config(folder: Path) -> Config:
    """`config.json` of a checkpoint folder.

    Raises:
        CheckpointError: the file is missing or damaged.
        ConfigError: it is of another model, or packed for other machines.
    """
    return Config.from_dict(read_config_json(folder))


def load_model(
    folder: Path,
    config: Config,
    *,
    dtype: str | None = None,
    per_layer: PerLayer = "auto",
    audio_window: int | None = None,
) -> Gemma4:
    """Build the model of a checkpoint folder.

    Args:
        folder: holds `*.safetensors`.
        config: from `read_config`.
        dtype: `"float32"`, `"bfloat16"` or `"float16"` for everything that is not packed; None: as stored.
        per_layer: `"disk"` reads rows of the per-layer table as tokens ask for them, `"memory"` holds it whole; the
            tokens are the same. `"auto"` holds it where all weights together leave half of this machine's memory free.
        audio_window: keys a token of the audio tower sees (see `AudioConfig.attention_window`); None: the checkpoint's.

    Raises:
        CheckpointError: files missing or damaged; or tensors missing, extra or of a wrong shape, which are listed.
        ValueError: an unknown `dtype` or `per_layer`, or an `audio_window` out of range.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)} or None, not {dtype!r}")
    if per_layer not in ("auto", "disk", "memory"):
        raise ValueError(f'per_layer must be "auto", "disk" or "memory", not {per_layer!r}')
    sources = sources_of(read_headers(folder), config)
    config = without_absent_towers(config, sources)
    if audio_window is not None and config.audio is not None:
        config = dataclasses.replace(config, audio=dataclasses.replace(config.audio, attention_window=audio_window))
        assert config.audio is not None
        config.audio.check_window()

    model = Gemma4(config)
    expected = parameter_shapes(model)
    packings = _packings(sources, expected)
    quantize_modules(model, packings)
    shapes = parameter_shapes(model)
    check_fit(sources, shapes, folder)

    target = DTYPES[dtype] if dtype else _stored_dtype(sources)
    if f"{_TABLE}.weight" in sources and (
        per_layer == "disk" or (per_layer == "auto" and automatic_place(_weight_bytes(sources)) == "disk")
    ):
        _leave_table_on_disk(model, sources, packings.get(_TABLE), target)
    files = {source.header.file for source in sources.values()}
    # Reading waits for first use, which may be in another thread; ordinary streams work only where they were made.
    with mx.stream(mx.new_thread_unsafe_stream(mx.cpu)):
        tensors = {file: _lazy_tensors(file) for file in files}
        weights = []
        for name, source in sources.items():
            array = _in_our_order(tensors[source.header.file][source.stored], source, shapes[name])
            # One precision for all, as transformers loads it: one float32 bound would lift a whole tower to float32.
            weights.append((name, array.astype(target) if source.header.dtype in _FLOATS else array))
    model.load_weights(weights, strict=False)
    model.eval()
    _keep_in_memory(_weight_bytes(sources))
    return model


def automatic_place(weight_bytes: int) -> Literal["disk", "memory"]:
    """Where `per_layer="auto"` has the per-layer table of a checkpoint whose weights are this large.

    In memory where all of them together leave enough of it to the KV cache, the towers' work and everything else.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "memory" if weight_bytes <= _SHARE_FOR_WEIGHTS * memory else "disk"


def _keep_in_memory(weight_bytes: int) -> None:
    """Have macOS keep so much of what the GPU uses from being paged out between steps, as far as it allows.

    Without it, macOS 15 and newer slow a model down many times that takes most of the memory; see `mx.set_wired_limit`,
    and the same in mlx-lm (`wired_limit` in its generate.py).
    """
    if mx.metal.is_available():
        most = mx.device_info()["max_recommended_working_set_size"]
        assert isinstance(most, int)
        mx.set_wired_limit(min(weight_bytes, most))


def _weight_bytes(sources: Mapping[str, Source]) -> int:
    return sum({(s.header.file, s.header.offset): s.header.nbytes for s in sources.values()}.values())


def sources_of(headers: Mapping[str, TensorHeader], config: Config) -> dict[str, Source]:
    """Our name of each parameter → where it comes from."""
    sources: dict[str, Source] = {}
    for stored, header in headers.items():
        name = canonical_name(stored)
        if is_unused(name, config):
            continue
        if ".experts.gate_up_proj" in name:
            base, _, leaf = name.partition("gate_up_proj")
            for half, projection in enumerate(("gate_proj", "up_proj")):
                sources[f"{base}{projection}{leaf or '.weight'}"] = Source(stored, header, half)
        elif name.endswith(".experts.down_proj"):
            sources[f"{name}.weight"] = Source(stored, header)
        else:
            sources[name] = Source(stored, header)
    return sources


def without_absent_towers(config: Config, sources: Iterable[str]) -> Config:
    """mlx-lm's conversions keep the decoder alone. A tower of which nothing is there is a tower this model has not."""
    present = {name.split(".")[0] for name in sources}
    if not present & {"vision_tower", "embed_vision"}:
        config = dataclasses.replace(config, vision=None)
    if not present & {"audio_tower", "embed_audio"}:
        config = dataclasses.replace(config, audio=None)
    return config


def _packings(sources: Mapping[str, Source], expected: Mapping[str, tuple[int, ...]]) -> dict[str, Packing]:
    packings = {}
    for name, scales in sources.items():
        module, _, leaf = name.rpartition(".")
        weight = sources.get(f"{module}.weight")
        if leaf != "scales" or weight is None or f"{module}.weight" not in expected:
            continue  # told as extra or missing by the check that follows
        columns = expected[f"{module}.weight"][-1]
        has_biases = f"{module}.biases" in sources
        packings[module] = Packing.of(module, columns, weight.shape[-1], scales.shape[-1], has_biases)
    return packings


def parameter_shapes(model: Gemma4) -> dict[str, tuple[int, ...]]:
    parameters = tree_flatten(model.parameters())
    assert isinstance(parameters, list)
    return {name: tuple(array.shape) for name, array in parameters}


def _torch_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape a convolution `[out, *kernel, in]` of MLX has in torch: `[out, in, *kernel]`."""
    return (shape[0], shape[-1], *shape[1:-1])


def _is_convolution(name: str) -> bool:
    return name.endswith(("conv.weight", "conv1d.weight"))


def check_fit(sources: Mapping[str, Source], expected: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    missing = sorted(expected.keys() - sources.keys())
    extra = sorted(sources[name].stored for name in sources.keys() - expected.keys())
    misshapen = []
    for name in sorted(expected.keys() & sources.keys()):
        fits = [expected[name], _torch_order(expected[name])] if _is_convolution(name) else [expected[name]]
        if sources[name].shape not in fits:
            misshapen.append(f"{sources[name].stored} is {list(sources[name].shape)}, not {list(expected[name])}")
    found = [
        f"{len(names)} {what} ({_listing(names)})"
        for what, names in (("missing", missing), ("extra", extra), ("of another shape", misshapen))
        if names
    ]
    if found:
        raise CheckpointError(
            f"{folder}: tensors do not fit config.json: {'; '.join(found)}: download or convert it again"
        )


def _listing(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _stored_dtype(sources: Mapping[str, Source]) -> mx.Dtype:
    """The precision of the unpacked part of a checkpoint, read off the one tensor that is never packed."""
    stored = sources["language_model.norm.weight"].header.dtype
    if stored not in _FLOATS:
        raise CheckpointError(f"weights of type {stored} cannot be read: convert them to bfloat16, float16 or float32")
    return _FLOATS[stored]


def _lazy_tensors(file: Path) -> dict[str, mx.array]:
    tensors = mx.load(str(file))
    assert isinstance(tensors, dict)  # a safetensors file, as its header said
    return tensors


def _in_our_order(array: mx.array, source: Source, expected: tuple[int, ...]) -> mx.array:
    if source.half is not None:
        return mx.split(array, 2, axis=-2)[source.half]
    if source.shape != expected:
        return mx.moveaxis(array, 1, -1)  # a convolution in torch's order
    return array


def _leave_table_on_disk(model: Gemma4, sources: dict[str, Source], packing: Packing | None, dtype: mx.Dtype) -> None:
    stored = [sources.pop(f"{_TABLE}.{leaf}", None) for leaf in ("weight", "scales", "biases")]
    weight, scales, biases = (source.header if source else None for source in stored)
    decoder: nn.Module = model.language_model
    decoder.pop("embed_tokens_per_layer")
    assert weight is not None
    decoder.embed_tokens_per_layer = PerLayerTable(weight, scales, biases, packing, dtype)
