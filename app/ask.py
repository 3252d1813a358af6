"""`gemma4-mlx ask`: one question, one answer on stdout, and nothing else there."""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gemma4_mlx.config import DEFAULT_IMAGE_TOKENS
from gemma4_mlx.errors import InputError

from .answer.answer_screen import AnswerScreen
from .answer.answering import Request, Sampling, generate, prompt_progress, say_why_it_ended, show
from .chat.conversation import Conversation
from .interrupts import Interrupts
from .line.attachments import LARGEST, open_attachment
from .messages import Message
from .models.model_choice import open_model
from .terminal import note, say
from .tools.tool_rounds import Permission, answer_in_rounds
from .whole_file import read_small_text

if TYPE_CHECKING:
    from gemma4_mlx.generation import Generation

_SECONDS_WITHOUT_A_WORD = 1.0


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
    image_tokens: int = DEFAULT_IMAGE_TOKENS,
    tools_file: Path | None = None,
    run_tools: bool = False,
) -> None:
    """Answer `prompt`, with piped stdin appended to it, about the given pictures and sounds.

    Args:
        schema: the file of a JSON schema: the answer is JSON that follows it.
        image_tokens: the most soft tokens a picture may take.
        tools_file: a Python file with functions that the model may call.
        run_tools: run them without asking.

    Raises:
        Gemma4Error: a file cannot be read, or the model cannot be loaded or given this prompt.
        typer.BadParameter: there is nothing to ask.
    """
    attachments = [
        *(open_attachment(image, "image", image_tokens=image_tokens) for image in images),
        *(open_attachment(sound, "audio") for sound in audio),
    ]
    schema_text = None if schema is None else _schema_text(schema)
    tools = None
    if tools_file is not None:
        from .tools.tools_file import load_tools

        tools = load_tools(tools_file)
    question = "\n\n".join(text for text in (prompt, piped_text(is_the_prompt=prompt is None)) if text)
    if not question and not attachments:
        raise typer.BadParameter("say what to ask, or pipe it in", param_hint="PROMPT")
    conversation = Conversation(system=system)
    conversation.begin(question, attachments)
    descriptions = None if tools is None else tools.descriptions
    request = Request(conversation.messages(), sampling, thinking, descriptions, schema_text, image_tokens)
    model, processor = open_model(model_name, hearing=bool(audio))

    def write(replies: list[Message]) -> Generation:
        asked = replace(request, messages=[*request.messages, *replies])
        if as_json:
            answer = generate(model, processor, asked, lambda chunk: None, should_stop=interrupts)
        else:
            with AnswerScreen(show_thoughts=thinking) as screen:
                answer = generate(
                    model,
                    processor,
                    asked,
                    lambda chunk: show(chunk, screen),
                    should_stop=interrupts,
                    on_prompt=prompt_progress(screen),
                )
        if interrupts.count:
            raise KeyboardInterrupt
        return answer

    with Interrupts() as interrupts:
        answer = answer_in_rounds(write, tools, Permission(run_tools), lambda replies: None)
    if as_json:
        _print_json(answer)
    say_why_it_ended(answer, sampling.max_tokens)


def _print_json(answer: Generation) -> None:
    fields = {
        "text": answer.text,
        "thought": answer.thought,
        "tool_calls": [asdict(call) for call in answer.tool_calls],
        "finish_reason": answer.finish_reason,
        "stats": asdict(answer.stats),
    }
    say(json.dumps(fields, ensure_ascii=False))


def _schema_text(schema: Path) -> str:
    try:
        return read_small_text(schema)
    except UnicodeDecodeError:
        raise InputError(f"{schema} is not UTF-8 text: give the file of a JSON schema") from None


def piped_text(is_the_prompt: bool) -> str:
    """What is piped into stdin, or "" when a person sits there, nothing is, or it is meant for somebody else.

    A file that has been read from already is somebody's list, as in `while read f; do gemma4-mlx ask …; done < list`:
    the shell reads the next line of it after us.

    Args:
        is_the_prompt: there is no other.

    Raises:
        InputError: it is not UTF-8 text, or too long.
    """
    if sys.stdin is None:  # started with stdin closed
        return ""
    file = sys.stdin.fileno()
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        if not is_the_prompt and os.lseek(file, 0, os.SEEK_CUR) > 0:
            return ""
    elif not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return ""
    try:
        return _all_of(file).decode("utf-8").rstrip("\n")
    except UnicodeDecodeError:
        raise InputError("stdin is not UTF-8 text: give pictures with --image and sound with --audio") from None


def _all_of(file: int) -> bytes:
    """Read to the end; who waits for more than a second is told what for."""
    content = bytearray()
    told_at = time.monotonic() + _SECONDS_WITHOUT_A_WORD
    told = False
    while True:
        while not told and not select.select([file], [], [], max(0.0, told_at - time.monotonic()))[0]:
            told = True
            note("waiting for the end of the text that is piped in; with < /dev/null there is none")
        piece = os.read(file, 1 << 16)
        if not piece:
            return bytes(content)
        content += piece
        if len(content) > LARGEST["text"]:
            raise InputError(f"more than {LARGEST['text'] >> 20} MB of text came through stdin: give a part of it")
