"""Which keys a query may see: those before it, those in its window, and the rest of its own picture."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

Mask = mx.array | str | None


def attention_mask(
    length: int, past: int, window: int | None = None, image_blocks: np.ndarray | None = None, as_array: bool = False
) -> Mask:
    """Which of `past + length` keys each of the `length` new queries may see.

    Args:
        length: new tokens; their keys are the last `length`.
        past: keys before them, oldest first.
        window: a query sees itself and `window - 1` keys before it; None: all of them.
        image_blocks: int `[length]`, equal numbers for tokens of one image, -1 elsewhere: a query also sees the later
            tokens of its own image, never beyond the window to the left.
        as_array: always a boolean array, never the short forms.

    Returns:
        bool `[length, past + length]`, or the short forms that attention kernels take: `"causal"`, or None for one
        query that sees every key.
    """
    bounded = window is not None and past + length > window
    if image_blocks is None and not bounded and not as_array:
        return "causal" if length > 1 else None
    query = np.arange(past, past + length)[:, None]
    key = np.arange(past + length)[None, :]
    allowed = key <= query
    if image_blocks is not None:
        blocks = np.concatenate([np.full(past, -1), image_blocks])
        allowed |= (blocks[past:, None] == blocks[None, :]) & (blocks[None, :] >= 0)
    if window is not None:
        allowed &= key > query - window
    return mx.array(allowed)
