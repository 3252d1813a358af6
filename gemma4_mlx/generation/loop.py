"""Prompt in, token ids out: the loop every other way of generating stands on. It knows no text."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
from typing import Protocol, cast

import mlx.core as mx
import numpy as np

from ..errors import ContextLengthError
from ..model import Gemma4, ModelInputs
from ..model.cache import KVCache, restoring
from ..model.inputs import check_ids, split_inputs
from .conversation_cache import ConversationCache
from .reading import Reading
from .sampling import Sampler, make_sampler

# 31B peaks at 34 GB with prompts read 8192 tokens at a time, at 21 GB with 512, in about the same time.
PREFILL_TOKENS = 512
_STEPS_BETWEEN_CLEARS = 256

Prompt = ModelInputs | mx.array | np.ndarray | Sequence[int]
# → what is to be read, and into what; called when the first token is asked for
_Begin = Callable[[], tuple[ModelInputs, Reading]]
# tokens in the cache → whether to read the next piece of the prompt
_BeforePiece = Callable[[int], bool]


class Constraint(Protocol):
    """Says at every step which tokens may come."""

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: bool `[vocab_size]`."""

    def accept(self, token: int) -> bool:
        """Go on by one token; False if it must not come although it was allowed, and then nothing has happened."""


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
) -> Generator[int, None, None]:
    """Read a prompt, then produce token ids one by one.

    It ends after `max_tokens` tokens, after a token of `stop_ids` (which is handed out, as the last one), when
    `should_stop` says yes, or when the context is full: prompt and tokens together never exceed
    `max_position_embeddings`, and a prompt that fills it exactly gets no token.

    However it ends, be it by exhaustion, by closing the iterator, by an error or by Ctrl-C in the middle of anything,
    every layer of `cache` holds the same number of tokens, `cache[0].offset`, and they are a prefix of what was there
    before, the prompt, and the tokens handed out so far. In particular:

    - during the prompt: whole pieces of at most about `PREFILL_TOKENS` tokens;
    - closed, stopped or interrupted after n tokens: the prompt and these n tokens;
    - ended by itself: the prompt and all tokens, without the last one if `max_tokens` or the context was the reason.

    So a conversation goes on from any point by giving the same cache the ids after `cache[0].offset`.

    Args:
        model: the model.
        inputs_or_ids: what the processor returns, or ids: int `[L]` or `[1, L]`, or a list of int.
        max_tokens: upper limit of new tokens.
        temperature: 0 takes the most likely token.
        top_p: share of probability to draw from; None: all of it.
        top_k: number of most likely tokens to draw from; None or 0: all.
        seed: makes drawing repeatable; None: different every time. MLX's global random state is left alone.
        stop_ids: token ids that end the generation.
        cache: from `model.make_cache()`; tokens it already holds come before the prompt. Or a `ConversationCache`: the
            prompt is then the whole conversation, and of it is read what the cache does not hold. None: a fresh one.
        constraint: says at every step which tokens may come; None: all.
        should_stop: asked before every piece of the prompt and before every token; once it says yes, no more come.
        on_prompt: called before every piece of the prompt with the number of its tokens that the cache holds by then,
            and the number of all its tokens. A piece has about `PREFILL_TOKENS` tokens.

    Raises:
        ValueError: an empty prompt, ids of another shape or outside the vocabulary, max_tokens below 1, a sampling
            setting out of its range or of another type, a `ConversationCache` of another model. At the call, not at the
            first token.
        ContextLengthError: the prompt is longer than the context. At the call as well.
    """
    if not _is_int(max_tokens) or max_tokens < 1:
        raise ValueError(f"max_tokens must be a whole number of at least 1, not {max_tokens!r}")
    if seed is not None and not _is_int(seed):
        raise ValueError(f"seed must be a whole number or None, not {seed!r}")
    inputs = _as_inputs(inputs_or_ids, model.config.text.vocab_size)
    sampler = make_sampler(temperature, top_p, top_k)
    if isinstance(cache, ConversationCache):
        if cache.model is not model:
            raise ValueError("the cache belongs to another model: make a ConversationCache for this one")
        past, begin = 0, cast(_Begin, partial(cache.begin, inputs))
    else:
        cache = model.make_cache() if cache is None else cache
        past, begin = cache[0].offset, partial(_begin, inputs, cache)
    context = model.config.text.max_position_embeddings
    length = inputs.input_ids.shape[1]
    room = context - past - length
    if room < 0:
        before = f" after the {past} already read" if past else ""
        raise ContextLengthError(
            f"the prompt has {length} tokens{before}, but the context holds {context}: shorten it, or start afresh"
        )
    limit, ends = min(max_tokens, room), frozenset(stop_ids)
    asked = (lambda: False) if should_stop is None else should_stop

    def before_piece(held: int) -> bool:
        if asked():
            return False
        if on_prompt is not None:
            on_prompt(held - past, length)
        return True

    if constraint is not None:
        return _run_constrained(model, begin, before_piece, sampler, seed, limit, ends, asked, constraint)
    return _run(model, begin, before_piece, sampler, seed, limit, ends, asked)


def _begin(inputs: ModelInputs, cache: Sequence[KVCache]) -> tuple[ModelInputs, Reading]:
    return inputs, Reading(cache)


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


def _run(
    model: Gemma4,
    begin: _Begin,
    before_piece: _BeforePiece,
    sampler: Sampler,
    seed: int | None,
    limit: int,
    stop_ids: frozenset[int],
    should_stop: Callable[[], bool],
) -> Generator[int, None, None]:
    reading, logits = _prefill(model, begin, before_piece)
    cache = reading.cache
    if limit == 0 or logits is None:
        return
    key = _first_key(seed)
    current, key = sampler(logits[:, -1], key)
    mx.async_eval(current)
    for step in range(1, limit + 1):
        if should_stop():
            return
        held = reading.held()
        try:
            if step < limit:
                # Built before the current token is known, and queued too unless rows of a table on disk are missing:
                # the device never waits for Python.
                logits, read_rows = model.step_ahead(current[None], cache)
                following, key = sampler(logits[:, -1], key)
                if read_rows is None:
                    mx.async_eval(following)
            token = cast(int, current.item())
            if step < limit and read_rows is not None:
                read_rows(np.array([token]))
                mx.async_eval(following)
            reading.token_added(token)
        except BaseException:
            # The cache must not know a token that the caller never got. A `with` statement would leave a moment, at
            # its exit, in which Ctrl-C could fall between this protection and the `yield`; this has none.
            for layer_cache in cache:
                layer_cache.forget_step(held)
            raise
        yield token
        if token in stop_ids or step == limit:
            return
        current = following
        if step % _STEPS_BETWEEN_CLEARS == 0:
            mx.clear_cache()


def _run_constrained(
    model: Gemma4,
    begin: _Begin,
    before_piece: _BeforePiece,
    sampler: Sampler,
    seed: int | None,
    limit: int,
    stop_ids: frozenset[int],
    should_stop: Callable[[], bool],
    constraint: Constraint,
) -> Generator[int, None, None]:
    """Like `_run`, one step at a time: what may come next is known only when the token before it is."""
    reading, logits = _prefill(model, begin, before_piece)
    cache = reading.cache
    if logits is None:
        return
    key = _first_key(seed)
    token: int | None = None
    for _ in range(limit):
        if should_stop():
            return
        held = reading.held()
        try:
            if token is not None:
                logits = model.step(mx.array([[token]]), cache)
            mx.async_eval(logits)
            allowed = constraint.allowed()  # worked out while the device works on the logits
            token, key = _draw(sampler, logits[:, -1], allowed, key)
            while not constraint.accept(token):
                allowed[token] = False
                token, key = _draw(sampler, logits[:, -1], allowed, key)
            reading.token_added(token)
        except BaseException:
            for layer_cache in cache:
                layer_cache.forget_step(held)
            raise
        yield token
        if token in stop_ids:
            return


def _draw(sampler: Sampler, logits: mx.array, allowed: np.ndarray, key: mx.array) -> tuple[int, mx.array]:
    """One of the allowed tokens."""
    if not allowed.any():
        raise ValueError("the schema cannot be followed any further: whatever may come would repeat an item")
    drawn, key = sampler(mx.where(mx.array(allowed), logits, -mx.inf), key)
    return int(np.array(drawn)[0]), key


def _first_key(seed: int | None) -> mx.array:
    return mx.random.key(secrets.randbits(64) if seed is None else seed % 2**64)


def _prefill(model: Gemma4, begin: _Begin, before_piece: _BeforePiece) -> tuple[Reading, mx.array | None]:
    """Read the prompt into its cache piece by piece.

    Returns:
        What has read it, and the last position's logits `[1, 1, vocab]`, not yet evaluated; None if it was stopped.
    """
    inputs, reading = begin()
    cache = reading.cache
    pieces = split_inputs(inputs, model.config, reading.piece_length(inputs.input_ids.shape[1], PREFILL_TOKENS))
    for index, piece in enumerate(pieces):
        if not before_piece(cache[0].offset):
            return reading, None
        reading.before_piece()
        with restoring(cache):
            logits = model(piece, cache=cache, last_only=True)
        if index < len(pieces) - 1:
            # Only the cache: logits of a piece within the prompt are never computed.
            mx.eval([layer_cache.state for layer_cache in cache])
            mx.clear_cache()
    reading.prompt_read()
    return reading, logits
