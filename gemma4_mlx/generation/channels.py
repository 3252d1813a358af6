"""Tells a model's answer from its thoughts and its tool calls while it is still being written.

Gemma 4 writes `<|channel>thought`, a line break, the thought, `<channel|>`, then the answer; a tool call is
`<|tool_call>call:name{…}<tool_call|>`. These markers are control tokens, and only as such do they count: a model that
quotes the notation letter by letter, from a page or when asked about it, has called nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .logprobs import TokenLogprob
from .loose_calls import Declared, read_calls
from .tool_calls import STRING_DELIMITER, CallText, ToolCall, parse_tool_call

CHANNEL_OPEN, CHANNEL_CLOSE = "<|channel>", "<channel|>"
CALL_OPEN, CALL_CLOSE = "<|tool_call>", "<tool_call|>"
MARKERS = (CHANNEL_OPEN, CHANNEL_CLOSE, CALL_OPEN, CALL_CLOSE, STRING_DELIMITER)
THOUGHT_HEADER = "thought"

Kind = Literal["answer", "thought", "tool_call"]


@dataclass(frozen=True)
class Chunk:
    """A piece of what the model writes.

    Attributes:
        text: the next characters, without any marker; of a tool call the whole call as written, `call:name{…}`.
        kind: where they belong.
        tool_call: the call, parsed; None unless `kind` is "tool_call".
        logprobs: of the tokens since the chunk before, where they were asked for. Markers are tokens too.
    """

    text: str
    kind: Kind
    tool_call: ToolCall | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class ChannelParser:
    """Text and control tokens in, chunks out; how the text is cut into pieces makes no difference to what comes out.

    - A thought that never closes stays a thought to the end: nothing of it is shown as answer, nothing is lost. An
      answer that the model wrote into it is found in the thought.
    - A thought of nothing but white space is dropped; white space round a thought, and after a closing marker, too
      (Hugging Face's response template for Gemma 4 does the same).
    - A channel by another name than "thought" is answer text, its name included.
    - A tool call within a thought, or a second call before the first is closed, closes what was open.
    - A thought within a call is a thought, and the call goes on after it; unless the call was whole already.
    - A call becomes a `tool_call` chunk when it can be read (`loose_calls.read_calls`), closed or not, and one for each
      when there are several in it; otherwise its text is answer text.
    - Markers out of place vanish; `<|"|>` outside a call is a plain quotation mark.

    Args:
        declared: the tools that the model was told of, by name, with the schemas of their parameters.

    Attributes:
        unread_calls: texts of calls that could not be read, or not in one way only.
    """

    def __init__(self, declared: Declared | None = None) -> None:
        self.unread_calls: list[str] = []
        self._declared = declared
        self._state: Literal["answer", "thought", "header", "call"] = "answer"
        self._gathered = ""  # of the channel's name
        self._call: _GrowingCall | None = None  # also while the model thinks in the middle of it
        self._thought_space = ""  # white space that counts only if more of the thought follows
        self._thought_begun = False
        self._any_thought = False
        self._skip_space = False
        self._chunks: list[Chunk] = []

    def resume(self, text: str) -> None:
        """Begin within a channel that the prompt has opened; `text` is what the prompt says after its marker."""
        self.control(CHANNEL_OPEN)
        self.text(text)
        self._thought_space = ""

    def text(self, text: str) -> list[Chunk]:
        """Take the next piece of text; return what has become certain, oldest first."""
        self._text(text)
        return self._take_chunks()

    def control(self, marker: str) -> list[Chunk]:
        """Take a control token, one of `MARKERS`."""
        if self._state == "header":
            self._end_header()
        if marker == CHANNEL_OPEN:
            self._open_channel()
        elif marker == CHANNEL_CLOSE and self._state == "thought":
            self._skip_space = self._call is None
            self._state = "answer" if self._call is None else "call"
        elif marker == CALL_OPEN:
            self._end_call(closed=False)
            self._state, self._call = "call", _GrowingCall()
        elif marker == CALL_CLOSE:
            self._end_call(closed=True)
        elif marker == STRING_DELIMITER and self._state == "call" and self._call is not None:
            self._call.add_delimiter()
        elif marker == STRING_DELIMITER:
            self._text('"')
        return self._take_chunks()

    def finish(self) -> list[Chunk]:
        """The rest, when no more comes."""
        self._end_call(closed=False)
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
            case "call" if self._call is not None:
                self._call.add(text)
            case "header":
                self._header(text)

    def _open_channel(self) -> None:
        if self._call is not None and parse_tool_call(self._call.written()) is not None:
            self._end_call(closed=False)
        self._state = "header"
        self._gathered = ""

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
        if THOUGHT_HEADER.startswith(name):
            return
        if name.startswith(THOUGHT_HEADER) and name[len(THOUGHT_HEADER)].isspace():
            self._begin_thought()
            self._thought(name[len(THOUGHT_HEADER) :])
        else:
            self._is_no_thought()

    def _end_header(self) -> None:
        """A marker follows what has been gathered of a channel's name."""
        if self._gathered in ("", THOUGHT_HEADER):
            self._begin_thought()
        else:
            self._is_no_thought()

    def _is_no_thought(self) -> None:
        self._end_call(closed=False)
        self._state = "answer"
        self._answer(self._gathered)

    def _begin_thought(self) -> None:
        self._state = "thought"
        # A further thought starts a paragraph of its own.
        self._thought_space = "\n\n" if self._any_thought else ""
        self._thought_begun = False

    def _end_call(self, closed: bool) -> None:
        """Read the call that is being written, if there is one."""
        if self._call is None:
            return
        written, self._call = self._call.written(), None
        self._state = "answer"
        calls = read_calls(written, closed, self._declared)
        for call, text in calls:
            self._emit(text, "tool_call", call)
        if calls:
            self._skip_space = True
        elif written.text.strip():
            self.unread_calls.append(written.text)
            self._answer(written.text)

    def _emit(self, text: str, kind: Kind, call: ToolCall | None = None) -> None:
        if not text:
            return
        last = self._chunks[-1] if self._chunks else None
        if last is not None and last.kind == kind != "tool_call":
            self._chunks[-1] = Chunk(last.text + text, kind)
        else:
            self._chunks.append(Chunk(text, kind, call))


class _GrowingCall:
    """The text of a call while it is being written."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._delimiters: list[int] = []

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self._length += len(text)

    def add_delimiter(self) -> None:
        self._delimiters.append(self._length)
        self.add('"')

    def written(self) -> CallText:
        return CallText("".join(self._pieces), tuple(self._delimiters))
