"""The tables of `bpe.BPE`, made from a tokenizer.json once and then read from the user's cache folder.

Only files that are of Gemma's kind in every respect are taken: byte-pair encoding with all 256 bytes to fall back on,
spaces written as ▁, nothing else done to the text. Any other is left to the library `tokenizers`.

A cached file is one for the exact bytes of a tokenizer.json, and says so itself: it holds their SHA-256, and one of
its own content. Neither a file's name nor its date is trusted. It can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from .bpe import BPE, CHARACTER_BITS, Tables

# Raise the number with every change of what the tables mean.
_FORMAT = b"gemma4-mlx bpe 1"
_DTYPES = {
    "text": "<u1",
    "starts": "<i4",
    "by_text": "<i4",
    "characters": "<i4",
    "character_ids": "<i4",
    "byte_ids": "<i4",
    "pairs": "<i8",
    "ranks": "<i4",
    "merged": "<i4",
    "joints": "<i8",
    "added_ids": "<i4",
    "added_special": "<u1",
}
_HEAD = struct.Struct(f"<{len(_FORMAT)}s32s32s{len(_DTYPES)}Q")  # format, digests of tokenizer.json and of the rest

# Smaller ones are made in less time than a file is worth.
_WORTH_KEEPING = 1 << 20  # bytes of tokenizer.json


class OtherKindError(Exception):
    """A tokenizer.json that only the library can read, or none at all."""


def read_bpe(path: Path, special: Iterable[str] = ()) -> BPE:
    """The tokenizer of a tokenizer.json.

    Args:
        special: control tokens besides those the file names. Some files hold one as an ordinary entry, which text
            would never be matched with.

    Raises:
        OtherKindError: it is not of Gemma's kind, or damaged.
        OSError: it cannot be read.
    """
    large = path.stat().st_size >= _WORTH_KEEPING
    return BPE(_kept_tables(path) if large else make_tables(path.read_bytes()), special)


def _kept_tables(path: Path) -> Tables:
    """As `make_tables`, from the cache if they are there."""
    content = path.read_bytes()
    key = hashlib.sha256(content).digest()
    kept = platformdirs.user_cache_path("gemma4-mlx") / "tokenizers" / f"{key.hex()}.bpe"
    tables = _read(kept, key)
    if tables is None:
        tables = make_tables(content)
        # A cache that cannot be written, on a full or read-only disk, costs time and nothing else.
        with contextlib.suppress(OSError):
            _write(kept, key, tables)
    return tables


def make_tables(content: bytes) -> Tables:
    """The tables of a tokenizer.json.

    Raises:
        OtherKindError: it is not of Gemma's kind, or damaged.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would look through half a million lists again and again, and find nothing
    try:
        return _make_tables(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # What is missing, or is not what it is in Gemma's files, shows itself in one of these.
        raise OtherKindError(str(error)) from error
    finally:
        if collecting:
            gc.enable()


def _make_tables(tokenizer: dict[str, Any]) -> Tables:
    model = tokenizer["model"]
    if not _is_gemmas_kind(tokenizer, model):
        raise OtherKindError("the text is treated in another way")
    vocabulary: dict[str, int] = model["vocab"]
    tokens: list[str] = [""] * len(vocabulary)
    for token, id_ in vocabulary.items():
        if type(id_) is not int or not 0 <= id_ < len(tokens) or tokens[id_] or not token:
            raise OtherKindError(f"{token!r} has the id {id_!r}")
        tokens[id_] = token
    byte_ids = [vocabulary[f"<0x{byte:02X}>"] for byte in range(256)]
    if sum(len(token.encode()) == 6 and token[:3] == "<0x" and token[-1] == ">" for token in tokens) != 256:
        raise OtherKindError("there are other tokens spelled like bytes")
    added = tokenizer["added_tokens"]
    for token in added:
        if vocabulary[token["content"]] != token["id"] or any(
            token[flag] for flag in ("single_word", "lstrip", "rstrip", "normalized")
        ):
            raise OtherKindError(f"{token['content']!r} is found in another way")
    if len({token["id"] for token in added}) != len(added):
        raise OtherKindError("a token is added twice")

    # Lists of two, or as older files have them, with a space between.
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    if not all(isinstance(merge, list) and len(merge) == 2 for merge in merges):
        raise OtherKindError("something is no merge")
    count = len(merges)
    left = np.fromiter((vocabulary[first] for first, _ in merges), np.int64, count)
    right = np.fromiter((vocabulary[second] for _, second in merges), np.int64, count)
    merged = np.fromiter((vocabulary[first + second] for first, second in merges), np.int64, count)
    if np.isin(np.concatenate([left, right, merged]), byte_ids).any():
        raise OtherKindError("bytes are merged")
    pairs = left << 32 | right
    order = np.argsort(pairs)
    pairs = pairs[order]
    if (pairs[1:] == pairs[:-1]).any():
        raise OtherKindError("two merges are of the same tokens")
    joints = {ord(first[-1]) << CHARACTER_BITS | ord(second[0]) for first, second in merges}
    spelled = [token.encode() for token in tokens]
    characters = sorted((ord(token), id_) for token, id_ in vocabulary.items() if len(token) == 1)
    arrays: dict[str, Any] = {
        "text": np.frombuffer(b"".join(spelled), np.uint8),
        "starts": np.cumsum([0, *map(len, spelled)]),
        "by_text": sorted(range(len(tokens)), key=spelled.__getitem__),
        "characters": [code for code, _ in characters],
        "character_ids": [id_ for _, id_ in characters],
        "byte_ids": byte_ids,
        "pairs": pairs,
        "ranks": order,
        "merged": merged[order],
        "joints": sorted(joints),
        "added_ids": [token["id"] for token in added],
        "added_special": [bool(token["special"]) for token in added],
    }
    return Tables(**{name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in _DTYPES.items()})


def _is_gemmas_kind(tokenizer: dict[str, Any], model: dict[str, Any]) -> bool:
    """Whether a text is treated as Gemma's tokenizers do, with nothing done that is not done here."""
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    fuse = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    around = tokenizer.get("post_processor")
    return (
        tokenizer["normalizer"] == {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        # No space is left to split at.
        and tokenizer["pre_tokenizer"] in (None, split)
        # Tokens of a template are not added.
        and (around is None or around["type"] == "TemplateProcessing")
        and tokenizer["decoder"] == {"type": "Sequence", "decoders": fuse}
        and model["type"] == "BPE"
        and model["byte_fallback"] is True
        and not any(
            model.get(other)
            for other in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
        )
    )


def _read(kept: Path, key: bytes) -> Tables | None:
    """Tables from the cache; None if they are not there or not whole."""
    try:
        # Read, not mapped: whatever happens to the file later, these are the bytes that were looked at.
        content = memoryview(kept.read_bytes())
    except OSError:
        return None
    if len(content) < _HEAD.size:
        return None
    format_, of, digest, *counts = _HEAD.unpack_from(content)
    sizes = [count * np.dtype(dtype).itemsize for count, dtype in zip(counts, _DTYPES.values(), strict=True)]
    whole = len(content) == _HEAD.size + sum(map(_padded, sizes))
    if not whole or (format_, of) != (_FORMAT, key) or digest != hashlib.sha256(content[_HEAD.size :]).digest():
        return None
    arrays, at = {}, _HEAD.size
    for (name, dtype), count, size in zip(_DTYPES.items(), counts, sizes, strict=True):
        arrays[name] = np.frombuffer(content, dtype, count, at)
        at += _padded(size)
    return Tables(**arrays)


def _write(kept: Path, key: bytes, tables: Tables) -> None:
    """Put tables into the cache, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    arrays = [getattr(tables, field.name) for field in fields(tables)]
    body = b"".join(array.tobytes().ljust(_padded(array.nbytes), b"\0") for array in arrays)
    head = _HEAD.pack(_FORMAT, key, hashlib.sha256(body).digest(), *map(len, arrays))
    kept.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=kept.parent, prefix=kept.name)
    try:
        with open(handle, "wb") as file:
            file.write(head + body)
        os.replace(part, kept)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _padded(size: int) -> int:
    """Bytes an array takes: each begins where eight-byte numbers may lie."""
    return -(-size // 8) * 8
