"""Text ↔ token ids with a checkpoint's own tokenizer.json, and the names of its control tokens.

Chat turns and placeholders are put together elsewhere; this file only knows strings and ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import CheckpointError, InputError
from ..json_files import read_json_object
from .bpe import BPE
from .bpe_file import OtherKindError, read_bpe
from .other_tokenizers import OtherTokenizer
from .sources import reason

# How Gemma 4's tokenizer_config.json names the control tokens it ships; used where that file is silent.
_NAMED_TOKENS = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "video_token": "<|video|>",
}
_TURN_TOKENS = ("<|turn>", "<turn|>")

_MOST_BYTES = 128 << 20  # of tokenizer.json; Gemma's has 32 MB

# Unicode noncharacters: no text in any language needs them.
_LITERAL_START, _LITERAL_END = "\ufdd0", "\ufdd1"


class Tokenizer:
    """A checkpoint's tokenizer.

    Attributes:
        special_tokens: control tokens by the name tokenizer_config.json has for them, such as `image_token`; the chat
            template sees them under these names.
        eos_token_ids: ids that end a turn.
    """

    def __init__(
        self, tokenizer: BPE | OtherTokenizer, special_tokens: Mapping[str, str], eos_token_ids: Sequence[int]
    ) -> None:
        self._tokenizer = tokenizer
        self.special_tokens = dict(special_tokens)
        self.eos_token_ids = tuple(eos_token_ids)

    @classmethod
    def from_folder(cls, folder: Path, eos_token_id: int | Sequence[int] | None = None) -> Tokenizer:
        """Read tokenizer.json and, if there, tokenizer_config.json.

        Args:
            eos_token_id: what generation_config.json says; without it the end of text and the end of a turn.

        Raises:
            CheckpointError: tokenizer.json is missing or damaged.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: download the checkpoint again, with its tokenizer")
        if path.stat().st_size > _MOST_BYTES:
            raise CheckpointError(f"{path} is larger than {_MOST_BYTES >> 20} MiB: download it again")
        tokens = _NAMED_TOKENS | _named_tokens(read_json(folder / "tokenizer_config.json"))
        tokenizer: BPE | OtherTokenizer
        try:
            tokenizer = read_bpe(path, special=tokens.values())
        except OtherKindError:
            tokenizer = OtherTokenizer(path, special=tokens.values())
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({reason(error)})") from error
        if eos_token_id is None:
            ends = (tokenizer.token_to_id(token) for token in (tokens["eos_token"], "<turn|>"))
            eos_token_ids = [id_ for id_ in ends if id_ is not None]
        else:
            eos_token_ids = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)
        return cls(tokenizer, tokens, eos_token_ids)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, nothing added; control tokens spelled in it become their ids.

        Text inside `literal(...)` marks is encoded letter by letter, whatever it spells.

        Raises:
            InputError: the text holds half a character (a lone surrogate).
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the text is not valid Unicode ({reason(error)}): read it as UTF-8") from error
        # Splitting by the marks gives text at even places and marked tokens at odd ones.
        pieces = self._marked.split(text)
        ids = self._tokenizer.encode(pieces[0]).ids
        for marked, plain in zip(pieces[1::2], pieces[2::2], strict=True):
            ids += self._tokenizer.encode(marked, literal=True).ids
            ids += self._tokenizer.encode(plain).ids
        return ids

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Text of token ids; bytes that are no UTF-8 become �."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)

    @property
    def bpe(self) -> BPE | None:
        """Its tables, None if it is not of Gemma's kind."""
        return self._tokenizer if isinstance(self._tokenizer, BPE) else None

    def to_json(self) -> str:
        """The text of the tokenizer.json of one that is not of Gemma's kind."""
        if isinstance(self._tokenizer, BPE):
            raise TypeError("it has no library's form: see `bpe`")
        text: str = self._tokenizer.to_str()
        return text

    def token_id(self, token: str) -> int | None:
        """The id of one token, None if the vocabulary has none spelled so."""
        return self._tokenizer.token_to_id(token)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def literal(self, text: str) -> str:
        """`text` with every control token it spells marked as mere text, for `encode`.

        A person may ask what `<turn|>` means, and a tool may fetch a page that spells it: neither may end a turn.
        """
        return self._control.sub(rf"{_LITERAL_START}\g<0>{_LITERAL_END}", text)

    @cached_property
    def _marked(self) -> re.Pattern[str]:
        # A control token right between its marks and nothing longer: a stray mark in a text changes nothing.
        return re.compile(f"{_LITERAL_START}({self._control.pattern}){_LITERAL_END}")

    @cached_property
    def control_tokens(self) -> list[str]:
        """All tokens that tokenizer.json marks as special or tokenizer_config.json names, the longest first."""
        tokens = {token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special}
        tokens |= set(self.special_tokens.values())
        return sorted(tokens - {""}, key=lambda token: (-len(token), token))

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(token) for token in self.control_tokens))

    def check(self, config: Config) -> None:
        """Make sure the model and the tokenizer mean the same tokens.

        Raises:
            CheckpointError: control tokens the model needs are missing, or have other ids than in config.json.
        """
        needed: dict[str, int | None] = {self.special_tokens["bos_token"]: None}
        needed |= dict.fromkeys(_TURN_TOKENS)
        if config.vision is not None:
            names = {"boi_token": config.boi_token_id, "image_token": config.image_token_id}
            names |= {"eoi_token": config.eoi_token_id, "video_token": config.video_token_id}
            needed |= {self.special_tokens[name]: id_ for name, id_ in names.items()}
        if config.audio is not None:
            names = {"boa_token": config.boa_token_id, "audio_token": config.audio_token_id}
            names |= {"eoa_token": config.eoa_token_id}
            needed |= {self.special_tokens[name]: id_ for name, id_ in names.items()}
        missing = [token for token in needed if self.token_id(token) is None]
        if missing:
            raise CheckpointError(
                f"tokenizer.json lacks {', '.join(missing)}: use the tokenizer of a Gemma 4 checkpoint"
            )
        wrong = [
            f"{token} is {self.token_id(token)} in tokenizer.json and {id_} in config.json"
            for token, id_ in needed.items()
            if id_ is not None and self.token_id(token) != id_
        ]
        if wrong:
            raise CheckpointError(f"{'; '.join(wrong)}: use the tokenizer this model was made with")
        # More tokens than the model has rows, a few that somebody added, do no harm until a text spells one of them.
        beyond = [token for token in needed if (self.token_id(token) or 0) >= config.text.vocab_size]
        if beyond:
            raise CheckpointError(
                f"{', '.join(beyond)}: beyond the {config.text.vocab_size} tokens of the model: "
                "use the tokenizer this model was made with"
            )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file a checkpoint may leave out; {} if it does.

    Raises:
        CheckpointError: the file is there but is not a JSON object.
    """
    return read_json_object(path) if path.is_file() else {}


def _named_tokens(tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """Every `…_token` of tokenizer_config.json; a token is a string or an object with its `content`."""
    nested = tokenizer_config.get("model_specific_special_tokens")
    entries = {**(nested if isinstance(nested, dict) else {}), **tokenizer_config}
    tokens: dict[str, str] = {}
    for name, token in entries.items():
        content = token.get("content") if isinstance(token, dict) else token
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    return tokens
