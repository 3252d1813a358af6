"""Live sound → utterances, told step by step while they are still being spoken.

Unlike `endpoints`, which hands out finished clips of a file, this hands on every sound at once: whoever listens is to
be done with it by the time the speaker stops. Counted in the detector's windows of 32 ms; no model, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gemma4_mlx.speech.endpoints import SAMPLE_RATE, WINDOW, FloatArray, silero

# Kept before speech: the detector fires late, and a soft first sound is later still.
_PRE_ROLL = 0.5
# Kept after it: a last word is soft at its end. What follows is held back until somebody speaks again, because a model
# writes words nobody said into a long silence.
_TAIL = 0.4
# Silero's own distance between the probabilities at which speech begins and ends.
_HYSTERESIS = 0.15
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
        if not 0 < threshold < 1:
            raise ValueError(f"the threshold is a probability between 0 and 1, not {threshold}")
        if not 0.1 <= silence <= 10:
            raise ValueError(f"the silence that ends an utterance is 0.1 to 10 seconds, not {silence}")
        if not 1 <= longest <= 28:
            raise ValueError(f"an utterance lasts at most 1 to 28 seconds, not {longest}")
        self._voice = silero() if voice is None else voice
        self._on, self._off = threshold, max(threshold - _HYSTERESIS, threshold / 2)
        self._silence = _windows(silence)
        self._longest = _windows(longest)
        self._tail = min(_windows(_TAIL), self._silence)
        self._pending = np.zeros(0, np.float32)  # less than a window
        # The windows kept, from window `_first` of the sound on.
        self._first = 0
        self._kept: list[FloatArray] = []
        self._speech: list[bool] = []
        self._start: int | None = None  # of the open utterance
        self._handed_on = 0  # windows before this one have been handed on
        self._last_end = 0
        self._continues = False  # the open utterance began where the last one was cut
        self._total = 0

    @property
    def seconds(self) -> float:
        """Of sound pushed so far."""
        return self._total / SAMPLE_RATE

    @property
    def speaking(self) -> bool:
        """An utterance is open."""
        return self._start is not None

    @property
    def spoken(self) -> float:
        """Seconds of speech in the open utterance."""
        if self._start is None:
            return 0.0
        return sum(self._speech[self._start - self._first :]) * WINDOW / SAMPLE_RATE

    @property
    def pause(self) -> float:
        """Seconds since the last speech in the open utterance."""
        return 0.0 if self._start is None else (self._now - self._last_speech()) * WINDOW / SAMPLE_RATE

    def push(self, samples: FloatArray) -> Iterator[Step]:
        """What follows from float32 `[n]` more samples; to be taken to the end before the next push."""
        self._total += len(samples)
        samples = np.concatenate([self._pending, samples])
        whole = len(samples) - len(samples) % WINDOW
        self._pending = samples[whole:].copy()
        for at in range(0, whole, WINDOW):
            yield from self._next_window(samples[at : at + WINDOW].copy())

    def finish(self) -> Iterator[Step]:
        """The end of the open utterance, if there is one: the sound ends here, or nobody listens any longer."""
        if len(self._pending):
            yield from self._next_window(np.pad(self._pending, (0, WINDOW - len(self._pending))))
            self._pending = np.zeros(0, np.float32)
        if self._start is not None:
            yield from self._close(min(self._last_speech() + self._tail, self._now))

    @property
    def _now(self) -> int:
        return self._first + len(self._kept)

    def _last_speech(self) -> int:
        """One past the last window of speech; the start of the open utterance if a cut left none in it."""
        assert self._start is not None
        since = range(self._now, self._start, -1)
        return next((end for end in since if self._speech[end - 1 - self._first]), self._start)

    def _next_window(self, window: FloatArray) -> Iterator[Step]:
        threshold = self._off if self._speech and self._speech[-1] else self._on
        self._speech.append(self._voice(window) >= threshold)
        self._kept.append(window)
        if self._start is None:
            if self._speech[-1]:
                yield from self._open(max(self._last_end, self._now - 1 - _windows(_PRE_ROLL), 0))
            else:
                self._forget(max(self._last_end, self._now - _windows(_PRE_ROLL)))
                return
        yield from self._hand_on()
        pause = self._now - self._last_speech()
        too_long = self._now - self._open_since() >= self._longest
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
        end = min(self._now, self._last_speech() + self._tail)
        if end > self._handed_on:
            samples = np.concatenate(self._kept[self._handed_on - self._first : end - self._first])
            yield Sound(samples[: self._total - self._handed_on * WINDOW])  # without what filled the last window
            self._handed_on = end

    def _close(self, end: int) -> Iterator[Step]:
        heard = sum(self._speech[self._open_since() - self._first : end - self._first])
        # After a cut any speech is the rest of something said, however short.
        spoken = heard > 0 if self._continues else heard >= _windows(_LEAST_SPEECH)
        self._start, self._last_end, self._continues = None, end, False
        self._forget(max(end, self._now - _windows(_PRE_ROLL)))
        yield Closed(min(end * WINDOW, self._total), spoken)

    def _cut(self) -> Iterator[Step]:
        cut = self._quietest()
        heard = any(self._speech[self._open_since() - self._first : cut - self._first])
        self._last_end, self._continues = cut, True
        yield Closed(cut * WINDOW, heard)
        self._forget(cut)
        yield from self._open(cut)
        yield from self._hand_on()

    def _quietest(self) -> int:
        """The window in the later part of the open utterance before which, and round which, it is quietest."""
        low = self._open_since() + round(self._longest * _CUT_FROM)
        windows = np.stack(self._kept[low - 1 - self._first :])
        power = np.mean(np.square(windows, dtype=np.float64), axis=1)
        smooth = np.convolve(power, np.ones(_CUT_SMOOTHING), mode="valid")
        # The latest of equals: the longer the clip, the more the model has to go by.
        return low + len(smooth) - 1 - int(np.argmin(smooth[::-1]))

    def _forget(self, window: int) -> None:
        """Drop what lies before `window`."""
        count = window - self._first
        if count > 0:
            del self._kept[:count]
            del self._speech[:count]
            self._first = window


def _windows(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE / WINDOW)
