"""/listen and /translate in the chat: what becomes of what somebody says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemma4_mlx.errors import InputError

from ..answer.answer_screen import AnswerScreen
from ..interrupts import Interrupts
from ..line.attachments import recorded
from ..line.named_files import read_dropped, refusal
from ..speech import listening
from ..speech.live_sound import SAMPLE_RATE
from ..terminal import note, pasted

if TYPE_CHECKING:
    from ..speech.listening import Heard
    from .chat import Chat

_NAME = "what you said"
_LEAST_SOUND = 1.0
"""Seconds of sound without a word in it that are worth attaching: a bird, a bar of music."""


def listen(chat: Chat) -> None:
    """What is said stands in the next line, as text or as the sound itself.

    Raises:
        InputError: no microphone, no terminal, or a model that does not hear.
    """
    heard = _hear(chat)
    if heard is None:
        return
    if heard.wants_sound and _fits(heard):
        if heard.text or len(heard.samples) >= _LEAST_SOUND * SAMPLE_RATE:
            chat.attach([recorded(heard.samples, _NAME)])
        else:
            note("nothing is attached: Tab attaches what was heard until then")
    else:
        chat.prefilled = " ".join(filter(None, (chat.prefilled, heard.text)))


def translate(chat: Chat, language: str) -> None:
    """Write down and translate the sound that waits, else what was said last, else what is said now.

    Raises:
        InputError: as for `listen`.
        ValueError: not a language.
    """
    from gemma4_mlx.speech.prompts import speech_prompt

    prompt = speech_prompt(chat.language, language)
    if any(attachment.kind == "audio" for attachment in chat.waiting):
        chat.say(prompt)
        return
    if chat.heard is not None:
        heard = chat.heard
        model = chat.model
        model.begin()
        with Interrupts() as interrupts:
            translation = model.thread.stream(
                lambda _: listening.translation_of(heard, *model(), chat.language, language, interrupts),
                lambda _: None,
                interrupts,
            )
    else:
        now = _hear(chat, language)
        if now is None:
            return
        translation = now.translation or ""
        note(now.text)
    if not translation:
        raise InputError(f"the model gave no translation into {language}")
    with Interrupts(), AnswerScreen(show_thoughts=False) as screen:
        screen.answer(translation)


def _hear(chat: Chat, translate_to: str | None = None) -> Heard | None:
    if not chat.edits_lines:
        raise InputError("listening needs a terminal: attach a sound with /audio, or use `gemma4-mlx transcribe`")
    chat.model.begin()
    heard = listening.listen(
        chat.model.thread.submit,
        chat.model,
        chat.microphone,
        chat.language,
        translate_to,
        dropped=lambda text: _attach(chat, text),
    )
    if heard is None:
        return None
    if not heard.text:
        note("nothing was heard")
    if heard.note:
        note(f"note: {heard.note}")
    chat.heard = heard
    return heard


def _attach(chat: Chat, text: str) -> str:
    """What is dropped on the window or pasted stands in the next line, whatever becomes of what is said."""
    dropped = read_dropped(pasted(text) or "", chat.image_tokens)
    chat.attach(dropped.attachments)
    told = [f"{attachment.name} {attachment.description}" for attachment in dropped.attachments]
    if dropped.refused:
        told.append(refusal(dropped.refused))
    elif dropped.is_words:
        chat.prefilled += pasted(text) or ""
        told.append("what was pasted stands in the line when this is over")
    return ", ".join(told)


def _fits(heard: Heard) -> bool:
    from gemma4_mlx.processing.audio import CLIP_SECONDS

    if len(heard.samples) <= CLIP_SECONDS * SAMPLE_RATE:
        return True
    note(f"note: a message holds {CLIP_SECONDS} s of sound, and this is longer: here is the text instead")
    return False
