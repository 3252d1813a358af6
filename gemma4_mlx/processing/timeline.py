"""Blocks of sound with their times → one sound that keeps to the clock: what is missing between them is silence.

A track may begin late, and recorders that save nothing while nobody speaks leave holes. Without silence in a hole,
every time after it would be too early.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..log_mel import FloatArray
from .limits import LONGEST_GAP_SECONDS

Block = tuple[FloatArray, float]
"""Mono samples `[n]`, and their rate."""

# Containers round their times, some to a whole packet. FFmpeg's resampler ignores differences up to this as well
# (`aresample`, option `min_hard_comp`).
_ROUNDING = 0.1
# If the time goes back by more than this, another recording begins, as in files that were joined.
_OVERLAP = 1.0
# Seconds in a block of silence. Long silence is handed on in many blocks, so that it needs little memory.
_SILENT_BLOCK = 1.0


class Timeline:
    """Puts the blocks of one sound in their places.

    A jump in time counts only if the next block goes on from there. A single wrong time changes nothing.

    Args:
        begin: the second at which the sound begins; None: the time of the first block.
        longest_gap: most seconds of silence to put into a hole; a hole of more than six hours gets none.
        joints: gets the seconds, counted like `now`, at which another recording begins, where files were joined.

    Attributes:
        now: seconds handed on so far.
    """

    def __init__(
        self, begin: float | None = 0.0, longest_gap: float = float("inf"), joints: list[float] | None = None
    ) -> None:
        self._shift = None if begin is None else -begin
        self._begin = begin or 0.0  # what the file's clock says at its beginning
        self._longest_gap = longest_gap
        self._held: tuple[float, FloatArray, float] | None = None  # after a jump that is not confirmed yet
        self.now = 0.0
        self._joints = [] if joints is None else joints

    def begin_anew(self, ago: float = 0.0) -> None:
        """Another recording begins `ago` seconds before the next block."""
        if self.now > ago:
            self._joints.append(self.now - ago)

    def place(self, time: float | None, samples: FloatArray, rate: float) -> Iterator[Block]:
        """Take a block with its time (None: it has none), and yield the blocks that can be handed on."""
        if self._held is not None:
            held, self._held = self._held, None
            yield from self._jumped(*held) if self._goes_on_behind(held, time) else self._next(*held[1:])
        if time is None:
            yield from self._next(samples, rate)
            return
        if self._shift is None:
            self._shift = -time
            self._begin = time
        ahead = time + self._shift - self.now
        if -_OVERLAP <= ahead <= _ROUNDING:
            yield from self._next(samples, rate)
        else:
            self._held = time, samples, rate

    def finish(self) -> Iterator[Block]:
        """Yield the block that is still held back."""
        if self._held is not None:
            held, self._held = self._held, None
            yield from self._jumped(*held)

    def _goes_on_behind(self, held: tuple[float, FloatArray, float], time: float | None) -> bool:
        """Whether a block at `time` confirms the jump before the held one."""
        if time is None:
            return True
        assert self._shift is not None
        begin, samples, rate = held
        seconds = len(samples) / rate
        if abs(time + self._shift - self.now - seconds) <= _ROUNDING:  # back on the clock from before the jump
            return False
        return time > begin + seconds - _ROUNDING

    def _jumped(self, time: float, samples: FloatArray, rate: float) -> Iterator[Block]:
        assert self._shift is not None
        ahead = time + self._shift - self.now
        if ahead > LONGEST_GAP_SECONDS:
            ahead = 0.0
        elif ahead > _ROUNDING:
            ahead = min(ahead, self._longest_gap)
            left = round(ahead * rate)
            while left > 0:
                length = min(left, round(_SILENT_BLOCK * rate))
                left -= length
                yield from self._next(np.zeros(length, np.float32), rate)
        if not -_OVERLAP <= time + self._shift - self.now <= _ROUNDING:
            # Its clock begins where the first one's did; Ogg stamps only the last frame of each page of up to a second.
            self.begin_anew(max(0.0, time - self._begin))
            self._shift = self.now - time
        yield from self._next(samples, rate)

    def _next(self, samples: FloatArray, rate: float) -> Iterator[Block]:
        self.now += len(samples) / rate
        yield samples, rate
