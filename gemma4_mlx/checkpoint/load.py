"""A checkpoint folder → a `Gemma4` with its weights.

The weights are read on first use, so the towers of a model that only chats are never read. What they must look like is
checked before, in `sources`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from ..byte_sizes import physical_memory
from ..config import AudioConfig, Config
from ..model import Gemma4
from .element_types import ELEMENT_TYPES, FLOATS, PRECISIONS, precision
from .folder_kind import read_config_json
from .headers import TensorHeader, read_headers
from .per_layer_table import PerLayerTable
from .quantization import Packing, quantize_modules
from .repacking import in_mlx_packing
from .sources import StoredTensor, check_fit, find_packings, find_sources, in_our_order, parameter_shapes
from .stored_numbers import decoded, read_tensor
from .wired_memory import keep_in_memory

PerLayer = Literal["auto", "disk", "memory"]

_TABLE = "language_model.embed_tokens_per_layer"
_MOST_OPEN = 100  # files that wait open to be read; macOS lets a program have 256, and Ollama has one for a tensor
_SHARE_FOR_WEIGHTS = 0.5  # of physical memory; Metal may use about two thirds of a Mac's


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
        dtype: `"float32"`, `"bfloat16"` or `"float16"` for everything that is not packed, and for what is computed;
            None: what config.json says, or else what most of the weights are stored in; of a quantized checkpoint what
            its scales are stored in.
        per_layer: `"disk"` reads rows of the per-layer table as tokens ask for them, `"memory"` holds it whole; the
            tokens are the same. `"auto"` holds it where all weights together leave half of this machine's memory free.
        audio_window: keys a token of the audio tower sees (see `AudioConfig.attention_window`); None: the checkpoint's.

    Raises:
        CheckpointError: files missing or damaged; or tensors missing, extra or of a wrong shape, which are listed.
        ValueError: an unknown `dtype` or `per_layer`, or an `audio_window` out of range.
    """
    if dtype is not None and dtype not in PRECISIONS:
        raise ValueError(f"dtype must be one of {', '.join(PRECISIONS)} or None, not {dtype!r}")
    if per_layer not in ("auto", "disk", "memory"):
        raise ValueError(f'per_layer must be "auto", "disk" or "memory", not {per_layer!r}')
    headers = read_headers(folder)
    config, sources = find_sources(headers, config)
    if audio_window is not None and isinstance(config.audio, AudioConfig):
        audio = dataclasses.replace(config.audio, attention_window=audio_window)
        audio.check_window()
        config = dataclasses.replace(config, audio=audio)

    model = Gemma4(config)
    sources = in_mlx_packing(sources, model)
    packings = find_packings(sources, model)
    quantize_modules(model, packings)
    shapes = parameter_shapes(model)
    check_fit(sources, shapes, packings, folder)

    target = precision(dtype) if dtype else _model_dtype(config, sources)
    if f"{_TABLE}.weight" in sources and (
        per_layer == "disk" or (per_layer == "auto" and automatic_place(_weight_bytes(sources, target)) == "disk")
    ):
        sources = _leave_table_on_disk(model, sources, packings.get(_TABLE), target)
    # Reading waits for first use, which may be in another thread; ordinary streams work only where they were made.
    with mx.stream(mx.new_thread_unsafe_stream(mx.cpu)):
        tensors = _tensors(headers, sources, target)
        weights = []
        for name, source in sources.items():
            array = in_our_order(tensors[source.stored], source, shapes[name])
            if _must_be_one_piece(name, source, shapes[name], packings):
                array = mx.contiguous(array)
            # One precision for all, as transformers loads it: one float32 bound would lift a whole tower to float32.
            weights.append((name, array.astype(target) if source.dtype in FLOATS else array))
    model.load_weights(weights, strict=False)
    model.eval()
    keep_in_memory(model, _weight_bytes(sources, target))
    return model


def automatic_place(weight_bytes: int) -> Literal["disk", "memory"]:
    """Where `per_layer="auto"` has the per-layer table of a checkpoint whose weights are this large.

    In memory where all of them together leave enough of it to the KV cache, the towers' work and everything else.
    """
    return "memory" if weight_bytes <= _SHARE_FOR_WEIGHTS * physical_memory() else "disk"


def _weight_bytes(sources: Mapping[str, StoredTensor], dtype: mx.Dtype) -> int:
    """What the weights take in memory, their floating-point numbers in `dtype`."""
    repacked = [(s.shape, s.dtype) for s in sources.values() if s.repacking is not None]
    as_stored = {(s.header.file, s.header.offset): s.header for s in sources.values() if s.repacking is None}
    tensors = repacked + [(header.shape, header.dtype) for header in as_stored.values()]
    return sum(
        math.prod(shape) * (dtype.size if stored in FLOATS else ELEMENT_TYPES[stored].bits // 8)
        for shape, stored in tensors
    )


def _model_dtype(config: Config, sources: Mapping[str, StoredTensor]) -> mx.Dtype:
    """The precision to compute in: the one that loses nothing of the packed part, else the one config.json names, else
    the one most of the weights are in.

    config.json may be of the model before it was quantized in another precision; without a packed part transformers
    goes by it as well. One float32 norm or router says nothing about the rest.
    """
    scales, all_floats = Counter[mx.Dtype](), Counter[mx.Dtype]()
    for name, source in sources.items():
        if (computed_in := FLOATS.get(source.header.dtype)) is not None:
            all_floats[computed_in] += source.header.nbytes
            if name.endswith(".scales") and not _rounded_by_reference(source):
                scales[computed_in] += source.header.nbytes
    if not scales and config.dtype is not None:
        return precision(config.dtype)
    ((most, _),) = (scales or all_floats).most_common(1)
    return most


def _must_be_one_piece(
    name: str, source: StoredTensor, shape: tuple[int, ...], packings: Mapping[str, Packing]
) -> bool:
    """Whether a view of a stored tensor is to be copied, once: MLX's Metal kernels would copy it at every call.

    So they do with convolutions' weights (`ensure_row_contiguous` in metal/conv.cpp) and with packed experts
    (`gather_qmm_rhs` in metal/quantized.cpp: 254 MB a layer of a 26B, for every piece of a prompt). Unpacked
    halves they read where they are (`gather_mm_rhs` in metal/matmul.cpp takes the stride of a matrix).
    """
    if source.half is not None:
        return name.rpartition(".")[0] in packings
    return source.shape != shape


def _rounded_by_reference(source: StoredTensor) -> bool:
    """Whether a scale is of a mobile checkpoint: float32, and rounded by transformers to what it computes in, which is
    what config.json names (`QuantizedLinear.forward` in its `integrations/gemma_quant.py`)."""
    return source.repacking is not None and source.header.dtype == "F32"


def _tensors(
    headers: Mapping[str, TensorHeader], sources: Mapping[str, StoredTensor], dtype: mx.Dtype
) -> dict[str, mx.array]:
    """Stored name → numbers. They are read on first use, but from files that MLX cannot read: from those now."""
    needed = {source.stored: source.header for source in sources.values()}
    not_for_mlx = {header.file for header in headers.values() if not ELEMENT_TYPES[header.dtype].mlx_reads}
    if len(files := {header.file for header in needed.values()}) > _MOST_OPEN:
        not_for_mlx |= files
    lazy = {file: _lazy_tensors(file) for file in {header.file for header in needed.values()} - not_for_mlx}
    return {
        stored: read_tensor(header, dtype)
        if header.file in not_for_mlx
        else decoded(lazy[header.file][stored], header.dtype)
        for stored, header in needed.items()
    }


def _lazy_tensors(file: Path) -> dict[str, mx.array]:
    tensors = mx.load(str(file))
    assert isinstance(tensors, dict)  # a safetensors file, as its header said
    return tensors


def _leave_table_on_disk(
    model: Gemma4, sources: Mapping[str, StoredTensor], packing: Packing | None, dtype: mx.Dtype
) -> dict[str, StoredTensor]:
    """Have the model read its per-layer table from the file. Returns the tensors that are left to load."""
    names = [f"{_TABLE}.{leaf}" for leaf in ("weight", "scales", "biases")]
    weight, scales, biases = (sources.get(name) for name in names)
    decoder: nn.Module = model.language_model
    decoder.pop("embed_tokens_per_layer")
    assert weight is not None
    decoder.embed_tokens_per_layer = PerLayerTable(weight, scales, biases, packing, dtype)
    return {name: source for name, source in sources.items() if name not in names}
