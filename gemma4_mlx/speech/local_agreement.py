"""Which words of a sentence still being spoken are certain: those that two answers in a row agree on.

LocalAgreement-2 (Macháček, Dabre and Bojar, "Turning Whisper into Real-Time Transcription System", 2023), on token ids
and never in the middle of a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .decoding import Draft


class LocalAgreement:
    """The last answer, and how much of it is certain.

    What has become certain is not asked about again until the sentence ends: answers begin with it.

    Args:
        text_of: a token's text, with the space it may begin with.

    Attributes:
        tokens: the last answer.
        certain: how many of them are certain.
    """

    def __init__(self, text_of: Callable[[int], str]) -> None:
        self._text_of = text_of
        self.tokens: list[int] = []
        self.certain = 0

    def add(self, tokens: Sequence[int]) -> None:
        """Take the next answer."""
        shared = 0
        for before, now in zip(self.tokens, tokens, strict=False):
            if before != now:
                break
            shared += 1
        while shared > self.certain and self._splits_a_word(tokens, shared):
            shared -= 1
        self.tokens = list(tokens)
        self.certain = max(self.certain, shared)

    def replace_draft(self, tokens: Sequence[int]) -> None:
        """Remember an answer that was not finished: it makes nothing certain."""
        self.tokens = list(tokens)

    @property
    def draft(self) -> Draft:
        """What the next answer is begun from."""
        return Draft(self.tokens, self.certain)

    def _splits_a_word(self, tokens: Sequence[int], at: int) -> bool:
        if at >= len(tokens):
            return False
        before, after = self._text_of(tokens[at - 1])[-1:], self._text_of(tokens[at])[:1]
        return _joins(before) and _joins(after)


def _joins(character: str) -> bool:
    # Scripts without spaces between words have no capitals either; there every token may stand for itself.
    return character.isdigit() or character.lower() != character.upper()
