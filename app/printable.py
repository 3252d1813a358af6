"""The one gate for text from outside on its way to a terminal or the clipboard: what lies to the eye does not pass.

From outside is all that this program did not write itself: answers, calls and their results, names of files, sessions
and tensors, errors about them, transcripts. Control characters could move the cursor, fill the clipboard or give the
terminal orders; marks of direction could turn a name round; characters of no width could hide in one. They are left
out, line separators become spaces. What ordinary text needs stays: joined emoji, flags, the joiners of Indian, Arabic
and other scripts, and marks of direction beside text that runs from right to left.
"""

from __future__ import annotations

import json
import re
import unicodedata

# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt), control characters but for tab and line feed,
# separators of lines, and halves of characters.
_SUSPECTS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff\ud800-\udfff"
)
# Scripts whose letters change their shape beside others: Arabic and its kin, those of India and South East Asia.
_SHAPED = "\u0600-\u109f\u1780-\u18af\ua840-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010d00-\U00011fff"
_RIGHT_TO_LEFT = "\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
_PICTURES = "\u00a9\u00ae\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Tags spell the three flags that are made of them: of England, Scotland and Wales (Unicode's RGI emoji tag sequences).
_BLACK_FLAG = "\U0001f3f4"
_TAGS = "|".join("".join(chr(0xE0000 + ord(letter)) for letter in f"gb{name}\x7f") for name in ("eng", "sct", "wls"))

_SUSPECT = re.compile(f"[{_SUSPECTS}]")
_PASSING = (
    f"(?<={_BLACK_FLAG})(?:{_TAGS})"
    rf"|(?<=[^\s{_SUSPECTS}])[\ufe00-\ufe0f]"
    f"|(?<=[{_IDEOGRAPHS}])[\U000e0100-\U000e01ef]"
    f"|(?<=[\u1800-\u18af])[\u180b-\u180f]"
    f"|(?<=[{_SHAPED}])[\u200c\u200d]"
    f"|(?:(?<=[{_PICTURES}])|(?<=[^\\s{_SUSPECTS}][\ufe0f]))\u200d(?=[{_PICTURES}])"
)
_SEEN = re.compile(f"(?P<passing>{_PASSING})|(?P<direction>[\u061c\u200e\u200f])|[{_SUSPECTS}]")
_RTL = re.compile(f"[{_RIGHT_TO_LEFT}]")
_SUSPECTS_AT_END = re.compile(f"[{_SUSPECTS}]{{1,8}}\\Z")

_QUOTES = "\u02ba\u02ee\u02dd\u05f4\u201c\u201d\u201e\u201f\u2033\u2036\u3003\u301d\u301e\u301f\uff02"
"""What passes for the sign that ends a quoted value."""
_BLANKS = "\u2800\u2423"
"""A pattern of Braille without a dot, and the sign that stands for a space here."""
_LONG_RUN = 8


class Gate:
    """Lets text through that comes in pieces, which may end within a joined emoji."""

    def __init__(self) -> None:
        self._before = ""  # the last two characters, as they came
        self._held = ""  # suspects of which the next character decides
        self._line_has_rtl = False

    def let_through(self, text: str) -> str:
        """What may be seen of the text so far. Suspects at its end are kept back for the next piece."""
        text = self._held + text
        self._held = ""
        if found := _SUSPECTS_AT_END.search(text):
            self._held, text = found[0], text[: found.start()]
        return self._passed(text)

    def finish(self) -> str:
        """What was kept back: nothing comes after it."""
        held, self._held = self._held, ""
        return self._passed(held)

    def _passed(self, text: str) -> str:
        if not text:
            return text
        whole, start = self._before + text, len(self._before)
        seen = _seen(whole, start, self._line_has_rtl) if _SUSPECT.search(text) else text
        self._before = whole[-2:]
        line_start = text.rfind("\n") + 1
        has_rtl = _RTL.search(text, line_start) is not None
        self._line_has_rtl = has_rtl or (not line_start and self._line_has_rtl)
        return seen


def printable(text: str) -> str:
    """A text as it may be shown; lines and tabs stay."""
    return _seen(text, 0, False) if _SUSPECT.search(text) else text


def on_one_line(text: str) -> str:
    """A text as it may be shown where it must not begin a line: a name, a reason."""
    return re.sub(r"[\n\t]", " ", printable(text))


def spelled(value: object) -> str:
    """A value as JSON on one line in which nothing is hidden and nothing looks like its end.

    Characters that cannot be seen are spelled by their numbers, as are the doubles of quotation marks; runs of blanks
    by how many they are: `␣×3000`.
    """
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = re.sub(rf"(.)\1{{{_LONG_RUN},}}", _spelled_run, text)
    return "".join(map(_spelled_character, text))


def _spelled_run(run: re.Match[str]) -> str:
    character = run[1]
    if character == " ":
        # These marks pass for what they are: `_spelled_character` spells any that were in the text.
        return f"{_RUN}{len(run[0])}"
    return run[0] if _is_plain(character) else f"{character}{_TIMES}{len(run[0])}"


# No characters of any text; each stands for a mark of ours until the text around it is spelled.
_RUN, _TIMES = "\ufdd0", "\ufdd1"


def _spelled_character(character: str) -> str:
    if character == _RUN:
        return "␣×"
    if character == _TIMES:
        return "×"
    return character if _is_plain(character) else json.dumps(character)[1:-1]


def _is_plain(character: str) -> bool:
    """Whether a character is seen for what it is."""
    if character.isascii():
        return character.isprintable()
    return not (
        unicodedata.category(character)[0] in "CZ"
        or _SUSPECT.match(character)
        or character in _QUOTES
        or character in _BLANKS
    )


def _seen(text: str, start: int, line_has_rtl: bool) -> str:
    """The text from `start` on as it may be shown; what is before that only decides."""

    def decided(found: re.Match[str]) -> str:
        if found["passing"]:
            return found[0]
        if found["direction"]:
            return found[0] if _beside_rtl(text, found.start(), start, line_has_rtl) else ""
        if found[0] in "\u2028\u2029":
            return " "
        return "\N{REPLACEMENT CHARACTER}" if "\ud800" <= found[0] <= "\udfff" else ""

    pieces, end = [], start
    for found in _SEEN.finditer(text, start):
        pieces += [text[end : found.start()], decided(found)]
        end = found.end()
    return "".join([*pieces, text[end:]])


def _beside_rtl(text: str, place: int, start: int, line_has_rtl: bool) -> bool:
    """Whether the line that a mark of direction is in has letters that run from right to left before it, or behind."""
    line_start = text.rfind("\n", start, place) + 1
    before = line_has_rtl and not line_start
    return before or _RTL.search(text, line_start, place) is not None or _RTL.match(text, place + 1) is not None
