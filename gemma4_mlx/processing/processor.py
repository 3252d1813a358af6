"""A chat in, `ModelInputs` out: the one object that knows a checkpoint's tokenizer, chat template and input sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..config import DEFAULT_IMAGE_TOKENS, AudioConfig, Config
from ..config_unified import UnifiedAudioConfig
from ..errors import CheckpointError, ContextLengthError, InputError
from ..model.inputs import ImagePatches, ModelInputs
from ..sound_features import shortest_clip, soft_token_count, sound_features
from .audio import load_audio
from .cached_source import CachedSource
from .chat import ChatTemplate
from .content import MEDIA, Medium
from .images import POOLING, check_image_tokens, load_image, patches, resized, token_grid
from .messages import Messages, read_messages
from .prompt_text import PromptWriter, media_in
from .settings import read_generation_config, read_settings
from .sources import source_name
from .stand_ins import Piece
from .tokenizer import Tokenizer
from .tool_descriptions import read_tools
from .video import FRAMES, TOKENS_PER_FRAME, VideoSize, clock, load_video, sample_indices

if TYPE_CHECKING:
    from PIL.Image import Image

# Ends of the model's turn: it has said all, or it waits for a tool's result.
_END_OF_TURN = ("<turn|>", "<|tool_response>")
_NOUNS = {"image": "picture", "audio": "sound", "video": "video"}


@dataclass(frozen=True)
class _Prepared:
    """A picture, sound or video as the model is given it.

    Attributes:
        text: what stands for it in the prompt, one placeholder per soft token.
        images: its pictures: one, or a video's frames.
        sounds: its log-mel frames, or for the 12B its samples, if it is a sound.
    """

    text: str
    images: tuple[ImagePatches, ...] = ()
    sounds: tuple[mx.array, ...] = ()


class Processor:
    """Turns messages into token ids and features for one checkpoint. Any number of threads may use it at once.

    Attributes:
        tokenizer: the checkpoint's tokenizer.
        config: the model's configuration.
        generation_config: generation_config.json as a dict; {} if the checkpoint has none.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: Config,
        template: ChatTemplate | None = None,
        generation_config: Mapping[str, Any] | None = None,
        video_frames: int = FRAMES,
        video_frame_tokens: int = TOKENS_PER_FRAME,
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.generation_config = dict(generation_config or {})
        self._template = template
        self._video_frames = video_frames
        self._video_frame_tokens = video_frame_tokens

    @classmethod
    def from_folder(cls, folder: Path | str, config: Config) -> Processor:
        """Read what a checkpoint's folder has beside its weights. Only tokenizer.json must be there.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the model; the file is named.
        """
        folder = Path(folder)
        generation_config = read_generation_config(folder)
        tokenizer = Tokenizer.from_folder(folder, generation_config.get("eos_token_id"))
        tokenizer.check(config)
        settings = read_settings(folder, config)
        return cls(
            tokenizer,
            config,
            ChatTemplate.from_folder(folder),
            generation_config,
            video_frames=settings.video_frames,
            video_frame_tokens=settings.video_frame_tokens,
        )

    @property
    def end_of_turn_ids(self) -> frozenset[int]:
        """Ids that end an answer: `generation_config.json`'s, the tokenizer's, and the chat format's own."""
        configured = self.generation_config.get("eos_token_id") or []
        ids = set(configured if isinstance(configured, list) else [configured])
        ids.update(self.tokenizer.eos_token_ids)
        ids.update(i for string in _END_OF_TURN if (i := self.tokenizer.token_id(string)) is not None)
        return frozenset(ids)

    def __repr__(self) -> str:
        return f"Processor({self.config.text.vocab_size:,} tokens)"

    def __call__(
        self,
        messages: Messages,
        thinking: bool = False,
        tools: Sequence[Any] | None = None,
        image_tokens: int = DEFAULT_IMAGE_TOKENS,
        add_generation_prompt: bool = True,
    ) -> ModelInputs:
        """Messages → ids and features.

        Control tokens that anything in messages or tools spells out are read as text.

        Args:
            messages: a string (one user turn), or the Hugging Face chat list: `{"role": …, "content": …}` with a
                string or parts `{"type": T, T: …}`, where T is text, image, audio or video. The forms of OpenAI and
                Anthropic are read too, and turns in any order.
                A picture is what `images.load_image` takes, a sound what `audio.load_audio`, a video what
                `video.load_video`. In a `CachedSource` it is prepared once for all prompts that it is in.
            thinking: let the model think before it answers.
            tools: what the model may call: Python functions with docstrings and types, or JSON descriptions in the form
                of OpenAI, MCP or Anthropic.
            image_tokens: the most soft tokens a picture may take: 70, 140, 280, 560 or 1120.
            add_generation_prompt: end with the opening of the model's turn.

        Raises:
            InputError: the messages, or a picture, sound or video in them, cannot be used.
            ContextLengthError: the prompt is longer than the model's context.
            ValueError: `image_tokens` or `tools` is not valid.
        """
        check_image_tokens(image_tokens)
        pieces, media = self._written(messages, thinking, tools, add_generation_prompt)
        waiting = {kind: iter([medium for medium in media if medium.kind == kind]) for kind in MEDIA}
        shown = [
            next(waiting[piece.medium]) for piece in pieces if piece.medium is not None
        ]  # as the template has them
        prepared = [self._prepared(medium, image_tokens) for medium in shown]
        texts = iter([medium.text for medium in prepared])
        prompt = "".join(piece.text if piece.medium is None else next(texts) for piece in pieces)
        ids = self.tokenizer.encode(prompt)
        self.check_length(len(ids))
        if ids and max(ids) >= self.config.text.vocab_size:
            token = self.tokenizer.decode([max(ids)])
            raise InputError(f"the prompt spells {token!r}, a token the model was never given: write it otherwise")
        return ModelInputs(
            mx.array([ids], mx.int32),
            tuple(image for medium in prepared for image in medium.images),
            tuple(features for medium in prepared for features in medium.sounds),
            self.end_of_turn_ids,
        )

    def check_length(self, tokens: int) -> None:
        """Raise ContextLengthError if a prompt of `tokens` tokens is longer than the model's context."""
        limit = self.config.text.max_position_embeddings
        if tokens > limit:
            message = f"the prompt has {tokens:,} tokens, the model's context {limit:,}: shorten it"
            raise ContextLengthError(message, tokens, limit)

    def count_tokens(
        self,
        messages: Messages,
        thinking: bool = False,
        tools: Sequence[Any] | None = None,
        image_tokens: int = DEFAULT_IMAGE_TOKENS,
    ) -> int:
        """How many tokens a prompt has, pictures and sound included. Arguments and errors are those of a call."""
        return int(self(messages, thinking, tools, image_tokens).input_ids.shape[1])

    def video_tokens(self, size: VideoSize) -> int:
        """Tokens that a video of this size takes of a prompt, the borders and times of its frames among them.

        Raises:
            InputError: it is so narrow that a frame would vanish.
        """
        rows, columns = token_grid(size.height, size.width, self._video_frame_tokens, "the video")
        numbers = sample_indices(size.frames, self._video_frames)
        seconds = [number * size.seconds / size.frames for number in numbers]
        return len(self.tokenizer.encode(self._video_text(seconds, rows * columns)))

    def render(
        self,
        messages: Messages,
        thinking: bool = False,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt as text, with one placeholder per picture, sound and video; no file is opened.

        Control tokens to be read as text stand between the marks of `Tokenizer.literal`.

        Raises:
            InputError: the messages cannot be used.
        """
        pieces, _ = self._written(messages, thinking, tools, add_generation_prompt)
        return "".join(piece.text for piece in pieces)

    def _written(
        self,
        messages: Messages,
        thinking: bool,
        tools: Sequence[Any] | None,
        add_generation_prompt: bool,
    ) -> tuple[list[Piece], list[Medium]]:
        conversation = read_messages(messages, add_generation_prompt)
        descriptions = read_tools(tools)
        media = media_in(conversation)
        for medium in media:
            self._check_sense(medium.kind)
        return self._writer.write(conversation, descriptions, add_generation_prompt, thinking), media

    @cached_property
    def _writer(self) -> PromptWriter:
        if self._template is None:
            raise CheckpointError(
                "this checkpoint has no chat template: use an instruction-tuned one (its name ends in -it)"
            )
        return PromptWriter(self._template, self.tokenizer)

    def _check_sense(self, kind: str) -> None:
        if kind == "audio" and self.config.audio is None:
            raise InputError("this checkpoint does not hear: use e2b, e4b or 12b for sound")
        if kind in ("image", "video") and self.config.vision is None:
            raise InputError(f"this checkpoint does not see and cannot be given a {_NOUNS[kind]}: use another one")

    def _prepared(self, medium: Medium, image_tokens: int) -> _Prepared:
        source = medium.source if isinstance(medium.source, CachedSource) else CachedSource(medium.source)
        if medium.kind == "audio":
            audio = self.config.audio
            assert audio is not None  # see `_check_sense`
            features, count = source.prepared(("audio", audio), lambda source: _sound(source, audio))
            return _Prepared(
                self._soft_tokens("boa_token", "audio_token", count, "eoa_token"), (), (mx.array(features),)
            )
        if medium.kind == "image":
            picture = source.prepared(("image", image_tokens), lambda source: _picture(source, image_tokens))
            cut = patches(picture)
            return _Prepared(self._soft_tokens("boi_token", "image_token", _count(cut), "eoi_token"), (cut,))
        frames, most = self._video_frames, self._video_frame_tokens
        clip = source.prepared(("video", frames, most), lambda source: load_video(source, frames, most))
        cuts = tuple(patches(frame) for frame in clip.frames)
        return _Prepared(self._video_text(clip.seconds, _count(cuts[0])), cuts)

    def _video_text(self, seconds: Sequence[float], tokens_per_frame: int) -> str:
        frame = self._soft_tokens("boi_token", "video_token", tokens_per_frame, "eoi_token")
        return " ".join(f"{clock(second)} {frame}" for second in seconds)

    def _soft_tokens(self, begin: str, token: str, count: int, end: str) -> str:
        names = self.tokenizer.special_tokens
        return f"{names[begin]}{names[token] * count}{names[end]}"


def _count(image: ImagePatches) -> int:
    """Soft tokens of a picture."""
    return image.rows * image.columns // POOLING**2


def _sound(source: Any, audio: AudioConfig | UnifiedAudioConfig) -> tuple[npt.NDArray[np.float32], int]:
    """The features of a sound, and its soft tokens."""
    samples = load_audio(source, shortest_clip(audio))
    return sound_features(samples, audio), soft_token_count(len(samples), audio)


def _picture(source: Any, image_tokens: int) -> Image:
    return resized(load_image(source), image_tokens, source_name(source, "picture"))
