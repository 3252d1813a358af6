"""Gemma 4, whole: the decoder, the towers a size has, and the place where their soft tokens meet the words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..config import AudioConfig, Config
from ..config_unified import UnifiedVisionConfig
from ..device_errors import device_errors
from ..errors import InputError
from .audio_encoder import AudioTower
from .audio_stream import AudioStream, ConformerStream
from .cache import Caches
from .conformer_step import ConformerStep
from .decoder import Decoder, DecoderLayer
from .inputs import ModelInputs, audio_positions, check_ids, image_blocks, vision_positions
from .layer_cache import KVCache
from .layers import SoftTokenProjection
from .shown_names import OwnNames
from .step import DecodeStep, Pending
from .turns import Turns, builds_in_a_turn
from .unified_audio import FrameStream, project_frames
from .unified_vision import VisionEmbedder
from .vision import VisionTower
from .weights import read_weights


class Gemma4(nn.Module, metaclass=OwnNames):
    """A Gemma 4 of any size.

    Building one is free: weights are lazy until loaded or evaluated. Besides `ModelInputs` it takes plain ids, and with
    `make_cache`, `layers` and `model(ids, cache=cache)` it is a model to mlx-lm as well.

    Any number of threads may call it, and `generate` and everything else that takes it: they take turns, in the order
    in which they ask, and a turn is a piece of work, such as a token or 512 tokens of a prompt. What a call of the
    model itself returns is still to be computed, as always with MLX: evaluate it in the thread that called. A cache is
    written to by one answer at a time.

    Args:
        config: from `Config.from_dict`.

    Attributes:
        turns: `with model.turns:` has the model to itself, and computes where caches and half-written answers of any
            thread can be gone on with.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.turns = Turns()
        self._as_pad = partial(_as_pad, pad=config.pad_token_id, placeholders=config.placeholder_ids)
        self._decode_step: DecodeStep | None = None  # it must not know this model: nothing would ever free the two
        self._conformer_step: ConformerStep | None = None
        self._parts_read: set[str] = set()
        hidden = config.text.hidden_size
        self.language_model = Decoder(config.text)
        if config.vision is not None:
            if isinstance(config.vision, UnifiedVisionConfig):
                self.vision_embedder = VisionEmbedder(config.vision)
            else:
                self.vision_tower = VisionTower(config.vision)
            self.embed_vision = SoftTokenProjection(config.vision.hidden_size, hidden, config.vision.rms_norm_eps)
        if config.audio is not None:
            if isinstance(config.audio, AudioConfig):
                self.audio_tower = AudioTower(config.audio)
            self.embed_audio = SoftTokenProjection(config.audio.output_proj_dims, hidden, config.audio.rms_norm_eps)

    @property
    def layers(self) -> list[DecoderLayer]:
        """The decoder's, first to last."""
        return self.language_model.layers

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *self, *(name for name in vars(self) if not name.startswith("_"))})

    def __repr__(self) -> str:
        pictures, sound = ", pictures" * (self.config.vision is not None), ", sound" * (self.config.audio is not None)
        text = self.config.text
        return f"Gemma4({text.num_hidden_layers} layers, {text.hidden_size} wide: text{pictures}{sound})"

    @property
    def context_length(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.config.text.max_position_embeddings

    def make_cache(self, kv_bits: int | None = None) -> Caches:
        """An empty cache for one sequence or a batch of equally long ones.

        Args:
            kv_bits: 8 or 4 pack the keys and values of full-attention layers, which are what grows with the context;
                None keeps them whole.

        Raises:
            ValueError: other bits.
        """
        if kv_bits not in (None, 4, 8):
            raise ValueError(f"kv_bits must be 8, 4 or None, not {kv_bits!r}")
        return self.language_model.make_cache(kv_bits)

    @builds_in_a_turn
    def __call__(
        self,
        inputs: ModelInputs | mx.array,
        cache: Sequence[KVCache] | None = None,
        last_only: bool = False,
        per_layer_rows: mx.array | None = None,
    ) -> mx.array:
        """Logits of the next token.

        Args:
            inputs: a prompt, a piece of one (`split_inputs`), or plain ids int `[B, L]`. A single id a sequence is not
                checked against the vocabulary: mlx-lm's loop hands in ids still being drawn, and would have to wait.
            cache: from `make_cache`; what it already holds comes before `inputs`, and `inputs` are added to it.
            last_only: only the last position's logits: the fast path for prompts.
            per_layer_rows: of these inputs, where the method of that name has read them already.

        Returns:
            float32 `[B, L, vocab]`, with `last_only` `[B, 1, vocab]`.

        Raises:
            ValueError: no tokens; ids outside the vocabulary; placeholders and soft tokens differ in number; or
                pictures or sound for more than one sequence.
            InputError: pictures or sound for a size that has no such tower.
        """
        return self.language_model.logits(self.hidden_states(inputs, cache, last_only, per_layer_rows))

    @builds_in_a_turn
    def hidden_states(
        self,
        inputs: ModelInputs | mx.array,
        cache: Sequence[KVCache] | None = None,
        last_only: bool = False,
        per_layer_rows: mx.array | None = None,
    ) -> mx.array:
        """What the model makes of each position, behind the last layer and the last norm: what logits are made from.

        transformers calls it `hidden_states[-1]`, with `output_hidden_states=True`. A text's embedding is, by custom,
        the mean over its positions, or the last one.

        Args, Raises: as for a call.

        Returns:
            `[B, L, hidden_size]`, with `last_only` `[B, 1, hidden_size]`, in the precision that the model computes in.
        """
        cache = self.make_cache() if cache is None else cache
        if not isinstance(inputs, ModelInputs):
            inputs = ModelInputs(inputs if isinstance(inputs, mx.array) else mx.array(inputs))
        if inputs.input_ids.ndim != 2 or inputs.input_ids.size == 0:
            raise ValueError(f"ids must be [batch, length] and not empty, their shape is {inputs.input_ids.shape}")
        if len(inputs.input_ids) > 1 and (inputs.images or inputs.sounds):
            raise ValueError("pictures and sound are read one sequence at a time: call the model once for each prompt")
        if inputs.input_ids.shape[1] > 1:
            check_ids(np.array(inputs.input_ids), self.config.text.vocab_size)
        # A placeholder stands for the pad id wherever no soft token takes its place: in the per-layer table, and where
        # a model writes one itself.
        ids = self._as_pad(inputs.input_ids)
        embeddings, blocks = self._embed(ids, inputs)
        decoder = self.language_model
        rows = decoder.per_layer_rows(ids) if per_layer_rows is None else per_layer_rows
        per_layer_inputs = decoder.per_layer_inputs(rows, embeddings)
        return decoder(embeddings, per_layer_inputs, cache, blocks, last_only)

    def per_layer_rows(self, inputs: ModelInputs) -> mx.array | None:
        """Rows of the per-layer table for `inputs`, which a table on disk reads at once; None: a size without one."""
        return self.language_model.per_layer_rows(self._as_pad(inputs.input_ids))

    @builds_in_a_turn
    def step(self, ids: mx.array, cache: Sequence[KVCache]) -> mx.array:
        """`model(ids, cache=cache)` for one token a sequence, int `[B, 1]`, in a compiled graph (see `DecodeStep`).

        The cache holds at least one token (ValueError). Returns float32 `[B, 1, vocab]`.
        """
        return self._step()(ids, cache)

    @builds_in_a_turn
    def step_ahead(self, ids: mx.array, cache: Sequence[KVCache], padding: mx.array | None = None) -> Pending:
        """`step` for ids that are still being computed; see `DecodeStep.ahead`."""
        return self._step().ahead(ids, cache, padding)

    def _step(self) -> DecodeStep:
        if self._decode_step is None:
            self._decode_step = DecodeStep(self.language_model, self._as_pad)
        return self._decode_step

    @device_errors()
    @builds_in_a_turn
    def encode_images(self, inputs: ModelInputs) -> list[mx.array]:
        """Soft tokens of each picture and video frame: `[rows * columns / 9, hidden]`, in order of appearance."""
        if not inputs.images:
            return []
        if self.config.vision is None:
            raise InputError("this checkpoint does not see: choose one that does, such as e2b")
        self._read_first("vision_embedder", "vision_tower", "embed_vision")
        eyes = self.vision_embedder if isinstance(self.config.vision, UnifiedVisionConfig) else self.vision_tower
        return [image if isinstance(image, mx.array) else self.embed_vision(eyes(image)) for image in inputs.images]

    @device_errors()
    @builds_in_a_turn
    def encode_audio(self, inputs: ModelInputs) -> list[mx.array]:
        """Soft tokens of each clip, `[tokens, hidden]`, 40 ms apart, in order of appearance."""
        if not inputs.sounds:
            return []
        if self.config.audio is None:
            raise InputError("this checkpoint does not hear: choose e2b, e4b or 12b, which do")
        self._read_first("audio_tower", "embed_audio")
        if isinstance(self.config.audio, AudioConfig):
            return [self.embed_audio(self.audio_tower(log_mel)) for log_mel in inputs.sounds]
        dtype = self.language_model.norm.weight.dtype
        return [project_frames(frames.astype(dtype), self.embed_audio) for frames in inputs.sounds]

    @device_errors()
    def audio_stream(self) -> AudioStream:
        """An encoder for sound that is still coming in: `feed` and `finish` give what `encode_audio` gives at once.

        Raises:
            InputError: this size does not hear.
        """
        audio = self.config.audio
        if audio is None:
            raise InputError("this checkpoint does not hear: choose e2b, e4b or 12b, which do")
        with self.turns:
            self._read_first("audio_tower", "embed_audio")
            if isinstance(audio, AudioConfig):
                if self._conformer_step is None:
                    self._conformer_step = ConformerStep(self.audio_tower)
                return ConformerStream(self.audio_tower, self._conformer_step, self.embed_audio, self.turns)
            dtype = self.language_model.norm.weight.dtype
            return FrameStream(self.embed_audio, audio.samples_per_token, dtype, self.turns)

    def _read_first(self, *parts: str) -> None:
        """Read the weights of towers that are used for the first time; see `weights`."""
        for part in parts:
            if part in self and part not in self._parts_read:
                read_weights(self[part])
                self._parts_read.add(part)

    @builds_in_a_turn
    def append_soft_tokens(self, soft_tokens: mx.array, cache: Sequence[KVCache]) -> None:
        """Add the next soft tokens of a clip to `cache`, as if their placeholders had been read with the clip.

        Only sound can be read in parts: its tokens are plain causal in every size that hears.

        Args:
            soft_tokens: `[k, hidden]`, k at least 1, as `encode_audio` and `audio_stream` give them.
            cache: from `make_cache`; it holds the prompt up to the clip and the clip up to here.
        """
        ids = mx.full((1, len(soft_tokens)), self.config.pad_token_id, mx.int32)
        embeddings = soft_tokens[None].astype(self.language_model.embed(ids[:, :1]).dtype)
        decoder = self.language_model
        per_layer_inputs = decoder.per_layer_inputs(decoder.per_layer_rows(ids), embeddings)
        # Only the cache is wanted. The hidden states are never computed.
        decoder(embeddings, per_layer_inputs, cache, last_only=True)

    def _embed(self, ids: mx.array, inputs: ModelInputs) -> tuple[mx.array, np.ndarray | None]:
        """Embeddings of `ids` with soft tokens in their places, and which positions are one image."""
        embeddings = self.language_model.embed(ids)
        if not inputs.images and not inputs.sounds:
            return embeddings, None
        host_ids = np.array(inputs.input_ids)[0]
        _fill(embeddings, vision_positions(host_ids, self.config), self.encode_images(inputs))
        _fill(embeddings, audio_positions(host_ids, self.config), self.encode_audio(inputs))
        see_each_other = inputs.images and self.config.text.bidirectional_images
        return embeddings, image_blocks(host_ids, self.config) if see_each_other else None


def _fill(embeddings: mx.array, positions: np.ndarray, soft_tokens: Sequence[mx.array]) -> None:
    """Put soft tokens, `[n, hidden]` each, into `embeddings` `[1, L, hidden]` at `positions`, in order."""
    count = sum(len(tokens) for tokens in soft_tokens)
    if count != len(positions):
        raise ValueError(f"{len(positions)} placeholders in the ids, but {count} soft tokens to fill them")
    if soft_tokens:
        embeddings[:, mx.array(positions)] = mx.concatenate([*soft_tokens]).astype(embeddings.dtype)


def _as_pad(ids: Any, pad: int, placeholders: tuple[int, int, int]) -> Any:
    """Ids of any shape, on the device or on the host → the same with the pad id in place of every placeholder."""
    if isinstance(ids, np.ndarray):
        return np.where(np.isin(ids, placeholders), pad, ids)
    return _as_pad_on_device(ids, pad, *placeholders)


@partial(mx.compile, shapeless=True)
def _as_pad_on_device(ids: mx.array, pad: int, image: int, video: int, audio: int) -> mx.array:
    return mx.where((ids == image) | (ids == video) | (ids == audio), pad, ids)
