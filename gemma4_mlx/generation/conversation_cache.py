"""A cache for a conversation that grows, and is edited: of every new prompt only what is new is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy

import mlx.core as mx
import numpy as np

from ..config import Config
from ..model import Gemma4, ModelInputs
from ..model.cache import KVCache, SlidingCache
from ..model.inputs import rest_of_inputs, soft_token_runs
from .marks import Ring, Span, cut, furthest_in_reach, gather, with_span
from .reading import Reading

_MARK_BYTES = 2**30
# While an answer is written, so many of the tokens that left the window last are kept, and up to twice as many: where
# the next prompt parts from it is usually its end.
_KEPT_OF_AN_ANSWER = 64


class ConversationCache:
    """Keys and values of a conversation, given to `generate`, `stream_generate` or `generate_tokens` turn after turn.

    Every prompt is the whole conversation, however it was edited since the last one. It is compared with what the cache
    holds, the cache goes back to where they part, and only the rest is read; towers run only over pictures and sound in
    that rest. Soft tokens are the same when their features are, so another picture of the same size is another one; the
    messages carry every picture, sound and video again, and in a `processing.CachedSource` each is decoded only once.

    What is kept is never computed again: after going back, every layer holds bit for bit what it held when it stood
    there before. Compared with reading the whole prompt into a fresh cache, the tokens before that point were read in
    other pieces (a written answer one by one), and other kernels sum in another order: the logits agree up to rounding.

    Sliding layers lose what leaves their window, so at the ends of prompts the last `window` tokens or so are kept as
    marks to go back to. Where there is none near enough the cache goes back further and reads more, in the worst case
    all. A mark takes about as much memory as the sliding layers themselves: 6 MB for E2B, 20 MB for E4B, 210 MB for
    26B-A4B, 840 MB for 31B in bf16. There is always one to regenerate or edit the last turn from.

    An answer that is closed, interrupted or fails leaves the cache true: what it holds is what was read and written.
    A later prompt ends an answer still being written: asking that for more raises RuntimeError.

    Args:
        model: whose cache it is.
        kv_bits: 8 or 4 pack keys and values of full-attention layers, see `Gemma4.make_cache`.
        mark_bytes: the oldest marks are given up when all together take more than this, but for the newest two.

    Attributes:
        model: the same.

    Raises:
        ValueError: other bits; a negative `mark_bytes`.
    """

    def __init__(self, model: Gemma4, *, kv_bits: int | None = None, mark_bytes: int = _MARK_BYTES) -> None:
        if mark_bytes < 0:
            raise ValueError(f"mark_bytes must be 0 or more, not {mark_bytes}")
        self.model = model
        self._kv_bits = kv_bits
        self._mark_bytes = mark_bytes
        self.clear()

    @property
    def tokens(self) -> int:
        """How many tokens it holds."""
        return self._turn.offset

    @property
    def reused(self) -> int:
        """How many tokens of the latest prompt it held already."""
        return self._turn.reused

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and marks."""
        return sum(layer_cache.nbytes for layer_cache in self._turn.cache) + sum(
            span.nbytes for span in [*self._turn.marks, *self._turn.recent]
        )

    def clear(self) -> None:
        """Forget everything, and give its memory back."""
        self._turn = Turn(self.model.make_cache(self._kv_bits), [], [], self._mark_bytes)

    def begin(self, inputs: ModelInputs) -> tuple[ModelInputs, Turn]:
        """Go back to where `inputs`, a whole prompt, part from what is held, and at least by its last token.

        Returns:
            The rest of the prompt, at least one token, and the turn that is to read it.
        """
        config, old = self.model.config, self._turn
        keys = _keys(inputs, config)
        held = old.offset
        sources: list[Ring | Span] = [*old.marks, *old.recent]
        if old.sliding:
            sources.append(Ring.at(held, old.sliding))
        limit = min(_common_length(old.known[:held], keys), len(keys) - 1)
        start = furthest_in_reach(sources, limit, old.sliding[0].window) if old.sliding else limit
        # A picture's tokens may see each other in both directions, and a tower takes it whole: so does the rest.
        runs = soft_token_runs(np.array(inputs.input_ids)[0], config)
        while run := next((run for run in runs if run[0] < start < run[1]), None):
            start = furthest_in_reach(sources, run[0], old.sliding[0].window) if old.sliding else run[0]
        cache = self._cache_at(start, sources, held)
        turn = Turn(cache, keys.tolist(), cut(old.marks, start), self._mark_bytes, start)
        old.superseded = True
        self._turn = turn
        return rest_of_inputs(inputs, config, start), turn

    def _cache_at(self, start: int, sources: Sequence[Ring | Span], held: int) -> list[KVCache]:
        """The layers' caches put back to position `start`. Nothing that the old ones need is touched."""
        if start == 0:
            return self.model.make_cache(self._kv_bits)
        old = self._turn
        cache = [copy(layer_cache) for layer_cache in old.cache]
        for layer_cache in cache:
            layer_cache.offset = start
        if start < held and old.sliding:
            window = old.sliding[0].window
            restored = iter(gather(sources, max(0, start - window + 1), start))
            for i, layer_cache in enumerate(cache):
                if isinstance(layer_cache, SlidingCache):
                    cache[i] = SlidingCache.of_tokens(window, start, next(restored))
            mx.eval([layer_cache.state for layer_cache in cache])
        return cache


class Turn(Reading):
    """One prompt and its answer, in a conversation's cache.

    Attributes:
        cache: what is written to.
        sliding: the sliding layers' part of it.
        known: keys of the tokens the cache holds, in order, and perhaps of some that it does not hold (yet).
        marks: what the sliding layers no longer hold of earlier turns and of this prompt.
        recent: the same of this answer: the tokens that left the window last.
        reused: tokens of the prompt that were held before it.
        superseded: whether a later turn has taken the cache over.
    """

    def __init__(
        self, cache: Sequence[KVCache], known: list[int], marks: list[Span], mark_bytes: int, reused: int = 0
    ) -> None:
        super().__init__(cache)
        self.sliding = [layer_cache for layer_cache in cache if isinstance(layer_cache, SlidingCache)]
        self.known = known
        self.marks = marks
        self.recent: list[Span] = []
        self.reused = reused
        self.superseded = False
        self._mark_bytes = mark_bytes
        self._before: Ring | None = None  # the rings as they were before the piece in work
        self._kept_until = 0  # the first token written that is not kept and will leave the window

    @property
    def offset(self) -> int:
        """How many tokens it holds, whatever happened on the way."""
        return min(len(self.known), *(layer_cache.offset for layer_cache in self.cache))

    def held(self) -> int:
        if self.superseded:
            raise RuntimeError("the conversation went on with another prompt: this answer cannot be continued")
        return super().held()

    def piece_length(self, prompt_length: int, longest: int) -> int:
        if self.sliding:
            # The rings before and after a piece are to hold, together, every token of it.
            longest = min(longest, self.sliding[0].window - 1)
        # Of equal length: the last one is where the next prompt most likely begins to differ.
        return -(-prompt_length // -(-prompt_length // longest))

    def before_piece(self) -> None:
        if not self.sliding:
            return
        if self._before is not None and self._before.end == self.reused > 0:
            self._mark([self._before], self._before.start)
        end = self.cache[0].offset
        self._before = Ring.at(end, [layer_cache.copy() for layer_cache in self.sliding])

    def prompt_read(self) -> None:
        if self._before is None:
            return
        end = self._kept_until = self.cache[0].offset
        after = Ring.at(end, self.sliding)
        # A picture that is longer than the window leaves a gap.
        joined = self._before.end > after.start
        self._mark([self._before, after] if joined else [after], self._before.start if joined else after.start)
        self._before = None

    def token_added(self, token: int) -> None:
        self.known.append(token)
        if not self.sliding:
            return
        ring, window = Ring.at(self.cache[0].offset, self.sliding), self.sliding[0].window
        if ring.start >= self._kept_until - 1 and ring.end >= window - 1:
            kept = min(_KEPT_OF_AN_ANSWER, window // 2)
            span = Span.of([ring], self._kept_until, self._kept_until + kept)
            self.recent = [*self.recent[-1:], span]
            self._kept_until = span.end

    def _mark(self, sources: Sequence[Ring], start: int) -> None:
        self.marks = with_span(self.marks, Span.of(sources, start, sources[-1].end), self._mark_bytes)


def _keys(inputs: ModelInputs, config: Config) -> np.ndarray:
    """int64 `[L]`: a number for each token; equal numbers at equal places mean the same beginning of a prompt.

    Of words it is the id; of soft tokens it is negative and stands for what they were made from.
    """
    ids = np.array(inputs.input_ids)[0]
    keys = ids.astype(np.int64)
    if not inputs.images and not inputs.log_mels:
        return keys  # placeholders, if any, are read as the pad id
    images = iter([_feature_key(image.patches, image.rows, image.columns) for image in inputs.images])
    clips = iter([_feature_key(log_mel, *log_mel.shape) for log_mel in inputs.log_mels])
    for start, end in soft_token_runs(ids, config):
        key = next(clips if ids[start] == config.audio_token_id else images, None)
        if key is None:
            raise ValueError(f"the placeholders at {start} have no picture or sound to fill them")
        keys[start:end] = key
    return keys


def _feature_key(feature: mx.array, *shape: int) -> int:
    digest = hashlib.sha256(repr(shape).encode())
    digest.update(np.array(feature).data)
    return -1 - (int.from_bytes(digest.digest()[:8]) >> 1)


def _common_length(known: list[int], keys: np.ndarray) -> int:
    length = min(len(known), len(keys))
    differing = np.flatnonzero(np.array(known[:length], np.int64) != keys[:length])
    return int(differing[0]) if len(differing) else length
