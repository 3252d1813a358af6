"""Token ids → text, one id at a time, without ever showing half a character.

It rests on how Gemma's tokenizers decode: every piece by itself (▁ is a space, at the start as well), except that
byte tokens (`<0xE2>`) in a row are put together and read as UTF-8.
"""

from __future__ import annotations

from typing import Protocol


class TokenDecoder(Protocol):
    """The part of `processing.tokenizer.Tokenizer` needed here."""

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str: ...

    def token_id(self, string: str) -> int | None: ...


class Detokenizer:
    """Feeds on ids; the pieces it returns add up to what the tokenizer makes of all the ids at once.

    Special tokens write nothing. Bytes wait for the first id that is none: only then does the tokenizer's own rule say
    whether they are text (one broken byte turns its whole row into U+FFFD).
    """

    def __init__(self, tokenizer: TokenDecoder) -> None:
        self._tokenizer = tokenizer
        self._byte_of = {tokenizer.token_id(f"<0x{byte:02X}>"): byte for byte in range(256)}
        self._text_of: dict[int, str] = {}
        self._bytes = bytearray()

    def feed(self, token: int) -> str:
        """Take the next id; return the text that has become certain, often empty while a character is incomplete."""
        if (byte := self._byte_of.get(token)) is not None:
            self._bytes.append(byte)
            return ""
        text = self._text_of.get(token)
        if text is None:
            text = self._text_of[token] = self._tokenizer.decode([token], skip_special_tokens=True)
        return self.flush() + text if text else ""

    def flush(self) -> str:
        """The text of the bytes still waiting, when no more ids come."""
        if not self._bytes:
            return ""
        try:
            text = self._bytes.decode("utf-8")
        except UnicodeDecodeError:
            text = "\N{REPLACEMENT CHARACTER}" * len(self._bytes)
        self._bytes.clear()
        return text
