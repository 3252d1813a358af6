"""A checkpoint folder → a `Gemma4` with its weights.

The weights are read on first use, so the towers of a model that only chats are never read. What they must look like is
checked before, in `sources`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from ..config import AudioConfig, Config
from ..model import Gemma4
from .folder_kind import read_config_json
from .headers import TensorHeader, read_headers
from .per_layer_table import PerLayerTable
from .quantization import Packing, quantize_modules
from .sources import Source, check_fit, find_packings, find_sources, in_our_order, parameter_shapes
from .stored_numbers import FLOATS, READ_BY_MLX, decoded, read_tensor

PerLayer = Literal["auto", "disk", "memory"]

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}

_TABLE = "language_model.embed_tokens_per_layer"
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
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)} or None, not {dtype!r}")
    if per_layer not in ("auto", "disk", "memory"):
        raise ValueError(f'per_layer must be "auto", "disk" or "memory", not {per_layer!r}')
    headers = read_headers(folder)
    config, sources = find_sources(headers, config)
    if audio_window is not None and isinstance(config.audio, AudioConfig):
        audio = dataclasses.replace(config.audio, attention_window=audio_window)
        audio.check_window()
        config = dataclasses.replace(config, audio=audio)

    model = Gemma4(config)
    packings = find_packings(sources, model)
    quantize_modules(model, packings)
    shapes = parameter_shapes(model)
    check_fit(sources, shapes, packings, folder)

    target = DTYPES[dtype] if dtype else _model_dtype(config, sources)
    if f"{_TABLE}.weight" in sources and (
        per_layer == "disk" or (per_layer == "auto" and automatic_place(_weight_bytes(sources, target)) == "disk")
    ):
        _leave_table_on_disk(model, sources, packings.get(_TABLE), target)
    # Reading waits for first use, which may be in another thread; ordinary streams work only where they were made.
    with mx.stream(mx.new_thread_unsafe_stream(mx.cpu)):
        tensors = _tensors(headers, sources, target)
        weights = []
        for name, source in sources.items():
            array = in_our_order(tensors[source.stored], source, shapes[name])
            # One precision for all, as transformers loads it: one float32 bound would lift a whole tower to float32.
            weights.append((name, array.astype(target) if source.header.dtype in FLOATS else array))
    model.load_weights(weights, strict=False)
    model.eval()
    _keep_in_memory(_weight_bytes(sources, target))
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


def _weight_bytes(sources: Mapping[str, Source], dtype: mx.Dtype) -> int:
    """What the weights take in memory, their floating-point numbers in `dtype`."""
    headers = {(s.header.file, s.header.offset): s.header for s in sources.values()}.values()
    return sum(math.prod(h.shape) * dtype.size if h.dtype in FLOATS else h.nbytes for h in headers)


def _model_dtype(config: Config, sources: Mapping[str, Source]) -> mx.Dtype:
    """The precision to compute in: the one that loses nothing of the packed part, else the one config.json names, else
    the one most of the weights are in.

    config.json may be of the model before it was quantized in another precision; without a packed part transformers
    goes by it as well. One float32 norm or router says nothing about the rest.
    """
    scales, all_floats = Counter[mx.Dtype](), Counter[mx.Dtype]()
    for name, source in sources.items():
        if (precision := FLOATS.get(source.header.dtype)) is not None:
            all_floats[precision] += source.header.nbytes
            if name.endswith(".scales"):
                scales[precision] += source.header.nbytes
    if not scales and config.dtype is not None:
        return DTYPES[config.dtype]
    ((precision, _),) = (scales or all_floats).most_common(1)
    return precision


def _tensors(
    headers: Mapping[str, TensorHeader], sources: Mapping[str, Source], dtype: mx.Dtype
) -> dict[str, mx.array]:
    """Stored name → numbers. They are read on first use, but from files that MLX cannot read: from those now."""
    needed = {source.stored: source.header for source in sources.values()}
    not_for_mlx = {header.file for header in headers.values() if header.dtype not in READ_BY_MLX}
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


def _leave_table_on_disk(model: Gemma4, sources: dict[str, Source], packing: Packing | None, dtype: mx.Dtype) -> None:
    stored = [sources.pop(f"{_TABLE}.{leaf}", None) for leaf in ("weight", "scales", "biases")]
    weight, scales, biases = (source.header if source else None for source in stored)
    decoder: nn.Module = model.language_model
    decoder.pop("embed_tokens_per_layer")
    assert weight is not None
    decoder.embed_tokens_per_layer = PerLayerTable(weight, scales, biases, packing, dtype)
