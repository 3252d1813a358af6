"""One clip → its words: one prompt for all clips, one way of answering, and one way of noticing a bad answer.

Files and live sound share it; where clips begin and end is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..generation.answers import end_of_turn_ids
from .decoding import NO_DRAFT, Decoded, Decoder, Draft
from .prefill import ClipInProgress, SpeechPrompt
from .prompts import is_suspect, read_answer

if TYPE_CHECKING:
    from ..model import Gemma4
    from ..model.cache import Caches
    from ..processing import Processor

# People say 3 to 6 tokens a second; far more means the model makes them up. The rest is for very short clips.
_TOKENS_PER_SECOND = 25
_TOKENS_TO_SPARE = 32
# A bad greedy answer stays bad when it is asked for again; a little chance leads round most loops.
_RETRY_TEMPERATURE = 0.3


@dataclass(frozen=True)
class Answer:
    """What was said in a clip.

    Attributes:
        text: on one line; empty if the model heard nothing.
        translation: on one line; None if none was asked for, empty if the model gave none.
        doubtful: it looks like something else than what was said, and did so when asked for a second time.
    """

    text: str
    translation: str | None
    doubtful: bool


class ClipTranscriber:
    """A model that has been told to write down the clips that follow.

    Args:
        model, processor: from `load`, of a size that hears (e2b, e4b, 12b).
        language: what is spoken, by English name or ISO 639-1 code; None leaves it to the model.
        translate_to: translate every clip into this language as well.
        should_stop: asked before every token; once it says yes, no clip is answered any more.
        words: names and terms that may be said; see `prompts.own_words`.

    Raises:
        InputError: a model that takes no sound.
        ValueError: a language that is not one, or words that cannot be used.
    """

    def __init__(
        self,
        model: Gemma4,
        processor: Processor,
        language: str | None,
        translate_to: str | None,
        should_stop: Callable[[], bool] = lambda: False,
        words: Iterable[str] | None = None,
    ) -> None:
        self._prompt = SpeechPrompt(model, processor, language, translate_to, words)
        self._decoder = Decoder(model, self._prompt.after, end_of_turn_ids(processor))
        self._tokenizer = processor.tokenizer
        self._translate_to = translate_to
        self._should_stop = should_stop

    def new_clip(self) -> ClipInProgress:
        """A clip of which nothing has been read yet."""
        return ClipInProgress(self._prompt)

    def answer_so_far(self, cache: Caches, seconds: float, draft: Draft, gives_way: Callable[[], bool]) -> Decoded:
        """The answer to the first `seconds` of a clip that is still being spoken; see `Decoder.decode`.

        Args:
            gives_way: whether to stop although `should_stop` says no.
        """
        return self._decoder.decode(
            cache, self._budget(seconds), draft, should_stop=lambda: self._should_stop() or gives_way()
        )

    def answer(self, cache: Caches, seconds: float, draft: Draft = NO_DRAFT) -> Answer | None:
        """The answer to a whole clip of `seconds`, read into `cache`; None if it was stopped.

        A suspicious one is asked for once more.
        """
        decoded = self._decoder.decode(cache, self._budget(seconds), draft, should_stop=self._should_stop)
        return self._checked(cache, seconds, decoded)

    def answer_all(self, clips: Sequence[tuple[Caches, float]]) -> Iterator[Answer]:
        """The answers to several clips, each given as to `answer`, in order; once stopped, no more come.

        All of them are decoded together before the first one comes; those that have to be asked for once more are so
        one by one.
        """
        if len(clips) == 1:
            if (only := self.answer(*clips[0])) is not None:
                yield only
            return
        decoded = self._decoder.decode_together(
            [cache for cache, _ in clips], [self._budget(seconds) for _, seconds in clips], self._should_stop
        )
        for (cache, seconds), first in zip(clips, decoded, strict=True):
            if (answer := self._checked(cache, seconds, first)) is None:
                return
            yield answer

    def read(self, tokens: Sequence[int]) -> tuple[str, str | None]:
        """Transcription and translation in an answer's tokens."""
        return read_answer(self._tokenizer.decode(list(tokens)), self._translate_to)

    def text_of(self, token: int) -> str:
        """One token's text."""
        return self._tokenizer.decode([token])

    def _checked(self, cache: Caches, seconds: float, decoded: Decoded) -> Answer | None:
        if decoded.ended == "stopped":
            return None
        doubtful = self._is_suspect(decoded)
        if doubtful:
            again = self._decoder.decode(
                cache, self._budget(seconds), temperature=_RETRY_TEMPERATURE, should_stop=self._should_stop
            )
            if again.ended == "stopped":
                return None
            if not self._is_suspect(again):
                decoded, doubtful = again, False
        text, translation = self.read(decoded.tokens)
        return Answer(text, translation, doubtful)

    def _budget(self, seconds: float) -> int:
        answers = 1 if self._translate_to is None else 2
        return answers * (math.ceil(seconds * _TOKENS_PER_SECOND) + _TOKENS_TO_SPARE)

    def _is_suspect(self, decoded: Decoded) -> bool:
        return decoded.ended != "stop" or is_suspect(self._tokenizer.decode(decoded.tokens), self._translate_to)
