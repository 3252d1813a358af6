"""Live sound → utterances, told step by step while they are still being spoken.

Unlike `segmenter`, which hands out finished clips of a file, this hands on every sound at once: whoever listens is to
be done with it by the time the speaker stops. Counted in the detector's windows of 32 ms; no model, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gemma4_mlx.log_mel import SAMPLE_RATE, FloatArray
from gemma4_mlx.speech.segmenter import silero
from gemma4_mlx.speech.vad import WINDOW, HeardWindows, check_settings, windows

# Kept before speech: the detector fires late, and a soft first sound is later still.
_PRE_ROLL = 0.5
# Kept after it: a last word is soft at its end. What follows is held back until somebody speaks again, because a model
# writes words nobody said into a long silence.
_TAIL = 0.4
# Less speech than this is a click or a cough.
_LEAST_SPEECH = 0.16
# An utterance that grows too long is cut in the later part of its length.
_CUT_FROM = 0.6
_CUT_SMOOTHING = 3  # windows


@dataclass(frozen=True)
class Opened:
    """An utterance begins at sample `start` (16 kHz, from the beginning of the sound)."""

    start: int


@dataclass(frozen=True)
class Sound:
    """The next samples of the open utterance, float32 `[n]`, without a gap."""

    samples: FloatArray


@dataclass(frozen=True)
class Closed:
    """The open utterance ends at sample `end`, which may lie before what was handed on of it.

    `spoken` is False when it turned out to be a click: nothing in it is worth writing down.
    """

    end: int
    spoken: bool


Step = Opened | Sound | Closed


class Utterances:
    """Finds utterances in a stream. Holds no more than one of them.

    Utterances do not overlap, and every window the detector takes for speech is in exactly one, clicks aside. One that
    reaches `longest` is cut at the quietest moment of its later part, and the next begins at that very sample.

    Args:
        threshold: probability from which a window is speech.
        silence: seconds without speech that end an utterance.
        longest: seconds an utterance may last, 1 to 28; the model takes 30.
        voice: probability of speech in a float32 `[512]` window, called for each in order. Default: Silero.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        silence: float = 0.7,
        longest: float = 20.0,
        voice: Callable[[FloatArray], float] | None = None,
    ) -> None:
        check_settings(threshold, silence, longest)
        self._heard = HeardWindows(silero() if voice is None else voice, threshold)
        self._silence = windows(silence)
        self._longest = windows(longest)
        self._tail = min(windows(_TAIL), self._silence)
        self._start: int | None = None  # of the open utterance
        self._handed_on = 0  # windows before this one have been handed on
        self._last_end = 0
        self._continues = False  # the open utterance began where the last one was cut

    @property
    def seconds(self) -> float:
        """Of sound pushed so far."""
        return self._heard.total / SAMPLE_RATE

    @property
    def speaking(self) -> bool:
        """An utterance is open."""
        return self._start is not None

    @property
    def spoken(self) -> float:
        """Seconds of speech in the open utterance."""
        if self._start is None:
            return 0.0
        return self._heard.speech(self._start, self._heard.now) * WINDOW / SAMPLE_RATE

    @property
    def pause(self) -> float:
        """Seconds since the last speech in the open utterance."""
        return 0.0 if self._start is None else (self._heard.now - self._last_speech()) * WINDOW / SAMPLE_RATE

    def push(self, samples: FloatArray) -> Iterator[Step]:
        """What follows from float32 `[n]` more samples; to be taken to the end before the next push."""
        for _ in self._heard.push(samples):
            yield from self._next_window()

    def finish(self) -> Iterator[Step]:
        """The end of the open utterance, if there is one: the sound ends here, or nobody listens any longer."""
        for _ in self._heard.push_rest():
            yield from self._next_window()
        if self._start is not None:
            yield from self._close(min(self._last_speech() + self._tail, self._heard.now))

    def _last_speech(self) -> int:
        """One past the last window of speech; the start of the open utterance if a cut left none in it."""
        assert self._start is not None
        return self._heard.last_speech(self._start) or self._start

    def _next_window(self) -> Iterator[Step]:
        now = self._heard.now
        if self._start is None:
            if self._heard.is_speech(now - 1):
                yield from self._open(max(self._last_end, now - 1 - windows(_PRE_ROLL), 0))
            else:
                self._heard.forget(max(self._last_end, now - windows(_PRE_ROLL)))
                return
        yield from self._hand_on()
        pause = now - self._last_speech()
        too_long = now - self._open_since() >= self._longest
        if pause >= self._silence or (too_long and pause > self._tail):
            yield from self._close(self._last_speech() + self._tail)
        elif too_long:
            yield from self._cut()

    def _open_since(self) -> int:
        assert self._start is not None
        return self._start

    def _open(self, start: int) -> Iterator[Step]:
        self._start = self._handed_on = start
        yield Opened(start * WINDOW)

    def _hand_on(self) -> Iterator[Step]:
        """All that is known to belong to the open utterance: up to the tail after the last speech."""
        end = min(self._heard.now, self._last_speech() + self._tail)
        if end > self._handed_on:
            yield Sound(self._heard.samples(self._handed_on, end))
            self._handed_on = end

    def _close(self, end: int) -> Iterator[Step]:
        heard = self._heard.speech(self._open_since(), end)
        # After a cut any speech is the rest of something said, however short.
        spoken = heard > 0 if self._continues else heard >= windows(_LEAST_SPEECH)
        self._start, self._last_end, self._continues = None, end, False
        self._heard.forget(max(end, self._heard.now - windows(_PRE_ROLL)))
        yield Closed(min(end * WINDOW, self._heard.total), spoken)

    def _cut(self) -> Iterator[Step]:
        cut = self._quietest()
        heard = self._heard.speech(self._open_since(), cut) > 0
        self._last_end, self._continues = cut, True
        yield Closed(cut * WINDOW, heard)
        self._heard.forget(cut)
        yield from self._open(cut)
        yield from self._hand_on()

    def _quietest(self) -> int:
        """The window in the later part of the open utterance before which, and round which, it is quietest."""
        low = self._open_since() + round(self._longest * _CUT_FROM)
        smooth = np.convolve(self._heard.power(low - 1, self._heard.now), np.ones(_CUT_SMOOTHING), mode="valid")
        # The latest of equals: the longer the clip, the more the model has to go by.
        return low + len(smooth) - 1 - int(np.argmin(smooth[::-1]))
