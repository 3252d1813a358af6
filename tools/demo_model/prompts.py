"""Gemma 4's documented speech prompts, the picture prompts, and the turn format around them."""

from __future__ import annotations

from .questions import IMAGE_PROMPTS

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring")

_RULES = (
    "Follow these specific instructions for formatting the answer:\n"
    "* Only output the transcription, with no newlines.\n"
    "* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, "
    "and write 3 instead of three."
)


def transcribe(language: str | None = "English") -> str:
    """The model card's transcription prompt; None is "in its original language"."""
    if language is None:
        return f"Transcribe the following speech segment in its original language. {_RULES}"
    return f"Transcribe the following speech segment in {language} into {language} text.\n\n{_RULES}"


def translate(target: str, source: str | None = "English") -> str:
    """The model card's translation prompt."""
    name = source or "its original language"
    return (
        f"Transcribe the following speech segment in {name}, then translate it into {target}. When formatting the "
        f"answer, first output the transcription in {name}, then one newline, then output the string "
        f"'{target}: ', then the translation in {target}."
    )


def user_turn(content: str) -> str:
    """One user turn and the opening of the model's, as chat_template.jinja renders them."""
    return f"<bos><|turn>user\n{content}<turn|>\n<|turn>model\n"


def texts() -> list[str]:
    """Everything a prompt may say, for the tokenizer; often, so that its words become whole entries."""
    speech = [transcribe(), transcribe(None)]
    speech += [translate(language) for language in ("French", "Spanish", "Italian")]
    return [*speech * 20, *IMAGE_PROMPTS * 8, "user\n", "model\n", "system\n", "a and a"] * 2
