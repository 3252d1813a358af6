"""What people have that is not a Gemma 4 this package loads, told from names of files, `config.json` and tensor names.

Other sizes, other models, other programs' formats and packings are a line each in a table, with what to take instead. A
new size or packing that is learned to load is a line less. Nothing is opened here; `folder_kind` looks at the disk.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ..config import MODEL_TYPES
from ..shown import shown
from .weight_files import is_weights


class _Size(NamedTuple):
    short_name: str
    hub_id: str


# The sizes this package loads, by what their names say and by `text_config.hidden_size`.
_SIZES = {
    "e2b": _Size("e2b", "google/gemma-4-E2B-it"),
    "e4b": _Size("e4b", "google/gemma-4-E4B-it"),
    "12b": _Size("12b", "google/gemma-4-12B-it"),
    "26b": _Size("26b", "google/gemma-4-26B-A4B-it"),
    "31b": _Size("31b", "google/gemma-4-31B-it"),
}
_SIZE_OF_HIDDEN = {1536: "e2b", 2560: "e4b", 3840: "12b", 2816: "26b", 5376: "31b"}
_SIZE_IN_NAME = re.compile(r"(?<![a-z0-9])(e2b|e4b|12b|26b|31b)(?![a-z0-9])", re.IGNORECASE)

# `model_type` of config.json → what it is. The first pattern that fits counts.
_DRAFTER = r"gemma4.*_assistant"
_MODELS = [
    (_DRAFTER, "a drafter, which guesses words for a larger Gemma 4 and answers nothing by itself"),
    (r"gemma4_(unified_)?(vision|audio)", "a tower of a Gemma 4 without its decoder"),
    (r"gemma3n.*", "Gemma 3n, which is not a Gemma 4"),
    (r"gemma3.*", "Gemma 3, which is not a Gemma 4"),
    (r"gemma2?", "an older Gemma, which is not a Gemma 4"),
    (r".*gemma.*", "another model of Gemma's family, which is not a Gemma 4"),
]

# `quant_method` of config.json's `quantization_config` → its name.
_PACKINGS = {
    "bitsandbytes": "bitsandbytes",
    "gptq": "GPTQ",
    "awq": "AWQ",
    "auto-round": "AutoRound",
    "fp8": "FP8",
    "fbgemm_fp8": "FP8",
    "compressed-tensors": "compressed-tensors",
    "modelopt": "NVIDIA ModelOpt",
    "torchao": "torchao",
    "hqq": "HQQ",
    "quanto": "Quanto",
    "mxfp4": "MXFP4 for CUDA",
    "gguf": "GGUF",
    "gemma": "the makers' mobile QAT",
}

# What quantizers for other machines call their tensors → whose they are. The first that fits counts.
_PACKED_TENSORS = [
    (re.compile(r"\.(qweight|qzeros|g_idx)$"), "GPTQ or AWQ"),
    (re.compile(r"\.weight_(zero_point|g_idx|global_scale)$"), "compressed-tensors with more than scales"),
    (re.compile(r"\.(SCB|absmax|quant_map|nested_absmax|quant_state\..*)$"), "bitsandbytes"),
    (re.compile(r"[._](weight_)?scale_inv$"), "FP8"),
    (re.compile(r"[._]weight_scale_2$"), "NVIDIA ModelOpt"),
    (re.compile(r"\.weight\.global_scale$"), "NVFP4 with a scale of whole tensors"),
]


class _Files(NamedTuple):
    patterns: tuple[str, ...]
    what: str
    advice: str | None = None  # None: a size that loads


# The makers' own, whose 4 bits are also to be had from what they call unquantized.
_QAT_GGUF = _Files(("*qat*q4_0*.gguf",), "GGUF of the makers' 4-bit training, the format of llama.cpp, not of MLX")

# Files that tell what a folder is, when there is no config.json with .safetensors. The first that is there counts.
_FILES = [
    _Files(("model_index.json",), "a diffusers pipeline, which makes pictures and is not a Gemma 4"),
    _QAT_GGUF,
    _Files(
        ("*q[2-6]_k*.gguf", "*iq[1-4]_*.gguf"),
        "GGUF of K-quants, which no packing of MLX holds, so they would have to be widened or rounded again",
    ),
    _Files(("*.gguf",), "GGUF, the format of llama.cpp, Ollama and LM Studio, not of MLX"),
    _Files(("*.litertlm", "*.task", "*.tflite"), "LiteRT (MediaPipe), the format for phones, not of MLX"),
    _Files(("*.onnx", "*.onnx_data", "onnx"), "ONNX, not of MLX"),
    _Files(("*.mlpackage", "*.mlmodelc", "*.mlmodel"), "Core ML, not of MLX"),
    _Files(("*.weights.h5", "*.h5", "*.keras"), "Keras weights, not .safetensors"),
    _Files(
        ("*ocdbt", "_METADATA", "_CHECKPOINT_METADATA", "*.msgpack"), "JAX's weights (Orbax or Flax), not .safetensors"
    ),
    _Files(("*.bin", "*.pt", "*.pth", "*.ckpt"), "PyTorch's pickled weights, which may run code when they are read"),
    _Files(("*.npz",), "NumPy's arrays, not .safetensors"),
    _Files(
        ("*.zip", "*.tar", "*.tar.*", "*.tgz", "*.7z", "*.rar", "*.zst", "*.xz", "*.gz"),
        "an archive",
        "unpack it and name the folder in it that has config.json",
    ),
]

# First bytes of a file → a name that says as much.
_MAGIC = [(b"GGUF", "x.gguf"), (b"PK\x03\x04", "x.zip"), (b"\x1f\x8b", "x.gz"), (b"LITERTLM", "x.litertlm")]


def other_model(raw: Mapping[str, Any], name: str) -> str | None:
    """What a `config.json` is of, if it is not of a Gemma 4 this package loads; None: it is of one.

    Args:
        raw: the parsed file, or what the Hub tells of it.
        name: the folder's or the repository's, which may tell the size.
    """
    model_type = raw.get("model_type")
    if model_type not in MODEL_TYPES:
        if not isinstance(model_type, str):
            return f"is not a Gemma 4 (its config.json names no model_type): {advice({}, name)}"
        if re.fullmatch(_DRAFTER, model_type):
            return f"is {_MODELS[0][1]}: {advice(raw, name)}"
        what = next((what for pattern, what in _MODELS if re.fullmatch(pattern, model_type)), None)
        return f"is {what or f'not a Gemma 4 (its model_type is {shown(model_type)})'}: {advice({}, '')}"
    packing = _packing(raw)
    return None if packing is None else f"is quantized by {packing}, not for MLX: {advice(raw, name)}"


def _packing(raw: Mapping[str, Any]) -> str | None:
    """Who packed the weights, if it was not MLX, by what config.json says.

    MLX's programs write a dictionary without `quant_method`. So do the makers for their "-unquantized" checkpoints,
    which hold plain bfloat16.
    """
    if isinstance(raw.get("quantization"), Mapping):
        return None
    text = raw.get("text_config")
    for where in (raw, text if isinstance(text, Mapping) else {}):
        given = where.get("quantization_config")
        if not isinstance(given, Mapping):
            continue
        method = given.get("quant_method")
        if isinstance(method, str) and method.lower() in _READ:
            if (reason := _READ[method.lower()](given)) is not None:
                return f"{_PACKINGS[method.lower()]} {reason}"
            continue
        if isinstance(method, str):
            return _PACKINGS.get(method.lower(), shown(method))
        if given.get("load_in_4bit") or given.get("load_in_8bit"):  # before `quant_method` was written
            return "bitsandbytes"
    return None


def _unread_compressed_tensors(given: Mapping[str, Any]) -> str | None:
    """What is in compressed-tensors' part of config.json that `repacking` cannot map without loss.

    Fields: `QuantizationConfig` and `QuantizationArgs` of compressed-tensors. The Hub tells only `quant_method`.
    """
    groups = given.get("config_groups")
    if not isinstance(groups, Mapping):
        return None
    if given.get("format", "pack-quantized") != "pack-quantized":
        return f"in its form {shown(given['format'])}"
    for group in groups.values():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping):
            return "that does not say how weights are packed"
        if group.get("input_activations"):
            return "with quantized activations"
        if group.get("format", "pack-quantized") not in (None, "pack-quantized"):
            return f"in its form {shown(group['format'])}"
        bits, kind = weights.get("num_bits"), weights.get("type", "int")
        if bits not in (4, 8) or kind != "int" or weights.get("symmetric", True) is not True:
            symmetric = "symmetric" if weights.get("symmetric", True) is True else "asymmetric"
            return f"of {shown(bits)} bits ({symmetric} {shown(kind)})"
    return None


def _unread_mobile(given: Mapping[str, Any]) -> str | None:
    """The same of the makers' mobile checkpoints; fields: `GemmaQuantizationConfig` of transformers."""
    modules = given.get("module_quant_configs") or {}
    named = [
        options.get("num_bits", 4) if isinstance(options, Mapping) else options
        for options in (modules.values() if isinstance(modules, Mapping) else [modules])
    ]
    unknown = next((bits for bits in (given.get("num_bits", 4), *named) if bits not in (2, 4, 8)), None)
    return None if unknown is None else f"of {shown(unknown)} bits"


# `quant_method` of what is read → what of it is not.
_READ = {"compressed-tensors": _unread_compressed_tensors, "gemma": _unread_mobile}


def packed_elsewhere(tensors: Iterable[str]) -> tuple[str, str] | None:
    """Who packed the weights, if it was not MLX, and the tensor that tells it; some leave no word in config.json."""
    for name in tensors:
        for pattern, whose in _PACKED_TENSORS:
            if pattern.search(name):
                return whose, name
    return None


def other_repository(names: Collection[str], raw: Mapping[str, Any], repo_id: str) -> str | None:
    """What a repository of the Hub is, by its list of files and what the Hub tells of config.json; None: perhaps a
    Gemma 4 this package loads."""
    top = [name for name in names if "/" not in name]
    by_config = other_model(raw, repo_id) if raw.get("model_type") else None  # the Hub need not have read it
    if "config.json" in top and any(map(is_weights, top)):
        return by_config
    if "adapter_config.json" in top:
        return "is a LoRA adapter, not a model: merge it into the model it was made for, or take that one"
    return by_config or other_files(names, raw, repo_id)


def other_files(names: Iterable[str], raw: Mapping[str, Any], name: str) -> str | None:
    """What a folder or repository holds in place of .safetensors; None: nothing that is known.

    Args:
        names: of its files.
        raw, name: its config.json and its name, which may tell the size.
    """
    found = _known(names)
    return None if found is None else f"holds {found[0].what}: {_instead(*found, raw, name)}"


def other_file(name: str, start: bytes) -> str | None:
    """What a file is, by its name or its first bytes; None: nothing that is known."""
    found = _known([name]) or _known(like for magic, like in _MAGIC if start.startswith(magic))
    return None if found is None else f"is {found[0].what}: {_instead(*found, {}, name)}"


def _instead(kind: _Files, file: str, raw: Mapping[str, Any], name: str) -> str:
    """What to take in place of such a file."""
    size = _size(raw, f"{name} {file}")
    if kind is _QAT_GGUF and size is not None:
        source = f"{size.hub_id}-qat-q4_0-unquantized"
        return f"`gemma4-mlx convert {source} --recipe qat` keeps the same 4 bits, or {advice(raw, f'{name} {file}')}"
    return kind.advice or advice(raw, f"{name} {file}")


def _known(names: Iterable[str]) -> tuple[_Files, str] | None:
    """The first of `_FILES` that is there, and the file that tells it."""
    bare = [name.rsplit("/", 1)[-1].lower() for name in names]
    bare = [name for name in bare if not name.startswith((".", "training_args", "optimizer", "scheduler", "rng_"))]
    for kind in _FILES:
        for name in bare:
            if any(fnmatchcase(name, pattern.lower()) for pattern in kind.patterns):
                return kind, name
    return None


def advice(raw: Mapping[str, Any], name: str) -> str:
    """What to take instead: the same size, if config.json or the name tells it."""
    size = _size(raw, name)
    if size is None:
        return f"take {', '.join(_SIZES)} or a Hub id such as {_SIZES['e2b'].hub_id}"
    return f"take {size.short_name} or {size.hub_id}"


def _size(raw: Mapping[str, Any], name: str) -> _Size | None:
    text = raw.get("text_config")
    # A drafter's config says how wide the model is that it belongs to.
    hidden = raw.get("backbone_hidden_size") or (text if isinstance(text, Mapping) else raw).get("hidden_size")
    key = _SIZE_OF_HIDDEN.get(hidden) if isinstance(hidden, int) else None
    if key is None and (match := _SIZE_IN_NAME.search(name)):
        key = match[1].lower()
    return _SIZES.get(key) if key else None
