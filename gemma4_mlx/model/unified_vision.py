"""The 12B's eyes: 48×48 pixels → one vector, through one linear between norms. No patch sees another here."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..config_unified import UnifiedVisionConfig
from ..errors import InputError
from .inputs import ImagePatches


class VisionEmbedder(nn.Module):
    """Norm, linear, norm, plus a learned row for the column and one for the row of each patch, norm."""

    def __init__(self, config: UnifiedVisionConfig):
        super().__init__()
        self._merged = config.pooling_kernel_size
        width = config.mm_embed_dim
        pixels = 3 * (config.patch_size * config.pooling_kernel_size) ** 2
        self.patch_ln1 = nn.LayerNorm(pixels, eps=1e-5)
        self.patch_dense = nn.Linear(pixels, width)
        self.patch_ln2 = nn.LayerNorm(width, eps=1e-5)
        self.pos_embedding = mx.zeros((config.mm_posemb_size, 2, width))
        self.pos_norm = nn.LayerNorm(width, eps=1e-5)

    def __call__(self, image: ImagePatches) -> mx.array:
        """Returns `[rows / 3 * columns / 3, mm_embed_dim]`, row by row.

        Raises:
            InputError: the picture is longer than the position table.
        """
        rows, columns = image.rows // self._merged, image.columns // self._merged
        table = self.pos_embedding
        if max(rows, columns) > len(table):
            raise InputError(f"the picture has a side of {max(rows, columns)} soft tokens, {len(table)} is the most")
        x = self.patch_dense(self.patch_ln1(self._large_patches(image).astype(table.dtype)))
        positions = table[:columns, 0][None] + table[:rows, 1][:, None]  # [rows, columns, width]
        return self.pos_norm(self.patch_ln2(x) + positions.reshape(rows * columns, -1))

    def _large_patches(self, image: ImagePatches) -> mx.array:
        """Patches of 16×16 pixels, joined 3×3: `[n / 9, 9 * 3 * patch_size**2]`, in (row, column, channel) order."""
        k = self._merged
        side = round((image.patches.shape[1] // 3) ** 0.5)
        grid = image.patches.reshape(image.rows // k, k, image.columns // k, k, side, side, 3)
        large = grid.transpose(0, 2, 1, 4, 3, 5, 6)  # [rows, columns, k, side, k, side, 3]
        return large.reshape(large.shape[0] * large.shape[1], -1)
