"""How many tokens of a prompt are read at once.

Memory asks for few: where MLX has no fused attention, a full layer stores a score for every query and key, and 31B
peaks at 34 GB with prompts read 8,192 tokens at a time, at 21 GB with 512. Speed asks for many: in MLX 0.32.4 the fused
kernels for heads of 512 begin at 1,024 queries (`use_blocked_d512`, `ScaledDotProductAttention::use_fallback`), on
an M5 later; every piece is waited for; and all experts' weights are read for each.
"""

from __future__ import annotations

from ..config import TextConfig
from ..model.gpu import Gpu

_FEWEST = 512
_MOST = 2048
_WITH_MUCH_MEMORY = 24 * 10**9
_WITH_SOME_MEMORY = 12 * 10**9
_FIRST_M5 = 17
_MOST_SCORES = 10**9
_SHARE_FOR_SCORES = 16  # of the memory that the GPU may use, one such part
_SCORE_BYTES = 2


def piece_tokens(gpu: Gpu | None, config: TextConfig, span: int) -> int:
    """Tokens to be read at once: 512, 1,024 or 2,048.

    Without a Mac's GPU 512. A GPU whose memory is not known is taken to have little, one whose generation is not known
    to be older than the M5's.

    Args:
        gpu: what is computed on.
        config: of the model.
        span: tokens that the cache will hold in the end.
    """
    if gpu is None:
        return _FEWEST
    memory = gpu.memory_bytes or 0
    many = memory >= _WITH_MUCH_MEMORY or (gpu.generation or 0) >= _FIRST_M5
    tokens = _MOST if many else _MOST // 2 if memory >= _WITH_SOME_MEMORY else _FEWEST
    most_scores = min(_MOST_SCORES, memory // _SHARE_FOR_SCORES)
    while tokens > _FEWEST and config.num_attention_heads * tokens * span * _SCORE_BYTES > most_scores:
        tokens //= 2
    return tokens
