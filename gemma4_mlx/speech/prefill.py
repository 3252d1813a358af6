"""A clip is read into the model while it is being spoken: first the prompt, then the sound as it comes.

When the speaker stops, all but the last few tokens have been read. What is said is decided in `decoding`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from ..device_errors import failures
from ..errors import InputError
from ..log_mel import SAMPLE_RATE, FloatArray
from ..model.cache import Caches, Snapshot
from ..model.gpu import Gpu, this_gpu
from ..model.inputs import audio_positions
from .prompts import speech_prompt

if TYPE_CHECKING:
    from ..model import Gemma4
    from ..model.audio_stream import AudioStream
    from ..processing import Processor

# Every call of the decoder costs the same few milliseconds, so sound is read several tokens at a time.
_TOKEN = SAMPLE_RATE // 25
_FIVE, _EIGHT = 5 * _TOKEN, 8 * _TOKEN
# A clip that is cut is read again from the last mark before the cut. A mark costs a copy of the sliding layers' rings.
_MARK_EVERY = 2 * SAMPLE_RATE
_MARKS = 6  # reach back over the later part of the longest clip


def batch_samples(gpu: Gpu | None) -> int:
    """How much sound is read at once.

    Before the M3 MLX's product of a few rows with a packed matrix reads the matrix once for each row, up to a limit of
    6 rows for the widest (metal/quantized.cpp, `get_qmv_batch_limit`); beyond it, once. There eight tokens cost less
    than five. Where the generation is not known five are taken: they are heard earlier.
    """
    return _EIGHT if gpu is not None and gpu.generation is not None and gpu.generation < 15 else _FIVE


class SpeechPrompt:
    """What stands before and after a clip, the part before it read once for all clips.

    Attributes:
        model: the model.
        after: ids between the clip and the answer.

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
        words: Iterable[str] | None = None,
    ) -> None:
        if model.config.audio is None:
            raise InputError("this checkpoint does not hear: load e2b, e4b or 12b to transcribe speech")
        # Text before sound: the other way round the model answers what it hears instead of writing it down.
        content = [
            {"type": "text", "text": speech_prompt(language, translate_to, words)},
            {"type": "audio", "audio": np.zeros(_FIVE, np.float32)},
        ]
        ids = np.array(processor([{"role": "user", "content": content}], thinking=False).input_ids)[0]
        clip = audio_positions(ids, model.config)
        self.model = model
        self.after: list[int] = ids[clip[-1] + 1 :].tolist()
        self._before = ids[None, : clip[0]]
        self._read()

    def new_cache(self) -> Caches:
        """A cache that holds all that stands before a clip."""
        with self.model.turns:
            if self._failures != failures():
                self._read()
            return self._cache.copy()

    def _read(self) -> None:
        self._cache = self.model.make_cache()
        with self.model.turns:
            self.model(mx.array(self._before), cache=self._cache, last_only=True)
            self._cache.evaluate()
        self._failures = failures()  # last: after an error it is read once more


@dataclass(frozen=True)
class _Mark:
    """The state after `read` samples."""

    read: int
    stream: AudioStream
    snapshot: Snapshot


class ClipInProgress:
    """One clip, read as it comes. The work per second of sound is constant, and so is the work left at its end."""

    def __init__(self, prompt: SpeechPrompt) -> None:
        self._model = prompt.model
        self._stream = prompt.model.audio_stream()
        self._cache = prompt.new_cache()
        self._samples: list[FloatArray] = []
        self._waiting: list[FloatArray] = []
        self._known = self._read = 0
        self._batch = batch_samples(this_gpu())
        with self._model.turns:
            self._marks = [_Mark(0, self._stream.copy(), self._cache.snapshot())]

    @property
    def seconds(self) -> float:
        """How many seconds of sound have been fed."""
        return self._known / SAMPLE_RATE

    def feed(self, samples: FloatArray) -> None:
        """Take float32 `[n]` more samples."""
        self._samples.append(samples)
        self._waiting.append(samples)
        self._known += len(samples)
        if self._known - self._read >= self._batch:
            self._read_waiting()

    def so_far(self) -> Caches:
        """A cache that has read the clip up to here, for the caller to write to."""
        self._read_waiting()
        with self._model.turns:
            return self._cache.copy()

    def end(self, length: int) -> Caches:
        """A cache that has read the whole clip, which is the first `length` samples of what was fed."""
        if length < self._read:
            mark = next(mark for mark in reversed(self._marks) if mark.read <= length)
            self._stream = mark.stream.copy()
            with self._model.turns:
                self._cache.back_to(mark.snapshot)
            self._read = mark.read
        self._waiting = [np.concatenate([*self._samples, np.zeros(0, np.float32)])[self._read : length]]
        self._read_waiting()
        self._append(self._stream.finish())
        return self._cache

    def _read_waiting(self) -> None:
        waiting = np.concatenate([*self._waiting, np.zeros(0, np.float32)])
        self._waiting = []
        self._append(self._stream.feed(waiting))
        self._read += len(waiting)
        if self._read - self._marks[-1].read >= _MARK_EVERY:
            # The first mark stays: from it any cut can be reached.
            with self._model.turns:
                self._marks.append(_Mark(self._read, self._stream.copy(), self._cache.snapshot()))
            del self._marks[1:-_MARKS]

    def _append(self, soft_tokens: mx.array) -> None:
        if len(soft_tokens):
            with self._model.turns:
                self._model.append_soft_tokens(soft_tokens, self._cache)
                self._cache.evaluate()
