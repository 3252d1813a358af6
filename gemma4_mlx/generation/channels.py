"""Tells a model's answer from its thoughts and its tool calls while the text is still coming in.

Gemma 4 writes `<|channel>thought`, a line break, the thought, `<channel|>`, then the answer; a tool call is
`<|tool_call>call:name{…}<tool_call|>`. Markers are looked for in text, not in ids, so that they are found as well when
a tokenizer spells them in pieces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .held_back import partial_suffix
from .tool_calls import STRING_DELIMITER, ToolCall, parse_tool_call

CHANNEL_OPEN, CHANNEL_CLOSE = "<|channel>", "<channel|>"
CALL_OPEN, CALL_CLOSE = "<|tool_call>", "<tool_call|>"
MARKERS = (CHANNEL_OPEN, CHANNEL_CLOSE, CALL_OPEN, CALL_CLOSE, STRING_DELIMITER)

_ANY_MARKER = re.compile("|".join(map(re.escape, MARKERS)))
_THOUGHT_HEADER = "thought"

Kind = Literal["answer", "thought", "tool_call"]


@dataclass(frozen=True)
class Chunk:
    """A piece of what the model writes.

    Attributes:
        text: the next characters, without any marker; of a tool call the whole call as written, `call:name{…}`.
        kind: where they belong.
        tool_call: the call, parsed; None unless `kind` is "tool_call".
    """

    text: str
    kind: Kind
    tool_call: ToolCall | None = None


class ChannelParser:
    """Text pieces in, chunks out; how the text was cut into pieces makes no difference to what comes out.

    - A thought that never closes stays a thought to the end: nothing of it is shown as answer, nothing is lost. An
      answer that the model wrote into it is found in the thought.
    - A thought of nothing but white space is dropped; white space round a thought, and after a closing marker, too
      (Hugging Face's response template for Gemma 4 does the same).
    - A channel by another name than "thought" is answer text, its name included.
    - A tool call within a thought, or a second call before the first is closed, closes what was open.
    - A call becomes a `tool_call` chunk when it parses, closed or not; otherwise its text is answer text.
    - Markers out of place vanish; `<|"|>` outside a call is a plain quotation mark.
    """

    def __init__(self) -> None:
        self._state: Literal["answer", "thought", "header", "call"] = "answer"
        self._unread = ""  # may be the start of a marker
        self._gathered = ""  # of the channel's name
        self._call: list[str] = []
        self._thought_space = ""  # white space that counts only if more of the thought follows
        self._thought_begun = False
        self._any_thought = False
        self._skip_space = False
        self._chunks: list[Chunk] = []

    def feed(self, text: str) -> list[Chunk]:
        """Take the next piece of text; return what has become certain, oldest first."""
        text = self._unread + text
        start = 0
        for marker in _ANY_MARKER.finditer(text):
            self._text(text[start : marker.start()])
            self._marker(marker[0])
            start = marker.end()
        end = len(text) - partial_suffix(text[start:], MARKERS)
        self._text(text[start:end])
        self._unread = text[end:]
        return self._take_chunks()

    def finish(self) -> list[Chunk]:
        """The rest, when no more text comes."""
        self._text(self._unread)
        self._unread = ""
        if self._state == "call":
            self._end_call()
        # A header cut off in the middle of its name is part of a marker, not of an answer.
        return self._take_chunks()

    def _take_chunks(self) -> list[Chunk]:
        chunks, self._chunks = self._chunks, []
        return chunks

    def _text(self, text: str) -> None:
        if not text:
            return
        match self._state:
            case "answer":
                self._answer(text)
            case "thought":
                self._thought(text)
            case "call":
                self._call.append(text)
            case "header":
                self._header(text)

    def _marker(self, marker: str) -> None:
        if self._state == "header":
            self._end_header()
        if marker == STRING_DELIMITER:
            self._text(marker if self._state == "call" else '"')
            return
        if self._state == "call" and marker != CHANNEL_CLOSE:
            self._end_call()
        if marker == CHANNEL_OPEN:
            self._state = "header"
            self._gathered = ""
        elif marker == CALL_OPEN:
            self._state = "call"
        elif marker == CHANNEL_CLOSE and self._state == "thought":
            self._state = "answer"
            self._skip_space = True

    def _answer(self, text: str) -> None:
        if self._skip_space:
            text = text.lstrip()
            self._skip_space = not text
        self._emit(text, "answer")

    def _thought(self, text: str) -> None:
        if not self._thought_begun:
            text = text.lstrip()
            self._thought_begun = bool(text)
            self._any_thought |= self._thought_begun
        text = self._thought_space + text
        kept = text.rstrip()
        self._thought_space = text[len(kept) :]
        self._emit(kept, "thought")

    def _header(self, text: str) -> None:
        self._gathered += text
        name = self._gathered
        if _THOUGHT_HEADER.startswith(name):
            return
        if name.startswith(_THOUGHT_HEADER) and name[len(_THOUGHT_HEADER)].isspace():
            self._begin_thought()
            self._thought(name[len(_THOUGHT_HEADER) :])
        else:
            self._state = "answer"
            self._answer(name)

    def _end_header(self) -> None:
        """A marker follows what has been gathered of a channel's name."""
        if self._gathered == _THOUGHT_HEADER:
            self._begin_thought()
        else:
            self._state = "answer"
            self._answer(self._gathered)

    def _begin_thought(self) -> None:
        self._state = "thought"
        # A further thought starts a paragraph of its own.
        self._thought_space = "\n\n" if self._any_thought else ""
        self._thought_begun = False

    def _end_call(self) -> None:
        text = "".join(self._call)
        self._call = []
        self._state = "answer"
        readable = text.replace(STRING_DELIMITER, '"')
        call = parse_tool_call(text)
        if call is None:
            self._answer(readable)
        else:
            self._emit(readable, "tool_call", call)
            self._skip_space = True

    def _emit(self, text: str, kind: Kind, call: ToolCall | None = None) -> None:
        if not text:
            return
        last = self._chunks[-1] if self._chunks else None
        if last is not None and last.kind == kind != "tool_call":
            self._chunks[-1] = Chunk(last.text + text, kind)
        else:
            self._chunks.append(Chunk(text, kind, call))
