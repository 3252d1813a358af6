"""`gemma4-mlx ask`: one question, one answer on stdout, and nothing else there."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gemma4_mlx.errors import InputError

from .answering import Sampling, StreamedAnswer, say_why_it_ended
from .attachments import open_attachment
from .conversation import Conversation, Message
from .model_choice import open_model

if TYPE_CHECKING:
    from gemma4_mlx.generation import Generation
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor


def ask(
    prompt: str | None,
    images: list[str],
    audio: list[str],
    *,
    model_name: str | None,
    system: str | None,
    thinking: bool,
    sampling: Sampling,
    as_json: bool,
    schema: Path | None = None,
) -> None:
    """Answer `prompt`, with piped stdin appended to it, about the given pictures and sounds.

    With `schema`, the file of a JSON schema, the answer is JSON that follows it.

    Raises:
        Gemma4Error: a file cannot be read, or the model cannot be loaded or given this prompt.
        typer.BadParameter: there is nothing to ask.
    """
    attachments = [
        *(open_attachment(image, "image") for image in images),
        *(open_attachment(sound, "audio") for sound in audio),
    ]
    schema_text = None if schema is None else _schema_text(schema)
    question = "\n\n".join(text for text in (prompt, piped_text()) if text)
    if not question and not attachments:
        raise typer.BadParameter("say what to ask, or pipe it in", param_hint="PROMPT")
    conversation = Conversation(system=system, thinking=thinking, waiting=attachments)
    model, processor = open_model(model_name, hearing=bool(audio))
    messages = conversation.messages_with(question)
    if as_json:
        answer = _answer_as_json(model, processor, messages, thinking, sampling, schema_text)
    else:
        screen = StreamedAnswer(show_thoughts=thinking)
        answer = screen.stream(model, processor, messages, thinking, sampling, schema_text)
    say_why_it_ended(answer, sampling.max_tokens)


def _answer_as_json(
    model: Gemma4,
    processor: Processor,
    messages: list[Message],
    thinking: bool,
    sampling: Sampling,
    schema: str | None,
) -> Generation:
    import gemma4_mlx as g4

    answer = g4.generate(model, processor, messages, thinking=thinking, schema=schema, **asdict(sampling))
    fields = {
        "text": answer.text,
        "thought": answer.thought,
        "tool_calls": [asdict(call) for call in answer.tool_calls],
        "finish_reason": answer.finish_reason,
        "stats": asdict(answer.stats),
    }
    sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
    return answer


def _schema_text(schema: Path) -> str:
    try:
        return schema.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{schema} is not UTF-8 text: give the file of a JSON schema") from None


def piped_text() -> str:
    """What is piped into stdin, or "" when a person sits there or nothing is.

    Raises:
        InputError: it is not UTF-8 text.
    """
    if sys.stdin is None:  # started with stdin closed
        return ""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8").rstrip("\n")
    except UnicodeDecodeError:
        raise InputError("stdin is not UTF-8 text: give pictures with --image and sound with --audio") from None
