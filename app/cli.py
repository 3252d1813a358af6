"""The command line: what can be typed, and nothing of what it does.

Each command imports its work when it runs, so that `--help` answers at once and never loads MLX.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .endings import exit_codes

cli = typer.Typer(
    name="gemma4-mlx",
    help="Google's Gemma 4 on Apple silicon: ask about text, pictures and sound, chat, transcribe.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MAX_TOKENS = 2048


class TranscriptFormat(StrEnum):
    """What `transcribe` writes."""

    text = "text"
    json = "json"


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        show_default=False,
        help="e2b, e4b, 26b, 31b, a Hugging Face id or a folder. Otherwise GEMMA4_MLX_MODEL, then `model` in the "
        "config file, then the largest size that fits this machine.",
    ),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, metavar="N", help="Longest answer, in tokens.")]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", min=0.0, metavar="T", help="0 always takes the likeliest token. Default: the model's."
    ),
]
Think = Annotated[bool, typer.Option("--think", help="Let the model think first; its thoughts go to stderr.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, metavar="N", help="Draw the same answer again.")]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="Instructions for the model.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show Python's traceback when something fails.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gemma4-mlx {version('gemma4-mlx')}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options that come before a command."""


@cli.command()
def ask(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", show_default=False, help="The question.")] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", "-i", metavar="FILE", help="A picture; may be repeated.")
    ] = None,
    audio: Annotated[
        list[str] | None, typer.Option("--audio", "-a", metavar="FILE", help="A sound up to 30 s; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the answer.")] = False,
    max_tokens: MaxTokens = MAX_TOKENS,
    temperature: Temperature = None,
    think: Think = False,
    seed: Seed = None,
    system: System = None,
    model: Model = None,
    debug: Debug = False,
) -> None:
    """Ask once: the answer goes to stdout. Piped text is appended to the question."""
    with exit_codes(debug):
        from .answering import Sampling
        from .ask import ask as answer

        answer(
            prompt,
            image or [],
            audio or [],
            model_name=model,
            system=system,
            thinking=think,
            sampling=Sampling(max_tokens, temperature, seed),
            as_json=as_json,
        )


@cli.command()
def chat(
    max_tokens: MaxTokens = MAX_TOKENS,
    temperature: Temperature = None,
    think: Think = False,
    seed: Seed = None,
    system: System = None,
    model: Model = None,
    debug: Debug = False,
) -> None:
    """Talk with the model, also about pictures and sounds: type or drop a file's path. /help lists the commands."""
    with exit_codes(debug):
        from .answering import Sampling
        from .chat import chat as talk

        talk(model_name=model, system=system, thinking=think, sampling=Sampling(max_tokens, temperature, seed))


@cli.command()
def transcribe(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", show_default=False, help="Audio or video files.")],
    language: Annotated[
        str | None, typer.Option("--language", metavar="NAME", help="What is spoken, such as English. Default: any.")
    ] = None,
    translate_to: Annotated[
        str | None, typer.Option("--translate-to", metavar="NAME", help="Translate into this language as well.")
    ] = None,
    format: Annotated[TranscriptFormat, typer.Option("--format", help="What to write.")] = TranscriptFormat.text,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", metavar="FOLDER", file_okay=False, help="One file each in here, instead of stdout."
        ),
    ] = None,
    model: Model = None,
    debug: Debug = False,
) -> None:
    """Write down what is said in recordings of any length."""
    with exit_codes(debug):
        from .transcribe import transcribe_files

        transcribe_files(
            files,
            language=language,
            translate_to=translate_to,
            format=format.value,
            output_dir=output_dir,
            model_name=model,
        )


def main() -> None:
    """The `gemma4-mlx` command."""
    for stream in (sys.stdout, sys.stderr):
        # A file name or a word that the terminal's encoding cannot show must not end the program.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    cli()
