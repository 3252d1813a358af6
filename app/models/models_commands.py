"""What can be typed after `gemma4-mlx models`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..exit_codes import exit_codes
from ..options import Debug
from .completion import complete_cached, complete_model

models = typer.Typer(
    help="List the models, with what each takes and which are here; fetch and remove them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")]
Check = Annotated[bool, typer.Option("--check", help="Ask the Hub which of those here it has a newer version of.")]


@models.callback(invoke_without_command=True)
def models_alone(context: typer.Context, as_json: AsJson = False, check: Check = False, debug: Debug = False) -> None:
    """List the models, with what each takes and which are here; fetch and remove them."""
    if context.invoked_subcommand is None:
        list_(as_json, check, debug)
    elif as_json or check:
        option = "--json" if as_json else "--check"
        raise typer.BadParameter(f"put it behind the command: gemma4-mlx models list {option}", param_hint=option)


@models.command("list")
def list_(as_json: AsJson = False, check: Check = False, debug: Debug = False) -> None:
    """List them, as `gemma4-mlx models` alone does."""
    with exit_codes(debug):
        from .models import list_models

        list_models(as_json, check)


@models.command()
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            autocompletion=complete_model,
            help="e2b, e4b, 12b, 26b, 31b, or a Hugging Face id.",
        ),
    ],
    debug: Debug = False,
) -> None:
    """Fetch one, what is missing of it, or a newer version."""
    with exit_codes(debug):
        from .models import pull as fetch

        fetch(name)


@models.command()
def rm(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", show_default=False, autocompletion=complete_cached, help="As `gemma4-mlx models` lists it."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    debug: Debug = False,
) -> None:
    """Remove one from the Hugging Face cache."""
    with exit_codes(debug):
        from .models import remove

        remove(name, yes)
