"""A cache for a conversation that grows, and is edited: of every new prompt only what is new is read."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import mlx.core as mx
import numpy as np

from ..config import Config
from ..device_errors import failures
from ..model import Gemma4, ImagePatches, ModelInputs
from ..model.cache import Caches, Snapshot
from ..model.inputs import rest_of_inputs, soft_token_runs
from .conversation_file import Held, load_conversation, save_conversation
from .turn import Turn

_MARK_BYTES = 2**30
_SOFT_TOKEN_BYTES = 2**28  # of 330 pictures for E2B, of 90 for 31B


class ConversationCache:
    """Keys and values of a conversation, given to `generate`, `stream_generate` or `generate_tokens` turn after turn.

    Every prompt is the whole conversation, however it was edited since the last one. It is compared with what the cache
    holds, the cache goes back to where they part, and only the rest is read; towers run only over pictures and sound in
    that rest. Soft tokens are the same when their features are, so another picture of the same size is another one; the
    messages carry every picture, sound and video again, and in a `processing.CachedSource` each is decoded only once.

    Soft tokens of pictures are kept as well, the latest 256 MB: a picture that is asked about again is not encoded
    again, wherever it then stands.

    What is kept is never computed again: after going back, every layer holds bit for bit what it held when it stood
    there before. Compared with reading the whole prompt into a fresh cache, the tokens before that point were read in
    other pieces (a written answer one by one), and other kernels sum in another order: the logits agree up to rounding.

    Full-attention layers go back by forgetting. Sliding layers lose what leaves their window, so snapshots of them are
    kept: where a prompt's reading began, before its last piece, at its end, and of the answer being written one every
    half window, the last two. Between two snapshots, or the last one and the end, that are no further apart than the
    window, every position can be come back to. So an answer is written anew, or the last question edited, by reading
    only what is new. Elsewhere the cache goes back to the snapshot before and reads on from there, in the worst case
    from the start.

    A snapshot takes about as much memory as the sliding layers themselves: 6 MB for E2B, 20 MB for E4B, 210 MB for
    26B-A4B, 840 MB for 31B in bf16.

    An answer that is closed, interrupted or fails leaves the cache true: what it holds is what was read and written.
    After a `DeviceError`, in this conversation or elsewhere in the process, it holds nothing, and the next prompt is
    read from its start: MLX may tell of a failure late, so nothing that was computed before one is used again.
    A later prompt ends an answer still being written: asking that for more raises RuntimeError. So a conversation may
    go from thread to thread, but two threads that answer in it at once end each other's answers: give each a cache.

    Args:
        model: the model that will read and write.
        kv_bits: 8 or 4 pack keys and values of full-attention layers, see `Gemma4.make_cache`.
        mark_bytes: the oldest snapshots are given up when all together take more than this, but for the last prompt's
            two: there is always one to write the last answer anew from.

    Attributes:
        model: the model; prompts for another one are refused.

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

    def __repr__(self) -> str:
        return f"ConversationCache({self.tokens:,} tokens, {self.nbytes / 1e6:.1f} MB)"

    @property
    def tokens(self) -> int:
        """How many tokens it holds."""
        return self._held.tokens

    @property
    def layers(self) -> Caches:
        """The layers' caches, as they are now."""
        return self._held.cache

    @property
    def reused(self) -> int:
        """How many tokens of the latest prompt it held already."""
        return self._held.reused

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values, snapshots and soft tokens."""
        snapshots = sum(snapshot.nbytes for snapshot in self._held.snapshots)
        return self._held.cache.nbytes + snapshots + sum(tokens.nbytes for tokens in self._soft_tokens.values())

    def clear(self) -> None:
        """Forget everything, and give its memory back."""
        self._held = Held(self.model.make_cache(self._kv_bits), [], 0, 0)
        self._soft_tokens: dict[int, mx.array] = {}  # by the picture's key, the latest last
        self._failures = failures()  # last: after an interrupt it is forgotten once more

    def copy(self) -> ConversationCache:
        """Another conversation that holds the same; either goes on without the other."""
        copied = ConversationCache(self.model, kv_bits=self._kv_bits, mark_bytes=self._mark_bytes)
        copied._held = self._held  # a prompt makes a new one of it, and leaves this as it is
        copied._soft_tokens = {**self._soft_tokens}
        return copied

    def common(self, keys: np.ndarray) -> int:
        """How many tokens it holds of the beginning of a prompt, whose `prompt_keys` these are."""
        return _common_length(self._held.known[: self._held.tokens], keys)

    def save(self, path: str | Path) -> None:
        """Write the conversation to a file, whole or not at all: a safetensors file, readable by its owner alone.

        What was said to the model can be told from it.

        Args:
            path: of the file, by custom `*.safetensors`.

        Raises:
            ValueError: the cache is empty.
            OSError: the file cannot be written.
        """
        save_conversation(Path(path), self._held, self.model, self._kv_bits)

    @classmethod
    def load(cls, path: str | Path, model: Gemma4, *, mark_bytes: int = _MARK_BYTES) -> Self:
        """The conversation in a file that `save` wrote.

        Args:
            path: of the file.
            model: the one that it was saved with: the same checkpoint in the same precision.
            mark_bytes: as for a new one.

        Raises:
            InputError: the file is missing or damaged, or belongs to another model.
            ValueError: a negative `mark_bytes`.
        """
        held, kv_bits = load_conversation(Path(path), model)
        cache = cls(model, kv_bits=kv_bits, mark_bytes=mark_bytes)
        cache._held = held
        return cache

    def go_on(self, cache: Caches, tokens: Sequence[int]) -> None:
        """An answer was written elsewhere, from a copy of this: hold it too.

        Args:
            cache: the prompt, and the answer's `tokens`.
        """
        held = self._held
        known = [*held.known[: held.prompt_tokens], *tokens]
        self._held = Held(cache, known, held.prompt_tokens, held.reused, held.snapshots)

    def begin(self, inputs: ModelInputs) -> Turn:
        """Go back to where `inputs`, a whole prompt, part from what is held, and at least by its last token.

        Returns:
            What is to be read, at least one token, and what it is to be read into. The turn before is over.
        """
        if self._failures != failures():
            self.clear()
        config, old = self.model.config, self._held
        keys = prompt_keys(inputs, config)
        snapshots = [*old.snapshots, old.cache.snapshot()]
        limit = min(_common_length(old.known[: old.tokens], keys), len(keys) - 1)
        back = _furthest(snapshots, limit)
        # A picture's tokens may see each other in both directions, and a tower takes it whole: so does the rest.
        runs = soft_token_runs(np.array(inputs.input_ids)[0], config)
        while run := next((run for run in runs if run[0] < _offset(back) < run[1]), None):
            back = _furthest(snapshots, run[0])
        start = _offset(back)
        if back is None:
            cache = self.model.make_cache(self._kv_bits)
        else:
            cache = old.cache.copy()
            cache.back_to(back)
            if start < old.cache.offset:
                cache.evaluate()
        # Of the answer before none is kept: the next prompt holds it, and is most likely to go on from its end.
        kept = [snapshot for snapshot in old.snapshots if snapshot.offset <= min(start, old.prompt_tokens)]
        held = Held(cache, keys.tolist(), len(keys), start, kept)
        # The one assignment by which the conversation goes back: an interrupt finds it done or not begun.
        self._held = held
        rings = held.cache.snapshot().rings
        return Turn(
            rest_of_inputs(inputs, config, start),
            cache,
            held.known,
            partial(self._at_boundary, held, rings[0].window if rings else None),
            # Snapshots before and after the last piece are kept, and are to reach every position in it.
            rings[0].window if rings else None,
            self._with_kept_soft_tokens,
        )

    def _with_kept_soft_tokens(self, piece: ModelInputs) -> ModelInputs:
        """A piece with soft tokens in place of its pictures, each encoded now if it has not been before."""
        soft_tokens = []
        for image in piece.images:
            key = _image_key(image)
            found = self._soft_tokens.pop(key, None)
            if found is None:
                [found] = self.model.encode_images(replace(piece, images=(image,)))
                mx.eval(found)
            self._soft_tokens[key] = found
            soft_tokens.append(found)
        while len(self._soft_tokens) > 1 and sum(s.nbytes for s in self._soft_tokens.values()) > _SOFT_TOKEN_BYTES:
            del self._soft_tokens[next(iter(self._soft_tokens))]
        return replace(piece, images=tuple(soft_tokens))

    def _at_boundary(self, held: Held, window: int | None) -> None:
        """Keep a snapshot, if the place is one to come back to.

        Raises:
            RuntimeError: another prompt has taken the conversation over.
        """
        if self._held is not held:
            raise RuntimeError("the conversation went on with another prompt: this answer cannot be continued")
        offset, last = held.cache.offset, _offset(held.snapshots[-1] if held.snapshots else None)
        if window is None or offset == 0:
            return
        prompt = [snapshot for snapshot in held.snapshots if snapshot.offset <= held.prompt_tokens]
        answer = held.snapshots[len(prompt) :]
        if offset > held.prompt_tokens:
            if offset - max(last, held.prompt_tokens) < window // 2:
                return
            answer = [*answer[-1:], held.cache.snapshot()]
        else:
            if offset < held.prompt_tokens:
                # Of the pieces' beginnings the last one's is kept.
                prompt = [snapshot for snapshot in prompt if snapshot.offset <= held.reused]
            before = [snapshot for snapshot in prompt if snapshot.offset < offset]
            prompt = _needed([*before, held.cache.snapshot()])
        held.snapshots = _within(self._mark_bytes, [*prompt, *answer], held.prompt_tokens)


def _offset(snapshot: Snapshot | None) -> int:
    return 0 if snapshot is None else snapshot.offset


def _furthest(snapshots: Sequence[Snapshot], limit: int) -> Snapshot | None:
    """How the cache stood at the largest position up to `limit` that can be told; None: at the very start."""
    after = bisect_right(snapshots, limit, key=_offset)
    earlier = snapshots[after - 1] if after else None
    if limit > _offset(earlier) and after < len(snapshots) and snapshots[after].reaches(limit, earlier):
        return snapshots[after].at(limit, earlier)
    return earlier if _offset(earlier) else None


def _needed(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """Without those whose neighbours reach every position between them."""
    kept = [*snapshots]
    for snapshot in snapshots[:-1]:
        at = kept.index(snapshot)
        before = _offset(kept[at - 1]) if at else 0
        if all(ring.oldest <= before for ring in kept[at + 1].rings):
            del kept[at]
    return kept


def _within(most_bytes: int, snapshots: Sequence[Snapshot], prompt_tokens: int) -> list[Snapshot]:
    """Without the oldest ones, so that all together take at most `most_bytes`; but the last prompt's two stay."""
    kept = [*snapshots]
    always = [snapshot for snapshot in kept if snapshot.offset <= prompt_tokens][-2:]
    for snapshot in snapshots:
        if sum(each.nbytes for each in kept) <= most_bytes:
            break
        if not any(snapshot is each for each in always):
            kept.remove(snapshot)
    return kept


def prompt_keys(inputs: ModelInputs, config: Config) -> np.ndarray:
    """int64 `[L]`: a number for each token; equal numbers at equal places mean the same beginning of a prompt.

    Of words it is the id; of soft tokens it is negative and stands for what they were made from.
    """
    ids = np.array(inputs.input_ids)[0]
    keys = ids.astype(np.int64)
    if not inputs.images and not inputs.sounds:
        return keys  # placeholders, if any, are read as the pad id
    images = iter([_image_key(image) for image in inputs.images])
    clips = iter([_feature_key(sound, *sound.shape) for sound in inputs.sounds])
    for start, end in soft_token_runs(ids, config):
        key = next(clips if ids[start] == config.audio_token_id else images, None)
        if key is None:
            raise ValueError(f"the placeholders at {start} have no picture or sound to fill them")
        keys[start:end] = key
    return keys


def _image_key(image: ImagePatches | mx.array) -> int:
    if isinstance(image, mx.array):
        return _feature_key(image.astype(mx.float32), *image.shape)
    return _feature_key(image.patches, image.rows, image.columns)


def _feature_key(feature: mx.array, *shape: int) -> int:
    digest = hashlib.sha256(repr(shape).encode())
    digest.update(np.array(feature).data)
    return -1 - (int.from_bytes(digest.digest()[:8]) >> 1)


def _common_length(known: list[int], keys: np.ndarray) -> int:
    length = min(len(known), len(keys))
    differing = np.flatnonzero(np.array(known[:length], np.int64) != keys[:length])
    return int(differing[0]) if len(differing) else length
