"""What a prompt is once it has left words, pictures and sound behind: ids and features.

The processor makes these, the model reads them; neither needs to know the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import numpy as np

from ..config import Config


@dataclass(frozen=True)
class ImagePatches:
    """One picture (or one video frame), resized and cut into patches.

    Attributes:
        patches: float32 `[rows * columns, 3 * patch_size**2]`, values in [0, 1]; row order, channel last in a patch.
        rows: patches from top to bottom, a multiple of the pooling kernel (3).
        columns: patches from left to right, a multiple of the pooling kernel (3).
    """

    patches: mx.array
    rows: int
    columns: int


@dataclass(frozen=True)
class ModelInputs:
    """A prompt ready for `Gemma4`.

    Attributes:
        input_ids: int32 `[1, L]`; every soft token's place holds its placeholder id.
        images: pictures and video frames, in order of appearance; or their soft tokens `[n, hidden]`, where somebody
            has kept them from an earlier prompt.
        sounds: one float32 array per audio clip, in order of appearance: `[frames, 128]`, frames 10 ms apart; for the
            12B, which takes the samples themselves, `[tokens, 640]`.
        stop_ids: ids that end the answer to this prompt, for who writes one.
    """

    input_ids: mx.array
    images: tuple[ImagePatches | mx.array, ...] = ()
    sounds: tuple[mx.array, ...] = ()
    stop_ids: frozenset[int] = frozenset()


def check_ids(ids: np.ndarray, vocab_size: int) -> None:
    """Raise `ValueError` for ids outside the vocabulary: MLX would read past the table and end the process."""
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise ValueError(f"token ids lie between 0 and {vocab_size - 1}, the prompt has {ids.min()} to {ids.max()}")


def vision_positions(ids: np.ndarray, config: Config) -> np.ndarray:
    """Positions in `ids` `[L]` that pictures and video frames fill."""
    return np.flatnonzero((ids == config.image_token_id) | (ids == config.video_token_id))


def audio_positions(ids: np.ndarray, config: Config) -> np.ndarray:
    """Positions in `ids` `[L]` that sound fills."""
    return np.flatnonzero(ids == config.audio_token_id)


def image_blocks(ids: np.ndarray, config: Config) -> np.ndarray:
    """Numbers the runs of picture placeholders in `ids` `[L]` from 0; -1 everywhere else."""
    is_image = (ids == config.image_token_id) | (ids == config.video_token_id)
    starts = is_image & ~np.concatenate([[False], is_image[:-1]])
    return np.where(is_image, np.cumsum(starts) - 1, -1)


def soft_token_runs(ids: np.ndarray, config: Config) -> list[tuple[int, int]]:
    """Start and end of each run of placeholders in `ids` `[L]`, in order: one per picture, video frame and clip."""
    kinds = np.zeros(len(ids), np.int8)
    kinds[vision_positions(ids, config)] = 1
    kinds[audio_positions(ids, config)] = 2
    changes = np.flatnonzero(np.diff(kinds, prepend=0, append=0)).tolist()
    return [(start, end) for start, end in pairwise(changes) if kinds[start]]


def rest_of_inputs(inputs: ModelInputs, config: Config, start: int) -> ModelInputs:
    """The prompt from position `start` on, which lies within no picture and no clip."""
    images, clips = _feature_counts(np.array(inputs.input_ids)[0, :start], config)
    return ModelInputs(inputs.input_ids[:, start:], inputs.images[images:], inputs.sounds[clips:])


def _feature_counts(ids: np.ndarray, config: Config) -> tuple[int, int]:
    """How many pictures and video frames, and how many clips, have their places in `ids` `[L]`."""
    runs = soft_token_runs(ids, config)
    clips = sum(int(ids[start] == config.audio_token_id) for start, _ in runs)
    return len(runs) - clips, clips


def split_inputs(
    inputs: ModelInputs, config: Config, max_tokens: int, last_tokens: int | None = None
) -> list[ModelInputs]:
    """Cut a prompt into consecutive pieces to be read one after another into the same cache.

    A picture or a clip is never cut: its piece is as much longer than `max_tokens` as it needs. (The tokens of one
    picture may see each other in both directions, so they have to be read at once.)

    Args:
        inputs: the whole prompt.
        config: names the placeholder ids.
        max_tokens: the aimed-for length of a piece.
        last_tokens: of the last piece, where that is less and the prompt is longer. The others are then equally long.

    Raises:
        ValueError: `max_tokens` is not positive.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
    ids = np.array(inputs.input_ids)[0]
    # A cut before position p is allowed unless p continues a run of the same placeholder.
    joined = np.isin(ids[1:], config.placeholder_ids) & (ids[1:] == ids[:-1])
    allowed = np.concatenate([[True], ~joined, [True]])
    before_last = 0 if last_tokens is None else max(0, len(ids) - min(last_tokens, max_tokens))
    before_it = -(-before_last // max(1, -(-before_last // max_tokens)))  # tokens of each piece
    pieces, start, images, clips = [], 0, 0, 0
    while start < len(ids):
        end = min(start + before_it, before_last) if start < before_last else min(start + max_tokens, len(ids))
        back = next((p for p in range(end, start, -1) if allowed[p]), None)
        end = back or next(p for p in range(end, len(ids) + 1) if allowed[p])
        piece = ids[start:end]
        n_images, n_clips = _feature_counts(piece, config)
        pieces.append(
            ModelInputs(
                input_ids=inputs.input_ids[:, start:end],
                images=inputs.images[images : images + n_images],
                sounds=inputs.sounds[clips : clips + n_clips],
            )
        )
        start, images, clips = end, images + n_images, clips + n_clips
    return pieces
