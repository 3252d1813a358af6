"""Prompt in, token ids out: the loop every other way of generating stands on. It knows no text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from typing import cast

import mlx.core as mx
import numpy as np

from ..device_errors import device_errors
from ..errors import ContextLengthError
from ..model import Gemma4, ModelInputs
from ..model.cache import Caches
from ..model.gpu import this_gpu
from ..model.inputs import check_ids, split_inputs
from ..model.layer_cache import KVCache
from .choices import Constraint, make_choice
from .conversation_cache import ConversationCache
from .decode import Choose, Decode, Row
from .logprobs import Logprobs
from .prompt_pieces import piece_tokens
from .room import check_room
from .turn import Turn

# Of a prompt, read at once. None: what the machine is good for. Tests and measurements give a number.
PREFILL_TOKENS: int | None = None
_STEPS_BETWEEN_CLEARS = 256
_MOST_UNUSED_BYTES = 2**30

Prompt = ModelInputs | mx.array | np.ndarray | Sequence[int]


def generate_tokens(
    model: Gemma4,
    inputs_or_ids: Prompt,
    max_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    stop_ids: Collection[int] = (),
    cache: Sequence[KVCache] | ConversationCache | None = None,
    constraint: Constraint | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_prompt: Callable[[int, int], None] | None = None,
    logprobs: Logprobs | None = None,
) -> Generator[int, None, None]:
    """Read a prompt, then produce token ids one by one.

    It ends after `max_tokens` tokens, after a token of `stop_ids` (which is handed out, as the last one), when
    `should_stop` says yes, or when the context is full: prompt and tokens together never exceed
    `max_position_embeddings`, and a prompt that fills it exactly gets no token.

    However it ends, be it by exhaustion, by closing the iterator, by an error or by Ctrl-C in the middle of anything,
    every layer of `cache` holds the same number of tokens, `cache.offset`, and they are a prefix of what was there
    before, the prompt, and the tokens handed out so far. In particular:

    - during the prompt: whole pieces of at most about 512 to 2,048 tokens, as the machine has memory for;
    - closed, stopped or interrupted after n tokens: the prompt and these n tokens;
    - ended by itself: the prompt and all tokens, without the last one if `max_tokens` or the context was the reason.

    So a conversation goes on from any point by giving the same cache the ids after `cache.offset`. After a
    `DeviceError` that is from the start: nothing that was computed is kept.

    Args:
        model: the model.
        inputs_or_ids: what the processor returns, or ids: int `[L]` or `[1, L]`, or a list of int.
        max_tokens: upper limit of new tokens.
        temperature: 0 takes the most likely token.
        top_p: share of probability to draw from; None: all of it.
        top_k: number of most likely tokens to draw from; None or 0: all.
        seed: makes drawing repeatable; None: different every time. MLX's global random state is left alone.
        stop_ids: token ids that end the generation; those that end the model's turn are the `stop_ids` of what the
            processor returns.
        cache: from `model.make_cache()`; tokens it already holds come before the prompt. Or a `ConversationCache`: the
            prompt is then the whole conversation, and of it is read what the cache does not hold. None: a fresh one.
        constraint: says at every step which tokens may come; None: all.
        should_stop: asked before every piece of the prompt and before every token; once it says yes, no more come.
        on_prompt: called before every piece of the prompt with the number of its tokens that the cache holds by then,
            and the number of all its tokens.
        logprobs: notes how likely each token was; None: nobody does.

    Raises:
        ValueError: an empty prompt, ids of another shape or outside the vocabulary, max_tokens below 1, a sampling
            setting out of its range or of another type, a cache of another model or kind. At the call, not at the first
            token.
        ContextLengthError: the prompt is longer than the context. At the call as well.
        OutOfMemoryError: this machine has less memory than the prompt's keys and values take: at the call. Or memory
            ran out, which is found out on the way.
        DeviceError: the GPU failed.
    """
    check_max_tokens(max_tokens)
    choose = make_choice(temperature, top_p, top_k, seed, constraint)
    if logprobs is not None:
        choose = logprobs.noting(choose)
    inputs = _as_inputs(inputs_or_ids, model.config.text.vocab_size)
    if isinstance(cache, ConversationCache):
        if cache.model is not model:
            raise ValueError("the cache belongs to another model: make a ConversationCache for this one")
        past, layers = 0, cache.layers
    else:
        cache = layers = _as_caches(cache, model)
        past = cache.offset
    context = model.config.text.max_position_embeddings
    length = inputs.input_ids.shape[1]
    room = context - past - length
    if room < 0:
        before = f" after the {past} already read" if past else ""
        raise ContextLengthError(
            f"the prompt has {length} tokens{before}, but the context holds {context}: shorten it, or start afresh",
            past + length,
            context,
        )
    check_room(model, layers, past + length)
    asked = (lambda: False) if should_stop is None else should_stop

    def before_piece(held: int) -> bool:
        if asked():
            return False
        if on_prompt is not None:
            on_prompt(held - past, length)
        return True

    return _run(model, inputs, cache, before_piece, choose, min(max_tokens, room), frozenset(stop_ids), asked)


def check_max_tokens(max_tokens: object) -> None:
    """Raise ValueError unless it is a number of tokens to write."""
    if not _is_int(max_tokens) or cast(int, max_tokens) < 1:
        raise ValueError(f"max_tokens must be a whole number of at least 1, not {max_tokens!r}")


def read_prompt(model: Gemma4, inputs: ModelInputs, cache: Caches, should_stop: Callable[[], bool]) -> mx.array | None:
    """Read a prompt into `cache`, piece by piece.

    Returns:
        The last position's logits `[1, 1, vocab]`, not yet evaluated; None if `should_stop` said yes.

    Raises:
        OutOfMemoryError: this machine has less memory than the prompt's keys and values take.
    """
    check_room(model, cache, cache.offset + inputs.input_ids.shape[1])
    return _read(model, Turn(inputs, cache), lambda _: not should_stop())


def _run(
    model: Gemma4,
    inputs: ModelInputs,
    cache: Caches | ConversationCache,
    before_piece: Callable[[int], bool],
    choose: Choose,
    limit: int,
    stop_ids: frozenset[int],
    should_stop: Callable[[], bool],
) -> Generator[int, None, None]:
    with device_errors(cache.clear if isinstance(cache, ConversationCache) else cache.forget):
        with model.turns:
            turn = cache.begin(inputs) if isinstance(cache, ConversationCache) else Turn(inputs, cache)
        logits = _read(model, turn, before_piece)
        if limit == 0 or logits is None:
            return
        decode = Decode(model, turn.cache, [Row(choose, turn.tokens)], logits)
        for step in range(1, limit + 1):
            if should_stop():
                return
            with model.turns:
                turn.at_boundary()
            [token] = decode.step(last=step == limit)
            yield token
            if token in stop_ids:
                return
            if step % _STEPS_BETWEEN_CLEARS == 0:
                _give_back_memory()


def _read(model: Gemma4, turn: Turn, before_piece: Callable[[int], bool]) -> mx.array | None:
    """Read a turn's prompt into its cache piece by piece.

    Returns:
        The last position's logits `[1, 1, vocab]`, not yet evaluated; None if it was stopped.
    """
    reading = PromptReading(model, turn)
    while not reading.is_over:
        if not before_piece(turn.cache.offset):
            return None
        reading.go_on()
    return reading.logits


class PromptReading:
    """A turn's prompt on its way into the turn's cache, a piece at a time.

    Attributes:
        is_over: whether all pieces have been read.
        cache: what is written to.
        logits: the last position's, `[1, 1, vocab]`, not yet evaluated; None until then.
    """

    def __init__(self, model: Gemma4, turn: Turn) -> None:
        self._model = model
        self._turn = turn
        span = turn.cache.offset + turn.inputs.input_ids.shape[1]
        longest = PREFILL_TOKENS or piece_tokens(this_gpu(), model.config.text, span)
        self._pieces = split_inputs(turn.inputs, model.config, longest, turn.last_piece)
        self._rows: mx.array | None = None  # of the per-layer table, for the next piece
        self._next = 0
        self.logits: mx.array | None = None

    @property
    def is_over(self) -> bool:
        return self._next == len(self._pieces)

    @property
    def cache(self) -> Caches:
        """What is written to."""
        return self._turn.cache

    def go_on(self) -> None:
        """Read the next piece. If it fails, the cache is as it was."""
        model, turn = self._model, self._turn
        with model.turns:
            turn.at_boundary()
            piece = turn.with_kept_soft_tokens(self._pieces[self._next])
            with turn.cache.restored_on_error():
                logits = model(piece, cache=turn.cache, last_only=True, per_layer_rows=self._rows)
            self._next += 1
            if self.is_over:
                self.logits = logits
                turn.at_boundary()
            else:
                # Only the cache: logits of a piece within the prompt are never computed.
                turn.cache.start()
                self._rows = model.per_layer_rows(self._pieces[self._next])  # from a disk, while the GPU works
                turn.cache.evaluate()
                _give_back_memory()


def _give_back_memory() -> None:
    """Let go of buffers that nothing uses, once they are many: the next piece wants most of them again."""
    if mx.get_cache_memory() > _MOST_UNUSED_BYTES:
        mx.clear_cache()


def _as_caches(cache: object, model: Gemma4) -> Caches:
    """A cache's layers; of None new ones. Raises ValueError for what is no cache of this model."""
    fresh = model.make_cache()
    if cache is None:
        return Caches.of(fresh)
    if (
        not isinstance(cache, list | tuple)
        or [type(layer) for layer in cache] != [type(layer) for layer in fresh]
        or len({layer.offset for layer in cache}) != 1
    ):
        raise ValueError(
            "cache must be what this model's make_cache() gives, or a ConversationCache; "
            f"this {type(cache).__name__} is neither"
        )
    return Caches.of(cache)


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _as_inputs(inputs_or_ids: Prompt, vocab_size: int) -> ModelInputs:
    """Any form a prompt may have → `ModelInputs`. Raises ValueError as `generate_tokens` does."""
    if isinstance(inputs_or_ids, ModelInputs):
        return inputs_or_ids
    ids = np.array(inputs_or_ids)
    if ids.size == 0:
        raise ValueError("the prompt is empty: give at least one token")
    if ids.ndim == 1:
        ids = ids[None]
    if ids.ndim != 2 or ids.shape[0] != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"a prompt is int [L] or [1, L], not {ids.dtype} {list(ids.shape)}")
    check_ids(ids, vocab_size)
    return ModelInputs(mx.array(ids.astype(np.int32)))
