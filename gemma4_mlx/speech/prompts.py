"""What the model is asked when it is to write down speech, and how its answer is read.

The wording is that of Gemma 4's model cards, which is what the published error rates were measured with, and for speech
whose language nobody named that of Google's guide to audio with Gemma; only the translation from an unnamed language is
put together from theirs.

A caller's own words (names, terms) are listed behind that wording, with what they are for. Google documents no wording
for them. Whisper is given such a list as the text before its answer (`initial_prompt`); faster-whisper calls them
`hotwords`, and its users saw them also where nobody had said them (SYSTRAN/faster-whisper#731). So the sentence here
says that they may be said, not that they are.

Measured with the built-in model, on its eight recordings (36 words, and it knows no names): 0 words were wrong without
own words and with up to 8 of them, 3 with 10, 14 with 15, 38 with 20. Google's checkpoints were not measured. So few
words are better than many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TRANSCRIBE = (
    "Transcribe the following speech segment in {language}.{separator}"
    "Follow these specific instructions for formatting the answer:\n"
    "* Only output the transcription, with no newlines.\n"
    "* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, "
    "and write 3 instead of three."
)
_TRANSLATE = (
    "Transcribe the following speech segment in {source}, then translate it into {target}. "
    "When formatting the answer, first output the transcription in {source}, then one newline, "
    "then output the string '{target}: ', then the translation in {target}."
)
_UNKNOWN = "its original language"
_OWN_WORDS = "These names and terms may be said; where they are, spell them as here: {words}."

#: ISO 639-1 code → the name the prompts use. Any other text is taken as a language's name as it stands.
LANGUAGE_NAMES: dict[str, str] = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "gu": "Gujarati",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "kn": "Kannada",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "ml": "Malayalam",
    "mr": "Marathi",
    "ms": "Malay",
    "nl": "Dutch",
    "no": "Norwegian",
    "pa": "Punjabi",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sr": "Serbian",
    "sv": "Swedish",
    "sw": "Swahili",
    "ta": "Tamil",
    "te": "Telugu",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "zh": "Chinese",
}

_MARKERS = re.compile(r"<\|channel>\w*\n?|<\|[a-z_]+\|?>|<[a-z_]+\|>|<(?:pad|bos|eos|unk)>")
# Bold, code, headings and list items at the start of a line: nobody speaks them.
_MARKDOWN = re.compile(r"\*\*|```|^\s*(?:#{1,6}|[*-])\s", re.MULTILINE)
_LONGEST_NAME = 60

MOST_WORDS = 100
"""Own words in one prompt. Few are better than many, see above."""
LONGEST_WORD = 60
"""Characters of an own word; a name or a term, not a sentence."""


def language_name(language: str) -> str:
    """The name a prompt uses for a language: "fr" and "French" both give "French".

    Raises:
        ValueError: empty, longer than a language's name can be, or with a line break or a quote in it, which
            would change what the prompt says.
    """
    name = language.strip()
    if not name or len(name) > _LONGEST_NAME or not name.isprintable() or "'" in name:
        raise ValueError(f"not the name of a language: {language[:_LONGEST_NAME]!r}; write it as English or en")
    return LANGUAGE_NAMES.get(name.lower(), name[0].upper() + name[1:])


def own_words(words: Iterable[str]) -> list[str]:
    """A caller's names and terms as the prompt lists them: each on one line, and once.

    Nothing else in a word is changed, and nothing in it is a command: `<|turn>` in a word is seven characters of text.

    Raises:
        ValueError: a single string, an empty word, one of more than `LONGEST_WORD` characters or that is not valid
            Unicode, or more than `MOST_WORDS`.
    """
    if isinstance(words, str | bytes):
        raise ValueError(f"words is a list of words, not one string: write words=[{words[:LONGEST_WORD]!r}]")
    found: dict[str, None] = {}
    for word in words:
        if not isinstance(word, str):
            raise ValueError(f"words is a list of strings; {type(word).__name__} is not one")
        one = _one_line(word)
        if not one:
            raise ValueError("a word must not be empty: leave it out of words")
        if len(one) > LONGEST_WORD:
            raise ValueError(
                f"a word has at most {LONGEST_WORD} characters, and {one[:20]!r}… has {len(one)}: "
                "give names and terms, not sentences"
            )
        if any("\ud800" <= character <= "\udfff" for character in one):
            raise ValueError(f"the word {one!r} is not valid Unicode: read it as UTF-8")
        found[one] = None
        if len(found) > MOST_WORDS:
            raise ValueError(f"at most {MOST_WORDS} words can be given: keep those that are misspelt most often")
    return list(found)


def speech_prompt(
    language: str | None = None, translate_to: str | None = None, words: Iterable[str] | None = None
) -> str:
    """The text that goes before a clip.

    Args:
        language: what is spoken, by name or ISO 639-1 code; None if not known.
        translate_to: the language to translate into as well; None for the transcription alone.
        words: names and terms that may be said; None or none of them leaves the documented wording as it is.

    Raises:
        ValueError: see `language_name` and `own_words`.
    """
    listed = [] if words is None else own_words(words)
    told = _OWN_WORDS.format(words=", ".join(listed)) if listed else ""
    spoken = _UNKNOWN if language is None else language_name(language)
    if translate_to is not None:
        translate = _TRANSLATE.format(source=spoken, target=language_name(translate_to))
        return f"{translate} {told}" if told else translate
    if language is None:
        transcribe = _TRANSCRIBE.format(language=spoken, separator=" ")
    else:
        transcribe = _TRANSCRIBE.format(language=f"{spoken} into {spoken} text", separator="\n\n")
    return f"{transcribe}\n* {told}" if told else transcribe


def read_answer(answer: str, translate_to: str | None = None) -> tuple[str, str | None]:
    """The transcription and, if one was asked for, the translation in a model's answer, each on one line.

    The translation is what follows the line start "{target}: " that the prompt asks for; where the model left that
    out, all of it is transcription and the translation is empty. Control markers that strayed into the answer go.
    """
    answer = _MARKERS.sub("", answer)
    if translate_to is None:
        return _one_line(answer), None
    marker = re.compile(rf"^[ \t]*{re.escape(language_name(translate_to))}[ \t]*:", re.IGNORECASE | re.MULTILINE)
    starts = list(marker.finditer(answer))
    if not starts:
        return _one_line(answer), ""
    # A transcription may itself begin with the language's name ("French: a course for beginners").
    found = next((start for start in starts if answer[: start.start()].strip()), starts[0])
    return _one_line(answer[: found.start()]), _one_line(answer[found.end() :])


def is_suspect(answer: str, translate_to: str | None = None) -> bool:
    """Whether an answer is in another form than the prompt asks for: the model does something else than write down.

    Control markers, Markdown's, or more lines than asked for are what an answer *to* the speech looks like.
    """
    lines = [line for line in answer.splitlines() if line.strip()]
    return bool(_MARKERS.search(answer) or _MARKDOWN.search(answer) or len(lines) > (1 if translate_to is None else 2))


def _one_line(text: str) -> str:
    return " ".join(text.split())
