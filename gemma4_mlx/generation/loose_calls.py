"""Calls that are not quite in Gemma 4's notation, read where only one meaning is possible.

Gemma 4 leaves out the opening `<|"|>` of a string (6 of 20 calls at temperature 0.8, sgl-project/sglang#39240), writes
JSON's or Python's quotes (vllm-project/vllm#51284), `key=value` (ollama/ollama#17882), round brackets
(vllm-project/vllm#53642, jundot/omlx#1846), bare words, True, a comma or a bracket too many or too few, and several
calls in one block.

A slip can often be undone in two ways: `{q:Paris,n:1<|"|>}` is one string without its beginning, or two arguments. So
nothing is mended here. The text is read in every way that the slips allow, and it is a call only if all ways mean the
same, or if the tool as declared takes just one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

from .tool_calls import MAX_DEPTH, CallText, ToolCall, parse_tool_call, read_number

# Of a tool: its name → the JSON schema of its parameters.
Declared = Mapping[str, Mapping[str, Any]]

# More than any call a person would read; a text that needs more is no call.
_MOST_STEPS = 20_000
_MOST_READINGS = 64
_MOST_LETTERS = 1_000_000  # copied in trying strings of unknown beginning

_FENCE = "```"
_FENCE_HEAD = re.compile(r"```(?:\w*[ \t]*\n)?\s*")
_BETWEEN_CALLS = re.compile(r"[\s,;]*")
_BETWEEN_MEMBERS = re.compile(r"[\s,]*")
_SPACE = re.compile(r"\s*")
_OPENING = r"\s*(?P<open>\{\s*\{|\(\s*\{|\{|\()"
_HEAD = re.compile(r"[Cc]all\s*:\s*(?P<name>[^\W\d][\w./:-]*)" + _OPENING)
# The word `call:` may be missing from the first call only: nothing else would tell where a second one begins.
_BARE_HEAD = re.compile(r"(?P<name>[^\W\d][\w./-]*)" + _OPENING)
_SEPARATOR = re.compile(r"\s*[:=]\s*")
_SINGLE_QUOTED = re.compile(r"'((?:[^'\\]|\\')*)'")
# One line, without anything that could also be notation.
_BARE = re.compile(r"""[^\s:=,{}\[\]()'"]+(?:[ \t]+[^\s:=,{}\[\]()'"]+)*""")
# The two kinds of bare text in which a colon cannot be notation.
_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?(?=\s*[,}\])]|\s*$)")
_URL = re.compile(r"""[a-z][a-z0-9+.-]*://[^\s,{}\[\]()'"]+""")

_CLOSING = {"{": "}", "[": "]", "(": ")", "{{": "}", "({": "}"}
_SECOND_CLOSING = {"{{": re.compile(r"\s*\}"), "({": re.compile(r"\s*\)")}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# `007` is a number to Python's writer and a name to a spy.
_LIKE_A_NUMBER = re.compile(r"[+-]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "None": None, "True": True, "False": False}
_LIKE_A_WORD = {"true": True, "false": False, "null": None, "none": None, "nil": None, "undefined": None}
_TYPE_NAMES = {
    str: {"string"},
    bool: {"boolean"},
    int: {"integer", "number"},
    float: {"number"},
    list: {"array"},
    dict: {"object"},
    type(None): {"null"},
}
_NO_JSON = {"nan", "inf", "infinity", "-inf", "-infinity"}


def read_calls(written: CallText, closed: bool, declared: Declared | None = None) -> list[tuple[ToolCall, str]]:
    """The calls between two control tokens, oldest first, each with its text.

    None if the text is no call, or could mean several things.

    Args:
        written: what the model wrote.
        closed: the model ended the call with its control token. If not, what is missing may yet have come.
        declared: the tools the model was told of. They settle what could otherwise mean several things.
    """
    if (call := parse_tool_call(written)) is not None:
        return [(call, written.text)]
    if calls := _as_json(written):
        return calls
    found = _Search(written, closed, declared or {}).calls()
    if not found:
        return []
    # What stands before, between and after the calls goes with one of them: nothing of the text is lost.
    starts = [0, *(position for _, position in found[1:]), len(written.text)]
    return [(call, written.text[start:end]) for (call, _), (start, end) in zip(found, pairwise(starts), strict=True)]


def declared_tools(tools: Sequence[Mapping[str, Any]] | None) -> dict[str, Mapping[str, Any]]:
    """Tool descriptions, `{"type": "function", "function": {…}}` or the inner object alone, by name."""
    functions = [tool.get("function", tool) for tool in tools or ()]
    return {function["name"]: function.get("parameters") or {} for function in functions}


class _Found(NamedTuple):
    """A call, and where in the text it begins."""

    call: ToolCall
    start: int


class _Frame(NamedTuple):
    """An object or array that is still open."""

    bracket: str  # as it was opened
    members: tuple[Any, ...]  # values, or (key, value) pairs
    key: str | None = None  # its value comes next

    def with_value(self, value: Any) -> _Frame:
        member = value if self.bracket == "[" else (self.key, value)
        return _Frame(self.bracket, (*self.members, member))


class _State(NamedTuple):
    """One way to read the text, up to `position`."""

    position: int
    expects: str  # "call", "key", "item" or "after": after a value
    frames: tuple[_Frame, ...] = ()
    name: str = ""
    start: int = 0  # of the call being read
    calls: tuple[_Found, ...] = ()
    # Accepted so far: one "bracket" too many or too few, or any number of "string"s without their beginning. Not both:
    # where strings begin in doubt, so do brackets, and nearly everything could be read in some way.
    slip: str = ""


class _Search:
    """All readings of one text, depth first, without recursion: the text is a model's and may be nested at will."""

    def __init__(self, written: CallText, closed: bool, declared: Declared) -> None:
        self._start, self._end = _inside_fence(written.text)
        self._written = written
        self._text = written.text[: self._end]
        self._closed = closed
        self._declared = declared
        self._letters_left = _MOST_LETTERS

    def calls(self) -> list[_Found]:
        readings: dict[str, tuple[_Found, ...]] = {}
        states = [_State(self._start, "call")]
        for _ in range(_MOST_STEPS):
            if not states or self._letters_left < 0:
                break
            state = states.pop()
            if self._is_complete(state):
                readings[_meaning(state.calls)] = state.calls
                if len(readings) > (_MOST_READINGS if self._declared else 1):
                    return []
            states += self._following(state)
        if states:
            return []
        if len(readings) > 1:
            readings = {key: calls for key, calls in readings.items() if all(map(self._is_taken, calls))}
        return list(readings.popitem()[1]) if len(readings) == 1 else []

    def _is_complete(self, state: _State) -> bool:
        if state.expects != "call" or not state.calls or (len(state.calls) > 1 and state.slip == "bracket"):
            return False
        return self._skip(_BETWEEN_CALLS, state.position) == self._end

    def _is_taken(self, found: _Found) -> bool:
        """Whether the tool as declared takes this call."""
        parameters = self._declared.get(found.call.name)
        return parameters is not None and _fits(found.call.arguments, {"properties": {}, **parameters})

    def _following(self, state: _State) -> Iterator[_State]:
        match state.expects:
            case "call":
                yield from self._call(state)
            case "key":
                yield from self._key(state)
            case "item":
                position = self._skip(_SPACE, state.position)
                if self._text.startswith("]", position):
                    yield from self._close(state, position + 1)
                else:
                    yield from self._values(state, position)
            case _:
                yield from self._after(state)

    def _call(self, state: _State) -> Iterator[_State]:
        position = self._skip(_BETWEEN_CALLS, state.position)
        if state.calls and not state.slip and self._is_closing(position):
            yield state._replace(position=position + 1, slip="bracket")
        head = _HEAD.match(self._text, position)
        if head is None and not state.calls:
            head = _BARE_HEAD.match(self._text, position)
        if head is not None:
            bracket = "".join(head["open"].split())
            yield state._replace(
                position=head.end(), expects="key", frames=(_Frame(bracket, ()),), name=head["name"], start=position
            )

    def _key(self, state: _State) -> Iterator[_State]:
        position = self._skip(_BETWEEN_MEMBERS, state.position)
        top = state.frames[-1]
        if self._closes(top, position, outermost=len(state.frames) == 1):
            yield from self._close(state, position + 1)
            return
        found = self._quoted(position)
        if found is None and (bare := _BARE.match(self._text, position)):
            found = bare[0], bare.end()
        if found is None:
            return
        key, end = found
        separator = _SEPARATOR.match(self._text, end)
        if separator is not None:
            frames = (*state.frames[:-1], top._replace(key=key))
            yield from self._values(state._replace(frames=frames), separator.end())

    def _after(self, state: _State) -> Iterator[_State]:
        position = self._skip(_SPACE, state.position)
        top = state.frames[-1]
        outermost = len(state.frames) == 1
        slip = not state.slip
        if position == self._end:
            if self._closed and slip:
                yield from self._close(state._replace(slip="bracket"), position)
        elif self._text[position] == ",":
            yield state._replace(position=position + 1, expects="item" if top.bracket == "[" else "key")
            if slip and not outermost:
                yield from self._close(state._replace(slip="bracket"), position)
        elif self._is_closing(position):
            closes = self._closes(top, position, outermost)
            if closes:
                yield from self._close(state, position + 1)
            elif slip and not outermost:
                yield from self._close(state._replace(slip="bracket"), position)
            if slip:
                yield state._replace(position=position + 1, slip="bracket")

    def _values(self, state: _State, position: int) -> Iterator[_State]:
        """Every value that may begin at `position`."""
        letter = self._text[position : position + 1]
        if letter and letter in "{[" and len(state.frames) < MAX_DEPTH:
            yield state._replace(
                position=position + 1,
                expects="item" if letter == "[" else "key",
                frames=(*state.frames, _Frame(letter, ())),
            )
        readings = [(value, end, state.slip) for value, end in self._scalars(position)]
        if state.slip != "bracket":
            readings += [(value, end, "string") for value, end in self._without_beginning(position)]
        for value, end, slip in readings:
            frames = (*state.frames[:-1], state.frames[-1].with_value(value))
            yield state._replace(position=end, expects="after", frames=frames, slip=slip)

    def _scalars(self, position: int) -> Iterator[tuple[Any, int]]:
        if (quoted := self._quoted(position)) is not None:
            yield quoted
            return
        for pattern in (_DATE_AND_TIME, _URL):
            if special := pattern.match(self._text, position):
                yield special[0], special.end()
        if bare := _BARE.match(self._text, position):
            yield from ((value, bare.end()) for value in _bare_values(bare[0]))

    def _without_beginning(self, position: int) -> Iterator[tuple[Any, int]]:
        """A string without its opening control token."""
        delimiter = self._written.next_delimiter(position)
        if delimiter is None or delimiter >= self._end:
            return
        string = self._text[position:delimiter]
        self._letters_left -= len(string)
        yield string, delimiter + 1
        if string.startswith(('"', "'")):  # it began with that mark, or the mark is a part of it
            yield string[1:], delimiter + 1
        if string:
            # A number before a stray control token looks the same.
            yield from ((value, delimiter + 1) for value in _bare_values(string) if not isinstance(value, str))

    def _quoted(self, position: int) -> tuple[str, int] | None:
        """A string in quotation marks of any kind: its value and its end."""
        if self._text.startswith("'", position):
            single = _SINGLE_QUOTED.match(self._text, position)
            if single is None or self._written.has_delimiter(position, single.end()):
                return None
            return single[1].replace("\\'", "'"), single.end()
        if not self._text.startswith('"', position):
            return None
        if self._written.is_delimiter(position):
            end = self._written.next_delimiter(position + 1)
            return None if end is None or end >= self._end else (self._text[position + 1 : end], end + 1)
        found = self._written.json_string(position)
        return None if found is None or found[1] > self._end else found

    def _close(self, state: _State, position: int) -> Iterator[_State]:
        """The innermost object or array ends here."""
        *below, top = state.frames
        if second := _SECOND_CLOSING.get(top.bracket):
            position = self._skip(second, position)
        value: Any = list(top.members)
        if top.bracket != "[":
            value = dict(top.members)
            if len(value) < len(top.members):  # a key that comes twice has two meanings
                return
        if below:
            yield state._replace(position=position, expects="after", frames=(*below[:-1], below[-1].with_value(value)))
        else:
            found = _Found(ToolCall(state.name, value), state.start)
            yield state._replace(position=position, expects="call", frames=(), calls=(*state.calls, found))

    def _closes(self, frame: _Frame, position: int, outermost: bool) -> bool:
        """Whether the bracket here closes `frame`; a call's own may be of either kind."""
        closing = ")}" if outermost else _CLOSING[frame.bracket]
        return position < self._end and self._text[position] in closing

    def _is_closing(self, position: int) -> bool:
        return position < self._end and self._text[position] in ")]}"

    def _skip(self, pattern: re.Pattern[str], position: int) -> int:
        found = pattern.match(self._text, position)
        return position if found is None else found.end()


def _bare_values(text: str) -> Iterator[Any]:
    """What letters without quotation marks may mean: a word, a number, text, or either."""
    if text in _WORDS:
        yield _WORDS[text]
        return
    if _NUMBER.fullmatch(text):
        if (number := read_number(text)) is not None:
            yield number
        return
    if text.casefold() in _NO_JSON:
        return
    if (word := text.casefold()) in _LIKE_A_WORD:
        yield _LIKE_A_WORD[word]
    elif _LIKE_A_NUMBER.fullmatch(text):
        with suppress(ValueError):  # `1__0`, or more digits than Python reads
            yield int(text) if text.lstrip("+-").replace("_", "").isdecimal() else float(text)
    yield text


def _fits(value: Any, schema: Any) -> bool:
    """Whether a value is what a parameter's schema describes, as far as types and names of members go."""
    if not isinstance(schema, Mapping):
        return True
    types = schema.get("type")
    names = [types] if isinstance(types, str) else types
    if isinstance(names, list) and not _TYPE_NAMES[type(value)] & {str(name).lower() for name in names}:
        return False
    if isinstance(value, list):
        return all(_fits(item, schema.get("items")) for item in value)
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return True
    required = schema.get("required")
    return (
        all(_fits(item, properties[name]) for name, item in value.items() if name in properties)
        and (bool(schema.get("additionalProperties")) or value.keys() <= properties.keys())
        and (not isinstance(required, list) or all(name in value for name in required))
    )


def _inside_fence(text: str) -> tuple[int, int]:
    """Where a text begins and ends, the lines of a Markdown code block round it left out."""
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    head = _FENCE_HEAD.match(text, start)
    if head is None or not text.endswith(_FENCE, head.end(), end):
        return 0, len(text)
    return head.end(), end - len(_FENCE)


def _as_json(written: CallText) -> list[tuple[ToolCall, str]]:
    """`{"name": …, "arguments": {…}}`, as other models write calls, or a list of these; none for anything else."""
    if written.delimiters:
        return []
    start, end = _inside_fence(written.text)
    try:
        content = json.loads(written.text[start:end])
    except (ValueError, RecursionError):
        return []
    if (call := _json_call(content)) is not None:
        return [(call, written.text)]
    items = content if isinstance(content, list) else []
    calls = [(call, json.dumps(item, ensure_ascii=False)) for item in items if (call := _json_call(item)) is not None]
    return calls if len(calls) == len(items) else []


def _json_call(item: Any) -> ToolCall | None:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str) or len(item) != 2:
        return None
    arguments = item.get("arguments", item.get("parameters"))
    return ToolCall(item["name"], arguments) if isinstance(arguments, dict) else None


def _meaning(calls: tuple[_Found, ...]) -> str:
    """The same for readings that mean the same; 1, 1.0 and true are three meanings."""
    return json.dumps([(found.call.name, found.call.arguments) for found in calls], sort_keys=True)
