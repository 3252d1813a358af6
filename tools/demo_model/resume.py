"""``python -m tools.demo_model.resume FOLDER --work WORK``: go on from an exported model whose training files are gone.

Writes WORK/joint.pt with the folder's weights and fresh throw-away heads, which the polish stage lets learn alone for
its first minutes. Then ``python -m tools.demo_model --work WORK`` speaks the voices and runs that stage.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Gemma4ForConditionalGeneration

from . import train


def checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """State of ``decoder.Together`` with the folder's weights, float32."""
    torch.manual_seed(train.SEEDS["polish"])
    together = train.together()
    exported = Gemma4ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()
    rows = _old_rows(Tokenizer.from_file(str(folder / "tokenizer.json")), together.tokenizer)
    for name in ("embed_tokens", "embed_tokens_per_layer"):
        table = exported[f"model.language_model.{name}.weight"]
        exported[f"model.language_model.{name}.weight"] = torch.stack([table[old].mean(0) for old in rows])
    exported["lm_head.weight"] = exported["model.language_model.embed_tokens.weight"]
    together.model.load_state_dict(exported)
    return together.state_dict()


def _old_rows(old: Tokenizer, new: Tokenizer) -> list[list[int]]:
    """For every id now, the ids of then it is the mean of: changed questions change the tokenizer a little."""
    rows = []
    for index in range(new.get_vocab_size()):
        piece = new.id_to_token(index)
        known = old.token_to_id(piece)
        rows.append([known] if known is not None else old.encode(piece.replace("▁", " "), add_special_tokens=False).ids)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/demo_model"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.save({"together": checkpoint(arguments.folder), "spent": float("inf")}, arguments.work / "joint.pt")
