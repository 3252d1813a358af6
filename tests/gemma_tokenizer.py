"""Tokenizers of Gemma's kind for tests: merges of every split of every piece, as SentencePiece's have, any script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

CONTROL = ("<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|image|>")
# Found before any merging, but no control tokens; one is the beginning of another, one begins inside another.
ADDED = ("<mask>", "[multimodal]", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "\t", "<table>", "<tab", "le>x", "|turn>", "turn|")
CHARACTERS = (
    "▁\n abcdefghijklmnopqrstuvwxyzABCXYZ0123456789.,:;=-_<>[]|/\"'(){}éüßñ日本語中文한국어العربيةहिन्दीру́с😀👩🏽\u200d"
)
_PIECES = """
▁t he ▁the in ▁in an ▁and er on re ▁a ▁s ▁w nd ou ing ▁c at == ==== ======== aa aaa aaaa aaaaaa ▁▁▁▁ ▁▁▁▁▁ :: ::::
▁: ▁::: ▁:::::::: </ > "> {" ": "} -- ---- 日本 日本語 中文 한국 العر ال हि न्द ру ус 😀😀 👩🏽 ña ▁é éé ab bc abc bcd
abcd ca cab yy yyy ▁yyyy ▁tab table
"""
PIECES = _PIECES.split()


def build(pieces: Sequence[str] = PIECES, characters: str = CHARACTERS, added: Sequence[str] = ADDED) -> Tokenizer:
    """A tokenizer with these pieces, earlier ones merged first."""
    vocabulary: dict[str, int] = {}
    singles = [character for character in characters if character != " "]
    for token in (*CONTROL, *added, *(f"<0x{byte:02X}>" for byte in range(256)), *singles, *pieces):
        vocabulary.setdefault(token, len(vocabulary))
    merges: dict[tuple[str, str], None] = {}
    for piece in pieces:
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        merges |= dict.fromkeys(split for split in splits if split[0] in vocabulary and split[1] in vocabulary)
    tokenizer = Tokenizer(BPE(vocabulary, list(merges), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in added])
    return tokenizer


def write(path: Path, tokenizer: Tokenizer, large: bool = False) -> Path:
    """Write its file; a `large` one is worth keeping in the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tokenizer.to_str() + " " * (large << 20), encoding="utf-8")
    return path
