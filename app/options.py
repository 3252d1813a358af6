"""Options that several commands have, and the names that one of them may be given."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .models.completion import complete_model


class TranscriptFormat(StrEnum):
    """What `transcribe` writes."""

    text = "text"
    srt = "srt"
    vtt = "vtt"
    json = "json"
    jsonl = "jsonl"


class RecipeName(StrEnum):
    """What `convert` makes of the weights; `gemma4_mlx.conversion.recipes` says what each one does."""

    four_bit = "4bit"
    eight_bit = "8bit"
    mxfp4 = "mxfp4"
    bf16 = "bf16"
    speech = "speech"
    qat = "qat"


class StoredType(StrEnum):
    """Precision of what `convert` does not quantize."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


class BenchFormat(StrEnum):
    """What `bench` writes."""

    text = "text"
    md = "md"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"


class Peer(StrEnum):
    """Other engines `bench` can measure."""

    mlx_lm = "mlx-lm"
    mlx_vlm = "mlx-vlm"


class PerLayer(StrEnum):
    """Where the per-layer table of the small sizes stays."""

    auto = "auto"
    disk = "disk"
    memory = "memory"


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        show_default=False,
        autocompletion=complete_model,
        help="e2b, e4b, 12b, 26b, 31b, a Hugging Face id, a folder, or demo (small, built in). Otherwise "
        "GEMMA4_MLX_MODEL, then `model` in the config file, then the largest size that fits this machine.",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", min=1, metavar="N", show_default=False, help="Longest answer, in tokens. Default: 2048."
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", min=0.0, metavar="T", help="0 always takes the likeliest token. Default: the model's."
    ),
]
Think = Annotated[bool, typer.Option("--think", help="Let the model think first; its thoughts go to stderr.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, metavar="N", help="Draw the same answer again.")]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="Instructions for the model.")]
ThinkOrNot = Annotated[
    bool | None,
    typer.Option(
        "--think/--no-think", show_default=False, help="Let the model think first; its thoughts go to stderr."
    ),
]
ImageTokens = Annotated[
    int | None,
    typer.Option(
        "--image-tokens",
        metavar="N",
        show_default=False,
        help="Tokens a picture may take: 70, 140, 280, 560 or 1120, more to read small print. Default: 280.",
    ),
]
ToolsFile = Annotated[
    Path | None, typer.Option("--tools", metavar="FILE", help="A Python file with functions that the model may call.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Run the functions of --tools without asking.")]


def _wherever_it_stands(context: typer.Context, wanted: bool) -> bool:
    """`--debug` before a command's name holds for the command too: a context hands its `obj` on to those below."""
    context.obj = wanted or bool(context.obj)
    return context.obj


Debug = Annotated[
    bool,
    typer.Option("--debug", callback=_wherever_it_stands, help="Show Python's traceback when something fails."),
]
