"""A chat in, `ModelInputs` out: the one object that knows a checkpoint's tokenizer, chat template and input sizes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Config
from ..errors import CheckpointError, ContextLengthError, InputError
from ..log_mel import log_mel, soft_token_count
from . import images, video
from .audio import load_audio
from .cached_source import CachedSource
from .chat import ChatTemplate
from .messages import MEDIA, Medium, Messages, plain_tools, read_messages
from .settings import read_generation_config, read_settings
from .sources import source_name
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

    from ..model.inputs import ImagePatches, ModelInputs

_NOUNS = {"image": "picture", "audio": "sound", "video": "video"}


class Processor:
    """Turns messages into token ids and features for one checkpoint.

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
        video_frames: int = video.FRAMES,
        video_frame_tokens: int = video.TOKENS_PER_FRAME,
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
        settings = read_settings(folder)
        return cls(
            tokenizer,
            config,
            ChatTemplate.from_folder(folder),
            generation_config,
            video_frames=settings.video_frames,
            video_frame_tokens=settings.video_frame_tokens,
        )

    def __call__(
        self,
        messages: Messages,
        thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        image_tokens: int = 280,
        add_generation_prompt: bool = True,
    ) -> ModelInputs:
        """Messages → ids and features.

        Control tokens that a user or a tool spells out are read as text; in system and assistant messages they count.

        Args:
            messages: a string (one user turn), or the Hugging Face chat list: `{"role": …, "content": …}` with a
                string or parts `{"type": T, T: …}`, where T is text, image, audio or video.
                A picture is what `images.load_image` takes, a sound what `audio.load_audio`, a video what
                `video.load_video`. In a `CachedSource` it is prepared once for all prompts that it is in.
            thinking: let the model think before it answers.
            tools: JSON descriptions of functions the model may call.
            image_tokens: the most soft tokens a picture may take: 70, 140, 280, 560 or 1120.
            add_generation_prompt: end with the opening of the model's turn.

        Raises:
            InputError: the messages, or a picture, sound or video in them, cannot be used.
            ContextLengthError: the prompt is longer than the model's context.
            ValueError: `image_tokens` or `tools` is not valid.
        """
        images.check_image_tokens(image_tokens)
        text, media = self._rendered(messages, thinking, tools, add_generation_prompt)
        pictures: list[ImagePatches] = []
        log_mels: list[mx.array] = []
        waiting = {kind: iter([medium.source for medium in media if medium.kind == kind]) for kind in MEDIA}

        def expanded(placeholder: re.Match[str]) -> str:
            kind = self._placeholder_kinds[placeholder.group()]
            return self._expanded(kind, next(waiting[kind]), image_tokens, pictures, log_mels)

        text = self._placeholder.sub(expanded, text)
        ids = self.tokenizer.encode(text)
        limit = self.config.text.max_position_embeddings
        if len(ids) > limit:
            raise ContextLengthError(f"the prompt has {len(ids):,} tokens, the model's context {limit:,}: shorten it")
        if ids and max(ids) >= self.config.text.vocab_size:
            token = self.tokenizer.decode([max(ids)])
            raise InputError(f"the prompt spells {token!r}, a token the model was never given: write it otherwise")

        import mlx.core as mx

        from ..model.inputs import ModelInputs

        return ModelInputs(mx.array([ids], mx.int32), tuple(pictures), tuple(log_mels))

    def render(
        self,
        messages: Messages,
        thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt as text, with one placeholder per picture, sound and video; no file is opened.

        Control tokens to be read as text stand between the marks of `Tokenizer.literal`.

        Raises:
            InputError: the messages cannot be used.
        """
        return self._rendered(messages, thinking, tools, add_generation_prompt)[0]

    def _rendered(
        self,
        messages: Messages,
        thinking: bool,
        tools: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
    ) -> tuple[str, list[Medium]]:
        plain, media = read_messages(messages, add_generation_prompt, self.tokenizer.literal)
        if self._template is None:
            raise CheckpointError(
                "this checkpoint has no chat template: use an instruction-tuned one (its name ends in -it)"
            )
        for medium in media:
            self._check_sense(medium.kind)
        text = self._template.render(
            plain,
            tools=plain_tools(tools),
            add_generation_prompt=add_generation_prompt,
            enable_thinking=thinking,
            special_tokens=self.tokenizer.special_tokens,
        )
        self._check_placeholders(text, media)
        return text, media

    def _check_sense(self, kind: str) -> None:
        if kind == "audio" and self.config.audio is None:
            raise InputError("this model does not hear: use e2b or e4b for sound")
        if kind in ("image", "video") and self.config.vision is None:
            raise InputError(
                f"this checkpoint has no vision tower and cannot be given a {_NOUNS[kind]}: use another one"
            )

    def _check_placeholders(self, text: str, media: Sequence[Medium]) -> None:
        """One placeholder for each medium: more means that somebody wrote one into a text."""
        found = Counter(self._placeholder_kinds[token] for token in self._placeholder.findall(text))
        given = Counter(medium.kind for medium in media)
        for token, kind in self._placeholder_kinds.items():
            if found[kind] > given[kind]:
                raise InputError(
                    f"the text has {found[kind]} {token} for {given[kind]} {_NOUNS[kind]}(s): "
                    f"take {token} out of the text, its place is marked by the part itself"
                )
            if found[kind] < given[kind]:
                raise InputError(
                    f"the chat template has room for {found[kind]} of {given[kind]} {_NOUNS[kind]}(s): "
                    "put them into a user message"
                )

    @cached_property
    def _placeholder_kinds(self) -> dict[str, str]:
        return {self.tokenizer.special_tokens[f"{kind}_token"]: kind for kind in MEDIA}

    @cached_property
    def _placeholder(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(token) for token in self._placeholder_kinds))

    def _expanded(
        self, kind: str, source: Any, image_tokens: int, pictures: list[ImagePatches], log_mels: list[mx.array]
    ) -> str:
        """The text that stands for one medium, one placeholder per soft token; its features join the lists."""
        medium = source if isinstance(source, CachedSource) else CachedSource(source)
        if kind == "audio":
            import mlx.core as mx

            features, count = medium.prepared(kind, _sound)
            log_mels.append(mx.array(features))
            return self._soft_tokens("boa_token", "audio_token", count, "eoa_token")
        if kind == "image":
            shown = medium.prepared((kind, image_tokens), lambda source: _picture(source, image_tokens))
            return self._looked_at(shown, "image_token", pictures)
        frames, per_frame = self._video_frames, self._video_frame_tokens
        clip = medium.prepared((kind, frames, per_frame), lambda source: video.load_video(source, frames, per_frame))
        return " ".join(
            f"{video.clock(second)} {self._looked_at(frame, 'video_token', pictures)}"
            for second, frame in zip(clip.seconds, clip.frames, strict=True)
        )

    def _looked_at(self, picture: Image, token: str, pictures: list[ImagePatches]) -> str:
        pictures.append(cut := images.patches(picture))
        return self._soft_tokens("boi_token", token, cut.rows * cut.columns // images.POOLING**2, "eoi_token")

    def _soft_tokens(self, begin: str, token: str, count: int, end: str) -> str:
        names = self.tokenizer.special_tokens
        return f"{names[begin]}{names[token] * count}{names[end]}"


def _sound(source: Any) -> tuple[npt.NDArray[np.float32], int]:
    """The log-mel features of a sound, and its soft tokens."""
    samples = load_audio(source)
    return log_mel(samples), soft_token_count(len(samples))


def _picture(source: Any, image_tokens: int) -> Image:
    return images.resized(images.load_image(source), image_tokens, source_name(source, "picture"))
