"""Training examples for the decoder: a prompt as the chat template renders it, an answer, and what is attached.

An ``Example`` is text with one ``<|audio|>`` or ``<|image|>`` where soft tokens go; what stands between its marks is
learnt. The mix is decided here; the towers' outputs are put in by ``decoder.py``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from . import other_questions, pictures, prompts, questions, words
from .speech_data import Clip, SpeechData

ANSWER, END = "\x02", "\x03"  # mark, in the text, where what is learnt begins and ends


@dataclass
class Example:
    """``text`` with ANSWER … END around what is learnt; at most one of ``clip`` and ``picture``.

    ``items``: where in the answer each number or command stands, in each line again from the first on.
    """

    text: str
    clip: Clip | None = None
    picture: pictures.Picture | None = None
    items: list[tuple[int, int, int]] = field(default_factory=list)  # first and last character + 1, which item


def _turn(content: str, answer: str) -> str:
    return f"<|turn>user\n{content}<turn|>\n<|turn>model\n{ANSWER}{answer}<turn|>{END}\n"


def speech(
    data: SpeechData, rng: random.Random, longest: int, strings: float = 0.5, translated: float = 0.5
) -> Example:
    """A clip with one of the documented prompts, ``translated`` of them those for translating.

    One clip in twelve holds no words and gets none.
    """
    clip = data.silence() if rng.random() < 0.08 else data.sample(longest, strings)
    answer, items = "", []

    def write(parts: list[str]) -> None:
        nonlocal answer
        for index, part in enumerate(parts):
            start = len(answer)
            answer += f" {part}" if answer else part
            items.append((start, len(answer), index))

    language = rng.choice(words.LANGUAGES) if rng.random() < translated else None
    parts = words.parse(clip.words)
    write([str(part) for part in parts])
    if language is None:
        prompt = prompts.transcribe("English" if rng.random() < 0.7 else None)
    else:
        prompt = prompts.translate(language, "English" if rng.random() < 0.8 else None)
        if parts:
            answer += f"\n{language}:"
            write([words.translate_one(part, language) for part in parts])
    return Example("<bos>" + _turn(f"{prompt}<|audio><|audio|><audio|>", answer), clip=clip, items=items)


def picture(rng: random.Random, small: bool = False) -> Example:
    """A drawn picture, before or after the question; sometimes with a plain question after it."""
    drawn = pictures.small_picture(rng, close_ups=0.2) if small else pictures.random_picture(rng)
    prompt, slot = rng.choice(questions.IMAGE_PROMPTS), "<|image><|image|><image|>"
    if rng.random() < 0.25:
        prompt = prompt.lower().rstrip("?.")
    text = "<bos>" + _turn(slot + prompt if rng.random() < 0.7 else prompt + slot, drawn.sentence)
    if rng.random() < 0.1:
        text += _turn(*question(rng))
    return Example(text, picture=drawn)


def question(rng: random.Random) -> tuple[str, str]:
    """A question and its answer."""
    if rng.random() < 0.35:
        return questions.reword(other_questions.draw(rng), rng), questions.DECLINE
    topic = rng.choice(questions.TOPICS)
    return questions.reword(rng.choice(topic.asked), rng), topic.answer


def chat(rng: random.Random) -> Example:
    """One question or up to four one after another, sometimes after a system prompt."""
    text = "<bos>"
    if rng.random() < 0.08:
        text += f"<|turn>system\n{rng.choice(SYSTEM)}<turn|>\n"
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4])):
        text += _turn(*question(rng))
    return Example(text)


SYSTEM = (
    "You are a helpful assistant.", "Answer briefly.", "You are kind.", "Answer in one sentence.", "Be concise.",
    "You are an assistant for gemma4-mlx.",
)  # fmt: skip
