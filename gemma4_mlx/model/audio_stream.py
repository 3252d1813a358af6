"""Encoders for sound that is still coming in: any number of samples at a time, the same soft tokens in the end.

The audio tower is exactly causal, so its stream is the whole-clip encoder with its state carried from call to call;
the 12B's is in `unified_audio`. When speech begins and ends is not this file's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from typing import Self

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..device_errors import device_errors
from ..log_mel import HOP, LEAD, MEL_BINS, SAMPLE_RATE, FloatArray, log_mel_frames
from .audio_encoder import AudioTower, ConformerState, SubSampleLayer, SubSampling
from .conformer_step import ConformerStep
from .turns import Turns

# Long pieces are encoded ten seconds at a time: attention gathers a window of keys for every token it is given.
_BLOCK = 10 * SAMPLE_RATE


class AudioStream(ABC):
    """Soft tokens of sound as it arrives; made by `Gemma4.audio_stream`.

    All that has come out, in order, equals `encode_audio` of all that went in, however it was cut. A token stands for
    40 ms and is never taken back. Neither the state nor the work per second of sound grows.

    It may go from thread to thread, and has the model for as long as a call takes.

    Args:
        turns: of the model.
    """

    def __init__(self, turns: Turns) -> None:
        self._finished = False
        self._turns = turns

    def copy(self) -> Self:
        """Another stream that has heard the same; either goes on without the other. It costs nothing."""
        return copy(self)

    def feed(self, samples: npt.ArrayLike) -> mx.array:
        """The tokens that the next samples complete.

        Args:
            samples: float `[n]`, mono, 16 kHz, in [-1, 1]; any n.

        Returns:
            `[k, hidden]`; k is 0 where they complete none. They are being computed, and nobody has waited for them.

        Raises:
            ValueError: samples of another shape, NaN or infinite ones, or the stream is finished.
            DeviceError: the GPU failed, or memory ran out. The stream is finished with it.
        """
        if self._finished:
            raise ValueError("this stream is finished: begin another with model.audio_stream()")
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1:
            raise ValueError(f"samples must be [n], one channel, not {list(samples.shape)}")
        if not np.isfinite(samples).all():
            raise ValueError("the samples have NaN or infinite values among them")
        with device_errors(self._end):
            blocks: list[mx.array] = []
            for start in range(0, max(1, len(samples)), _BLOCK):
                with self._turns:
                    if blocks:
                        mx.eval(blocks)  # what they took is free again
                    blocks.append(self._encode(samples[start : start + _BLOCK]))
            if len(blocks) == 1:
                return blocks[0]
            with self._turns:
                tokens = mx.concatenate(blocks)
                mx.async_eval(tokens)
            return tokens

    def finish(self) -> mx.array:
        """The last tokens, of sound that no later sample can complete: `[0 or 1, hidden]`. It can be fed no more.

        Raises:
            ValueError: it is finished already.
        """
        if self._finished:
            raise ValueError("this stream is finished: begin another with model.audio_stream()")
        self._end()
        with device_errors(), self._turns:
            return self._rest()

    def _end(self) -> None:
        self._finished = True

    @abstractmethod
    def _encode(self, samples: FloatArray) -> mx.array:
        """The tokens that the next samples, perhaps none, complete."""

    @abstractmethod
    def _rest(self) -> mx.array:
        """The tokens of what is left."""


class ConformerStream(AudioStream):
    """The audio tower's. Token t comes out once 640 (t + 1) + 1 samples are known.

    Args:
        tower: the audio tower.
        conform: its conformer, from `ConformerStep`.
        project: its features `[n, output_proj_dims]` → soft tokens `[n, hidden]`.
        turns: of the model.
    """

    def __init__(
        self, tower: AudioTower, conform: ConformerStep, project: Callable[[mx.array], mx.array], turns: Turns
    ) -> None:
        super().__init__(turns)
        self._tower = tower
        self._run_conformer = conform
        self._project = project
        self._unread: FloatArray = np.zeros(LEAD, np.float32)  # the samples from the next frame's first on
        self._convolutions = _Convolutions(tower.subsample_conv_projection)
        self._state: ConformerState = tower.initial_state()

    def copy(self) -> Self:
        twin = super().copy()
        twin._convolutions = copy(self._convolutions)
        return twin

    def _rest(self) -> mx.array:
        return self._conform(self._convolutions.finish())

    def _encode(self, samples: FloatArray) -> mx.array:
        unread = np.concatenate([self._unread, samples])
        frames = log_mel_frames(unread)
        self._unread = unread[len(frames) * HOP :]
        return self._conform(self._convolutions.feed(frames))

    def _conform(self, convolved: mx.array) -> mx.array:
        if not len(convolved):
            none = self._no_tokens()
            mx.async_eval(none, self._convolutions.kept)
            return none
        tokens = self._tower.subsample_conv_projection.project(convolved)
        features, self._state = self._run_conformer(tokens, self._state)
        soft_tokens = self._project(features)
        # Unevaluated, the graph of an hour would hang on the last state.
        layers = [(layer.keys, layer.values, layer.convolution_inputs) for layer in self._state.layers]
        mx.async_eval(soft_tokens, layers, self._convolutions.kept)
        return soft_tokens

    def _no_tokens(self) -> mx.array:
        # Cut from one made-up token, so that no kernel is launched for an empty array.
        return self._project(mx.zeros((1, self._tower.output_proj.weight.shape[0]), self._convolutions.dtype))[:0]


class _Convolutions:
    """The two strided convolutions over time, each with the frames it has not finished with."""

    def __init__(self, subsampling: SubSampling) -> None:
        self._subsampling = subsampling
        self.dtype = subsampling.layer0.conv.weight.dtype
        channels = subsampling.layer0.conv.weight.shape[0]
        bins = -(-MEL_BINS // 2)
        # Each begins with the row of zeros that pads the start of a clip.
        self._frames = mx.zeros((1, MEL_BINS, 1), self.dtype)
        self._halved = mx.zeros((1, bins, channels), self.dtype)

    def feed(self, log_mel: FloatArray) -> mx.array:
        """Frames `[frames, mels]` → what they complete: `[tokens, bins, channels]`."""
        frames = mx.array(log_mel)[..., None].astype(self.dtype)
        halved, self._frames = _convolve(self._subsampling.layer0, self._frames, frames)
        return self._quartered(halved)

    def finish(self) -> mx.array:
        """The rows of zeros that pad the end of a clip, and what they complete."""
        halved, self._frames = _convolve(self._subsampling.layer0, self._frames, mx.zeros_like(self._frames[:1]))
        return self._quartered(mx.concatenate([halved, mx.zeros_like(self._halved[:1])]))

    def _quartered(self, halved: mx.array) -> mx.array:
        quartered, self._halved = _convolve(self._subsampling.layer1, self._halved, halved)
        return quartered

    @property
    def kept(self) -> tuple[mx.array, mx.array]:
        """Its state."""
        return self._frames, self._halved


def _convolve(layer: SubSampleLayer, before: mx.array, new: mx.array) -> tuple[mx.array, mx.array]:
    """Outputs `[n, bins, channels]` that `before` and `new` rows complete, and the one or two rows to keep."""
    rows = mx.concatenate([before, new])
    outputs = (len(rows) - 1) // 2
    if outputs == 0:
        channels, bins = layer.conv.weight.shape[0], -(-rows.shape[1] // 2)
        return mx.zeros((0, bins, channels), rows.dtype), rows
    return layer(rows), rows[2 * outputs :]
