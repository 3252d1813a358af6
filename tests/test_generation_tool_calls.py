"""The notation of tool calls: everything a template can write is read back, anything else is no call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from call_texts import call_text
from gemma4_mlx.generation.tool_calls import STRING_DELIMITER, ToolCall, parse_tool_call


def render(value: Any, quoted_keys: bool = False) -> str:
    """A value as Gemma 4's chat template writes it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"{STRING_DELIMITER}{value}{STRING_DELIMITER}"
        case dict():
            keys = {key: render(key) if quoted_keys else key for key in value}
            return "{" + ",".join(f"{keys[key]}:{render(item, quoted_keys)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ",".join(render(item, quoted_keys) for item in value) + "]"
    return repr(value)


strings = st.text().filter(lambda s: STRING_DELIMITER not in s)
# Two fragments of a delimiter may only meet at the border: `<|"` + `<|"|>` would be read differently.
strings = strings.filter(lambda s: (s + STRING_DELIMITER).index(STRING_DELIMITER) == len(s))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | strings
bare_keys = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]*", fullmatch=True)
nested = st.recursive(
    leaves, lambda c: st.lists(c, max_size=3) | st.dictionaries(bare_keys, c, max_size=3), max_leaves=8
)


@given(arguments=st.dictionaries(bare_keys, nested, max_size=4))
def test_what_the_template_writes_is_read_back(arguments):
    assert parse_tool_call(call_text(f"call:tool{render(arguments)}")) == ToolCall("tool", arguments)


@given(arguments=st.dictionaries(strings, leaves, max_size=4))
def test_quoted_keys_may_hold_anything(arguments):
    assert parse_tool_call(call_text(f"call:tool{render(arguments, quoted_keys=True)}")) == ToolCall("tool", arguments)


@given(text=st.text(alphabet='cal:x{}[]",<|>0-.eEtrun \n\\'))
def test_wild_text_is_a_call_or_none_but_never_an_error(text):
    parse_tool_call(call_text(text))
    parse_tool_call(call_text(f"call:f{{a:{text}}}"))


def test_strings_may_hold_braces_commas_quotes_and_backslashes():
    call = parse_tool_call(call_text('call:f{code:<|"|>if (a["x"]) {\n  b = \'\\n\', c;\n}<|"|>,n:1}'))
    assert call == ToolCall("f", {"code": "if (a[\"x\"]) {\n  b = '\\n', c;\n}", "n": 1})


def test_json_strings_with_escapes_are_read_too():
    assert parse_tool_call(call_text(r'call:f{"a b": "q\"\u00e9\n"}')) == ToolCall("f", {"a b": 'q"é\n'})


def test_spaces_and_line_breaks_between_the_parts_are_allowed():
    assert parse_tool_call(call_text("  call: f {\n a : [ 1 , 2 ] ,\n b : { } }\n")) == ToolCall(
        "f", {"a": [1, 2], "b": {}}
    )


def test_names_of_tool_servers_keep_their_punctuation():
    assert parse_tool_call(call_text("call:files/read-text.v2:utf8{}")) == ToolCall("files/read-text.v2:utf8", {})


def test_none_is_null_because_older_templates_write_it_that_way():
    assert parse_tool_call(call_text("call:f{a:None}")) == ToolCall("f", {"a": None})


def test_whole_numbers_stay_whole_and_the_others_become_floats():
    arguments = parse_tool_call(call_text("call:f{a:-3,b:2.0,c:1e3,d:0}")).arguments
    assert [(type(v), v) for v in arguments.values()] == [(int, -3), (float, 2.0), (float, 1000.0), (int, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "call:",
        "call:f",
        "call:{}",
        "f{}",
        "call:f{",
        "call:f{a}",
        "call:f{a:}",
        "call:f{:1}",
        "call:f{a:1,}",
        "call:f{a:1 b:2}",
        "call:f{a:[1,]}",
        "call:f{a:Paris}",
        "call:f{a:007}",
        "call:f{a:٣}",
        'call:f{a:<|"|>open}',
        'call:f{a:"open}',
        "call:f{a:<b>}",
        "call:f{a:1}}",
        "call:f{a:1}call:g{}",
        "call:f{a:" + "9" * 5000 + "}",
        "call:f{a:" + "[" * 1000 + "]" * 1000 + "}",
    ],
)
def test_a_malformed_call_is_no_call(text):
    assert parse_tool_call(call_text(text)) is None
