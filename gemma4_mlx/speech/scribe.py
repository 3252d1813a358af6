"""Writes down clips: one prompt for all of them, one way of answering, and one way of noticing a bad answer.

Files and live sound share it; where clips begin and end is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemma4_mlx.generation.answers import end_of_turn_ids
from gemma4_mlx.speech.hearing import ClipInProgress, SpeechPrompt
from gemma4_mlx.speech.prompts import is_suspect, read_answer
from gemma4_mlx.speech.writing import Written, write, write_together

if TYPE_CHECKING:
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.model.cache import Caches
    from gemma4_mlx.processing import Processor

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


class Scribe:
    """A model that has been told what to do with the clips it is going to hear.

    Args:
        model, processor: from `load`, of a size that hears (e2b, e4b).
        language: what is spoken, by English name or ISO 639-1 code; None leaves it to the model.
        translate_to: translate every clip into this language as well.
        should_stop: asked before every token; once it says yes, no clip is answered any more.

    Raises:
        InputError: a model without ears.
        ValueError: a language that is not one.
    """

    def __init__(
        self,
        model: Gemma4,
        processor: Processor,
        language: str | None,
        translate_to: str | None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._prompt = SpeechPrompt(model, processor, language, translate_to)
        self._model = model
        self._tokenizer = processor.tokenizer
        self._stop_ids = end_of_turn_ids(processor)
        self._translate_to = translate_to
        self._should_stop = should_stop

    def new_clip(self) -> ClipInProgress:
        """A clip of which nothing has been heard yet."""
        return ClipInProgress(self._prompt)

    def guess(
        self,
        cache: Caches,
        seconds: float,
        guess: Sequence[int],
        sure: int,
        gives_way: Callable[[], bool],
    ) -> Written:
        """An answer to `seconds` of a clip that is still being spoken; see `write`.

        Args:
            gives_way: whether to stop although `should_stop` says no.
        """
        return self._write(cache, seconds, guess, sure=sure, gives_way=gives_way)

    def answer(self, cache: Caches, seconds: float, guess: Sequence[int] = ()) -> Answer | None:
        """The answer to a whole clip of `seconds`, read into `cache`; None if it was stopped.

        A suspicious one is asked for once more.
        """
        return self._checked(cache, seconds, self._write(cache, seconds, guess))

    def answer_all(self, clips: Sequence[tuple[Caches, float]]) -> Iterator[Answer]:
        """The answers to several clips, each given as to `answer`, in order; once stopped, no more come.

        All of them are written down in one decode before the first one comes; those that have to be asked for once
        more are so one by one.
        """
        if len(clips) == 1:
            if (answer := self.answer(*clips[0])) is not None:
                yield answer
            return
        caches = [cache for cache, _ in clips]
        budgets = [self._budget(seconds) for _, seconds in clips]
        answers = write_together(self._model, caches, self._prompt.after, self._stop_ids, budgets, self._should_stop)
        for (cache, seconds), written in zip(clips, answers, strict=True):
            if (answer := self._checked(cache, seconds, written)) is None:
                return
            yield answer

    def _checked(self, cache: Caches, seconds: float, written: Written) -> Answer | None:
        if written.ended == "stopped":
            return None
        doubtful = self._is_suspect(written)
        if doubtful:
            again = self._write(cache, seconds, temperature=_RETRY_TEMPERATURE)
            if again.ended == "stopped":
                return None
            if not self._is_suspect(again):
                written, doubtful = again, False
        text, translation = self.read(written.tokens)
        return Answer(text, translation, doubtful)

    def read(self, tokens: list[int]) -> tuple[str, str | None]:
        """Transcription and translation in an answer's tokens."""
        return read_answer(self._tokenizer.decode(tokens), self._translate_to)

    def text_of(self, token: int) -> str:
        """One token's text."""
        return self._tokenizer.decode([token])

    def _write(
        self,
        cache: Caches,
        seconds: float,
        guess: Sequence[int] = (),
        sure: int = 0,
        temperature: float = 0.0,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> Written:
        return write(
            self._model,
            cache,
            self._prompt.after,
            self._stop_ids,
            max_tokens=self._budget(seconds),
            guess=guess,
            sure=sure,
            temperature=temperature,
            should_stop=lambda: self._should_stop() or gives_way(),
        )

    def _budget(self, seconds: float) -> int:
        answers = 1 if self._translate_to is None else 2
        return answers * (math.ceil(seconds * _TOKENS_PER_SECOND) + _TOKENS_TO_SPARE)

    def _is_suspect(self, written: Written) -> bool:
        return written.ended != "stop" or is_suspect(self._tokenizer.decode(written.tokens), self._translate_to)
