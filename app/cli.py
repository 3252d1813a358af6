"""The command line: what can be typed, and nothing of what it does.

Each command imports its work when it runs, so that `--help` answers at once and never loads MLX.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .c_output import separate_stderr
from .exit_codes import FAILED, exit_codes
from .models.completion import complete_chat
from .models.models_commands import models
from .options import (
    BenchFormat,
    Debug,
    ImageTokens,
    MaxTokens,
    Model,
    Peer,
    PerLayer,
    RecipeName,
    Seed,
    StoredType,
    System,
    Temperature,
    Think,
    ThinkOrNot,
    ToolsFile,
    TranscriptFormat,
    Yes,
)
from .printable import on_one_line
from .terminal import note, say, warnings_are_notes

if TYPE_CHECKING:
    from .answer.answering import Sampling
    from .settings import Settings


_USAGE_ERROR: Any = typer.BadParameter.__base__
"""Of whichever click this typer brings."""


class _Commands(TyperGroup):
    """The commands; what is wrong with how one is called is said in a line, in which names of files may be."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _printable_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _printable_errors():
            return super().invoke(ctx)


@contextmanager
def _printable_errors() -> Iterator[None]:
    try:
        yield
    except _USAGE_ERROR as error:
        message = on_one_line(error.format_message())
        error.format_message = lambda: message
        raise


cli = typer.Typer(
    cls=_Commands,
    name="gemma4-mlx",
    help="Google's Gemma 4 on Apple silicon: ask about text, pictures and sound, chat, transcribe.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


cli.add_typer(models, name="models")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"gemma4-mlx {version('gemma4-mlx')}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Hold the options that come before a command."""


def _sampling(settings: Settings, max_tokens: int | None, temperature: float | None, seed: int | None) -> Sampling:
    from .answer.answering import Sampling

    return Sampling(
        settings.max_tokens if max_tokens is None else max_tokens,
        settings.temperature if temperature is None else temperature,
        seed,
    )


def _image_tokens(option: int | None) -> int:
    from gemma4_mlx.config import DEFAULT_IMAGE_TOKENS

    if option is None:
        return DEFAULT_IMAGE_TOKENS
    from gemma4_mlx.processing.images import check_image_tokens

    try:
        check_image_tokens(option)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--image-tokens") from None
    return option


def _text(option: str | None, setting: str | None) -> str | None:
    """What an option says, else the config file; an empty option takes back what the file says."""
    return setting if option is None else option or None


@cli.command()
def ask(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", show_default=False, help="The question.")] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", "-i", metavar="FILE", help="A picture; may be repeated.")
    ] = None,
    audio: Annotated[
        list[str] | None, typer.Option("--audio", "-a", metavar="FILE", help="A sound up to 30 s; may be repeated.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            "--schema",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="A JSON schema: the answer is JSON that follows it.",
        ),
    ] = None,
    image_tokens: ImageTokens = None,
    tools: ToolsFile = None,
    yes: Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the answer.")] = False,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    think: Think = False,
    seed: Seed = None,
    system: System = None,
    model: Model = None,
    debug: Debug = False,
) -> None:
    """Ask once: the answer goes to stdout. Text that is piped in, or a file on stdin, is appended to the question.

    A file that has been read from already is left alone: it is the list of a loop around this command. Within a loop
    over a pipe, put < /dev/null behind the command.
    """
    with exit_codes(debug):
        from .ask import ask as answer
        from .settings import config_file, read_settings

        answer(
            prompt,
            image or [],
            audio or [],
            model_name=model,
            system=system,
            thinking=think,
            sampling=_sampling(read_settings(config_file()), max_tokens, temperature, seed),
            as_json=as_json,
            schema=schema,
            image_tokens=_image_tokens(image_tokens),
            tools_file=tools,
            run_tools=yes,
        )


@cli.command()
def chat(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            show_default=False,
            autocompletion=complete_chat,
            help="With --resume and --delete: which chat. Default of --resume: the last one.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", "-r", help="Go on with an earlier chat.")] = False,
    private: Annotated[
        bool,
        typer.Option("--private", help="Write nothing of the chat to disk; with --resume: read, and stay as it is."),
    ] = False,
    list_chats: Annotated[bool, typer.Option("--list", help="List the chats that are saved.")] = False,
    delete: Annotated[
        bool,
        typer.Option("--delete", help="Delete the chat NAME, with its attachments; asks first, unless with --yes."),
    ] = False,
    image_tokens: ImageTokens = None,
    tools: ToolsFile = None,
    yes: Yes = False,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    think: ThinkOrNot = None,
    seed: Seed = None,
    system: System = None,
    model: Model = None,
    debug: Debug = False,
) -> None:
    """Talk with the model, also about pictures and sounds: type or drop a file's path. /help lists the commands."""
    with exit_codes(debug):
        if resume + list_chats + delete > 1 or (private and (list_chats or delete)):
            raise typer.BadParameter("one of them at a time", param_hint="--resume, --private, --list, --delete")
        if name is not None and not (resume or delete):
            raise typer.BadParameter("--resume NAME goes on with a chat", param_hint=name)
        if delete and name is None:
            raise typer.BadParameter("which chat? --list lists them", param_hint="--delete NAME")
        if list_chats or delete:
            from .chat import deleting

            deleting.list_chats() if name is None else deleting.delete_chat(name, unasked=yes)
            return
        from .chat.chat import ChatOptions
        from .chat.chat_loop import chat as talk
        from .settings import config_file, read_settings

        settings = read_settings(config_file())
        options = ChatOptions(
            sampling=_sampling(settings, max_tokens, temperature, seed),
            system=_text(system, settings.chat.system),
            thinking=settings.chat.thinking if think is None else think,
            resume=(name or "") if resume else None,
            image_tokens=_image_tokens(settings.chat.image_tokens if image_tokens is None else image_tokens),
            tools=tools,
            run_tools=yes,
            microphone=settings.transcribe.device,
            language=settings.transcribe.language,
            private=private,
        )
        talk(model, options)


@cli.command()
def transcribe(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="mic|FILE...|-", show_default=False, help="The microphone, audio or video files, or a pipe."
        ),
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", metavar="NAME", help="What is spoken, such as English. Default: any.")
    ] = None,
    translate_to: Annotated[
        str | None, typer.Option("--translate-to", metavar="NAME", help="Translate into this language as well.")
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            "--words",
            metavar="LIST|FILE",
            show_default=False,
            help='Names and terms that may be said: "MLX, Grafana", or a file of one a line.',
        ),
    ] = None,
    format: Annotated[TranscriptFormat, typer.Option("--format", help="What to write.")] = TranscriptFormat.text,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", metavar="FOLDER", file_okay=False, help="One file each in here, instead of stdout."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", dir_okay=False, help="Live sound's transcript, instead of stdout."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="Microphone: its number or part of its name.")
    ] = None,
    list_microphones: Annotated[bool, typer.Option("--list", help="List the microphones, as `devices` does.")] = False,
    partials: Annotated[
        bool | None,
        typer.Option(
            "--partials/--no-partials",
            show_default=False,
            help="Show sentences while they are being spoken. Default: yes, but not of a pipe.",
        ),
    ] = None,
    vad_threshold: Annotated[
        float, typer.Option("--vad-threshold", min=0.05, max=0.95, metavar="P", help="How surely it must be speech.")
    ] = 0.5,
    silence: Annotated[
        float | None,
        typer.Option(
            "--silence",
            min=0.1,
            max=10,
            metavar="S",
            show_default=False,
            help="Seconds of silence that end a segment. Default: 0.7, in files 2.",
        ),
    ] = None,
    max_utterance: Annotated[
        float | None,
        typer.Option(
            "--max-utterance",
            min=1,
            max=28,
            metavar="S",
            show_default=False,
            help="Longest segment in seconds. Default: 20, in files 28.",
        ),
    ] = None,
    save_audio: Annotated[
        Path | None,
        typer.Option("--save-audio", metavar="FILE", dir_okay=False, help="Keep the live sound as a .wav file."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")] = False,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.1, metavar="S", help="Stop listening after S seconds.")
    ] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Play a file as if it were spoken now.")] = False,
    speed: Annotated[
        float | None,
        typer.Option("--speed", min=0.1, metavar="N", show_default=False, help="Play it N times as fast."),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option("--rate", min=1000, metavar="HZ", help="The pipe is raw 16-bit mono at this rate, not a WAV."),
    ] = None,
    model: Model = None,
    debug: Debug = False,
) -> None:
    """Write down what is said: live into the microphone (mic), in recordings of any length, or in a pipe (-)."""
    with exit_codes(debug):
        if list_microphones:
            from .speech.transcribe_live import list_devices

            list_devices()
            return
        if not files:
            raise typer.BadParameter(
                "what is to be transcribed? Give mic, files, or - for a pipe", param_hint="mic|FILE"
            )
        named = files[0] if len(files) == 1 else None
        live = simulate or not {"mic", "-"}.isdisjoint(files)
        if live and (named is None or output_dir is not None):
            raise typer.BadParameter("live sound comes alone, and goes to stdout or to --output", param_hint=files[0])
        if simulate and named in ("mic", "-"):
            raise typer.BadParameter("only a file can be played", param_hint="--simulate")
        if not live and (output is not None or save_audio is not None or duration is not None):
            raise typer.BadParameter("--output, --save-audio and --duration are for live sound: mic or -")
        for option, given, wanted, what in (
            ("--device", device is not None, named == "mic", "mic"),
            ("--rate", rate is not None, named == "-", "a pipe: -"),
            ("--speed", speed is not None, simulate, "--simulate"),
        ):
            if given and not wanted:
                raise typer.BadParameter(f"this is for {what}", param_hint=option)
        if save_audio is not None and save_audio.suffix.lower() != ".wav":
            raise typer.BadParameter("only .wav files are written", param_hint="--save-audio")
        if output is not None and save_audio is not None and output.absolute() == save_audio.absolute():
            raise typer.BadParameter("text and sound go to two files", param_hint="--save-audio")
        from .settings import config_file, read_settings
        from .speech.named_words import named_words

        known_words = None if words is None else named_words(words)
        spoken = read_settings(config_file()).transcribe
        language, translate_to = _text(language, spoken.language), _text(translate_to, spoken.translate_to)
        if not live:
            from .speech.transcribe_files import FileOptions, transcribe_files

            recordings = FileOptions(
                language,
                translate_to,
                threshold=vad_threshold,
                silence=2.0 if silence is None else silence,
                max_utterance=28.0 if max_utterance is None else max_utterance,
                words=known_words,
            )
            transcribe_files(
                files,
                recordings,
                format=format.value,
                output_dir=output_dir,
                overwrite=overwrite,
                model_name=model,
            )
            return
        from .speech.transcribe_live import LiveOptions, transcribe_microphone, transcribe_pipe
        from .speech.transcribe_live import simulate as play

        options = LiveOptions(
            language=language,
            translate_to=translate_to,
            # Nobody watches a pipe that is read as fast as it comes.
            partials=named != "-" if partials is None else partials,
            threshold=vad_threshold,
            silence=0.7 if silence is None else silence,
            max_utterance=20.0 if max_utterance is None else max_utterance,
            format=format.value,
            output=output,
            save_audio=save_audio,
            overwrite=overwrite,
            duration=duration,
            words=known_words,
        )
        if named == "mic":
            transcribe_microphone(_text(device, spoken.device), options, model)
        elif named == "-":
            transcribe_pipe(rate, options, model)
        else:
            play(files[0], speed or 1.0, options, model)


@cli.command()
def devices(debug: Debug = False) -> None:
    """List the microphones that `transcribe mic --device` can be given."""
    with exit_codes(debug):
        from .speech.transcribe_live import list_devices

        list_devices()


@cli.command()
def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen. Others than this machine need a key.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="0 takes any that is free.")
    ] = 8642,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", metavar="KEY", show_default=False, help="What clients must send."),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", metavar="FILE", show_default=False, help="The same, from a file."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", min=1, metavar="N", show_default=False, help="Most tokens of a prompt and its answer."
        ),
    ] = None,
    parallel: Annotated[int, typer.Option("--parallel", min=1, max=64, metavar="N", help="Answers at once.")] = 8,
    strict_model: Annotated[
        bool, typer.Option("--strict-model", help="Refuse requests for another model than the one that runs.")
    ] = False,
    model: Model = None,
    debug: Debug = False,
) -> None:
    """Answer other programs on this machine, as OpenAI's API does."""
    with exit_codes(debug):
        from .serve.serve import ServeOptions
        from .serve.serve import serve as run

        run(ServeOptions(host, port, api_key, api_key_file, context, parallel, strict_model), model)


@cli.command()
def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", show_default=False, help="Where --self-test --json writes its report."),
    ] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Compute with every kind of kernel, and compare with the CPU. A minute.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
    debug: Debug = False,
) -> None:
    """Look at everything this program needs on this machine, and say what to do where something is missing."""
    with exit_codes(debug):
        if file is not None and not (self_test and as_json):
            raise typer.BadParameter("a file is written with --self-test --json FILE", param_hint="FILE")
        if self_test:
            from .doctor.self_test import run_self_test

            run_self_test(as_json, file)
            return
        from .doctor.doctor import doctor as examine

        examine(as_json)


@cli.command()
def demo(
    mic: Annotated[bool, typer.Option("--mic", help="Listen to you as well, for five seconds.")] = False,
    debug: Debug = False,
) -> None:
    """See it work, without a download: a small model that comes with the package looks, listens and answers."""
    with exit_codes(debug):
        from .demo.demo import demo as show

        show(microphone=mic)


@cli.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", show_default=False, help="A Hugging Face id such as google/gemma-4-E2B-it, or a folder."
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", show_default=False, help="Where to. Default: the model's name and the recipe."
        ),
    ] = None,
    recipe: Annotated[
        RecipeName, typer.Option("--recipe", help="How the weights are quantized.")
    ] = RecipeName.four_bit,
    dtype: Annotated[
        StoredType, typer.Option("--dtype", help="Precision of what is not quantized.")
    ] = StoredType.bfloat16,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="NAME", help="Branch, tag or commit of a Hugging Face id.")
    ] = None,
    upload: Annotated[
        str | None, typer.Option("--upload", metavar="REPO", help="Also put the result on the Hugging Face Hub.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would take on disk and in memory, and write nothing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Convert and quantize a checkpoint. Stopped half-way, the same command goes on where it was."""
    with exit_codes(debug):
        from .convert import convert_checkpoint, print_plan

        if dry_run:
            print_plan(source, recipe=recipe.value, dtype=dtype.value, revision=revision)
        else:
            convert_checkpoint(source, folder, recipe=recipe.value, dtype=dtype.value, revision=revision, upload=upload)


@cli.command()
def bench(
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", metavar="N,...", help="Prompt lengths in tokens; 0 for none.")
    ] = "512",
    generate: Annotated[
        str, typer.Option("--generate", "-g", metavar="N,...", help="How many tokens to generate; 0 for none.")
    ] = "128",
    depth: Annotated[
        str | None,
        typer.Option(
            "--depth",
            "-d",
            metavar="N,...",
            show_default=False,
            help="Tokens already in the context. Default: 0, with --plot up to 4096.",
        ),
    ] = None,
    repetitions: Annotated[
        int, typer.Option("--repetitions", "-r", min=1, metavar="N", help="How often, after one to warm up.")
    ] = 5,
    per_layer: Annotated[
        PerLayer, typer.Option("--per-layer", help="Where the per-layer table of e2b and e4b stays.")
    ] = PerLayer.auto,
    text_only: Annotated[bool, typer.Option("--text-only", help="Leave out pictures and sound.")] = False,
    format: Annotated[BenchFormat, typer.Option("--format", help="What to write.")] = BenchFormat.text,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", dir_okay=False, help="Draw speed against depth: .png, .svg or .pdf."),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            "--compare",
            metavar="FILE",
            help="Show beside an earlier result (--format json); given twice, compare two without measuring.",
        ),
    ] = None,
    against: Annotated[
        Peer | None, typer.Option("--against", help="Measure this engine too, if installed. Text only.")
    ] = None,
    model: Model = None,
    debug: Debug = False,
) -> None:
    """Measure speed and memory: reading, generating, seeing, hearing, loading."""
    with exit_codes(debug):
        from .bench.bench import BenchOptions
        from .bench.bench import bench as measure

        options = BenchOptions(
            prompts=prompt,
            generations=generate,
            depths=depth,
            repetitions=repetitions,
            per_layer=per_layer.value,
            text_only=text_only,
            format=format.value,
            plot=plot,
            compared=compare or [],
            against=against.value if against else None,
        )
        measure(options, model)


def main() -> None:
    """The `gemma4-mlx` command."""
    # huggingface_hub would tell the Hub which programs and versions are here, and ask it for a list to know them by.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Closed by whoever started this. The next file to be opened would take its number, and be written to, or refused
    # (MLX takes none numbered 0).
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open to the end)
    for stream in (sys.stdout, sys.stderr):
        # A file name or a word that the terminal's encoding cannot show must not end the program.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    separate_stderr()
    warnings_are_notes()
    try:
        cli()
    except Exception:  # with --debug
        note(*traceback.format_exc().rstrip().split("\n"))
        sys.exit(FAILED)
