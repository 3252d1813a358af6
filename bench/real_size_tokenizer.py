"""A tokenizer of Gemma 4's size and kind, made up: 262,144 tokens, about half a million merges, 30 MB of JSON.

What it takes to read one depends on how many tokens and merges there are, not on the words they spell.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from gemma4_mlx.checkpoint.builtin import FOLDER as BUILTIN

SIZE = 262_144
NAMED = {
    0: "<pad>",
    1: "<eos>",
    2: "<bos>",
    3: "<unk>",
    4: "<mask>",
    46: "<|tool>",
    47: "<tool|>",
    48: "<|tool_call>",
    49: "<tool_call|>",
    50: "<|tool_response>",
    51: "<tool_response|>",
    52: '<|"|>',
    98: "<|think|>",
    100: "<|channel>",
    101: "<channel|>",
    105: "<|turn>",
    106: "<turn|>",
    255_999: "<|image>",
    256_000: "<|audio>",
    258_880: "<|image|>",
    258_881: "<|audio|>",
    258_882: "<image|>",
    258_883: "<audio|>",
    258_884: "<|video|>",
}
_BYTES = 238  # id of <0x00>
_UNUSED = (range(5, 107), range(256_001, 262_144))  # <unused…>, where there is no control token


def write_real_size_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json`, and `tokenizer_config.json` and `chat_template.jinja` of the built-in model."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = dict(NAMED)
    for unused in _UNUSED:
        for id_ in unused:
            tokens.setdefault(id_, f"<unused{id_}>")
    added = sorted(tokens)
    tokens |= {_BYTES + byte: f"<0x{byte:02X}>" for byte in range(256)}
    free = [id_ for id_ in range(SIZE) if id_ not in tokens]
    pieces, merges = _pieces(len(free))
    tokens |= dict(zip(free, pieces, strict=True))
    settings = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **settings, "special": i in NAMED} for i in added],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {tokens[id_]: id_ for id_ in range(SIZE)},
            "merges": merges,
        },
    }
    text = json.dumps(content, ensure_ascii=False, indent=2)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(BUILTIN / name, folder / name)


def _pieces(count: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Characters and `count` pieces in all, each of two before it; and every split of every piece, in that order."""
    chance = random.Random(0)
    blocks = (range(0x21, 0x7F), range(0xA1, 0x250), range(0x370, 0x530), range(0x900, 0x980), range(0x4E00, 0x8E00))
    pieces = ["▁", "\n", *(chr(code) for block in blocks for code in block)]
    letters = "etaoinshrdl▁"  # few, so that what is left of a piece without its first is often one too
    known, merges = set(pieces), []
    words = [*letters]
    while len(pieces) < count:
        piece = chance.choice(words) + chance.choice(words if chance.random() < 0.3 else letters)
        if piece in known or len(piece) > 12 or "▁" in piece[1:]:
            continue
        known.add(piece)
        pieces.append(piece)
        words.append(piece)
        splits = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        merges += [split for split in splits if split[0] in known and split[1] in known]
    return pieces, merges
