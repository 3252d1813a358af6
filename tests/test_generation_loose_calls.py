"""Calls that are not quite in the notation: read when they can mean one thing only, left alone when they cannot."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from call_texts import call_text
from gemma4_mlx.generation.loose_calls import _Search, declared_tools, read_calls
from gemma4_mlx.generation.tool_calls import STRING_DELIMITER, ToolCall, parse_tool_call
from test_generation_tool_calls import bare_keys, nested, render


def read(spelled: str, closed: bool = True, tools: list[dict[str, Any]] | None = None) -> list[ToolCall]:
    return [call for call, _ in read_calls(call_text(spelled), closed, declared_tools(tools))]


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string"},
                "days": {"type": "integer"},
                "options": {"type": "object", "properties": {"wind": {"type": "boolean"}}},
            },
            "required": ["place"],
        },
    },
}


# What models have been seen to write, and what it can only mean. Sources are named in loose_calls.py.
@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('call:f{q:weather in Tokyo<|"|>}', {"q": "weather in Tokyo"}),
        ('call:f{q:Paris, France<|"|>,n:5}', {"q": "Paris, France", "n": 5}),
        ('call:f{q:<|"|>a<|"|>,r:b, c<|"|>}', {"q": "a", "r": "b, c"}),
        ('call:f{code:if (x) { y(); }<|"|>}', {"code": "if (x) { y(); }"}),
        ('call:f{q:[<|"|>a<|"|>,b<|"|>]}', {"q": ["a", "b"]}),
        ('call:f{phone:(555) 123<|"|>}', {"phone": "(555) 123"}),
        ("call:f{city:Paris}", {"city": "Paris"}),
        ("call:f{city: New York ,days:3}", {"city": "New York", "days": 3}),
        ("call:f{colours:[red, dark green]}", {"colours": ["red", "dark green"]}),
        ("call:f{day:2026-07-15}", {"day": "2026-07-15"}),
        ("call:f{at:2026-07-15T10:30:00Z,n:1}", {"at": "2026-07-15T10:30:00Z", "n": 1}),
        ("call:f{at:2026-07-15 10:30}", {"at": "2026-07-15 10:30"}),
        ("call:f{url:https://example.org/a?b=c#d,n:1}", {"url": "https://example.org/a?b=c#d", "n": 1}),
        ("call:f{to:ann@example.org,version:1.2.3}", {"to": "ann@example.org", "version": "1.2.3"}),
        ("call:f{q:'a, b: {c}'}", {"q": "a, b: {c}"}),
        (r"call:f{q:'it\'s'}", {"q": "it's"}),
        ("call:f{o:{'mode': 'fast', \"n\": [1]}}", {"o": {"mode": "fast", "n": [1]}}),
        ("call:f{a:True,b:False,c:None,d:null}", {"a": True, "b": False, "c": None, "d": None}),
        ("call:f{a:1,}", {"a": 1}),
        ("call:f{,a:[1,2,],,b:{c:1,},}", {"a": [1, 2], "b": {"c": 1}}),
        ('call:f(a:<|"|>ls -a<|"|>)', {"a": "ls -a"}),
        ("call:f(a=1, b='x', c=[True])", {"a": 1, "b": "x", "c": [True]}),
        ('call:f({"a": 1})', {"a": 1}),
        ("call:f()", {}),
        ('call:f{{"a":1}}', {"a": 1}),
        ("call:f{save_as='report.docx'}", {"save_as": "report.docx"}),
        ("call:f{a:1}}", {"a": 1}),
        ("call:f{a:{b:1}}}", {"a": {"b": 1}}),
        ("call:f{a:[1,2]]}", {"a": [1, 2]}),
        ("call:f{a:1", {"a": 1}),
        ("call:f{a:{b:1}", {"a": {"b": 1}}),
        ("call:f{a:[1,2}", {"a": [1, 2]}),
        ("call:f{a:1};", {"a": 1}),
        ("f{a:1}", {"a": 1}),
        ("Call: f{}", {}),
        ("```\ncall:f{a:1}\n```", {"a": 1}),
        ("```call:f{a:1}```", {"a": 1}),
        ('```json\n{"name": "f", "arguments": {"a": 1}}\n```', {"a": 1}),
        ('{"name": "f", "parameters": {}}', {}),
    ],
)
def test_a_slip_that_leaves_one_meaning_is_read(written, arguments):
    assert parse_tool_call(call_text(written)) is None
    assert read(written) == [ToolCall("f", arguments)]


@pytest.mark.parametrize(
    "written",
    [
        "",
        "call:f",
        "call:f{",
        "I would call f.",
        "call:f{a:b:c}",  # 10:30 is a time, but 10:30 may also be two members
        "call:f{a:Paris, France}",
        "call:f{a:x}y}",
        "call:f{a:see call:g{b:1}}",  # is g called, or spoken of?
        'call:f{q:Paris, n:5<|"|>}',
        'call:f{a:x}call:g{b:y<|"|>}',
        'call:f{a:<|"|>b}',
        'call:f{a:<|"|>say <|"|>hi<|"|> now<|"|>}',
        'call:f{a:<|"|>x<|"|>b:1}',
        'call:f{a:5<|"|>}',
        "call:f{zip:007}",
        "call:f{a:NULL}",
        "call:f{a:NaN}",
        "call:f{a:.5}",
        "call:f{a:'it's'}",
        r"call:f{a:'C:\new'}",
        "call:f{a:[1,,2]}",
        "call:f{a:1,a:b}",
        "call:f{a:{b:1,c:2}",  # the brace may be missing after 1 or at the end
        "call:f{a:{b:1},c:2}}",
        "call:f{a:1}}}",
        "call:f{a:1}call:g{b:2",
        "call:f{a:1}call:g{b:2}}",
        "call:f{a:1} and call:g{b:2}",
        "call:f{a:1} g{b:2}",
        "tool_call:f{}",
        "call:f{a:x\nb:y}",
        "call:f{a:\"x'}",
        '[{"name": "f", "arguments": {}}, {"name": "g"}]',
        '{"name": "f", "arguments": "{}"}',
        "call:f{a:" + "[" * 1000 + "]" * 1000 + "}",
    ],
)
def test_what_may_mean_several_things_or_nothing_is_no_call(written):
    assert read(written) == []


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("call:f{a:1}call:g{b:2}", "fg"),
        ("call:f{a:1},\n call:g(b='x'); call:h{}", "fgh"),
        ("call:f{a:Paris}call:f{a:London}", "ff"),
        ('[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]', "fg"),
    ],
)
def test_several_calls_in_one_block_are_read(written, names):
    assert [call.name for call in read(written)] == list(names)


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('call:weather{place:Paris, n:5<|"|>}', {"place": "Paris, n:5"}),
        ("call:weather{place:007}", {"place": "007"}),
        ("call:weather{place:x,days:007}", {"place": "x", "days": 7}),
        ('call:weather{place:5<|"|>}', {"place": "5"}),
        ("call:weather{options:{wind:True},place:x}}", {"options": {"wind": True}, "place": "x"}),
        ("call:weather{options:{wind:True,place:x}", {"options": {"wind": True}, "place": "x"}),
    ],
)
def test_the_declared_tool_settles_what_could_mean_several_things(written, arguments):
    assert read(written) == []
    assert read(written, tools=[WEATHER]) == [ToolCall("weather", arguments)]
    assert read(written, tools=[WEATHER["function"]]) == [ToolCall("weather", arguments)]
    assert read(written.replace("weather", "other"), tools=[WEATHER]) == []


def test_two_meanings_that_the_declared_tool_takes_both_are_no_call():
    assert read('call:weather{place:Paris, days:5<|"|>}', tools=[WEATHER]) != [
        ToolCall("weather", {"place": "Paris", "days": 5})
    ]
    assert read("call:weather{place:x,options:{wind:True}", tools=[WEATHER]) != []
    assert read("call:weather{place:NULL}", tools=[{"name": "weather"}]) == []


@pytest.mark.parametrize("written", ["call:f{a:1", "call:f{a:Par", "call:f{a:{b:1}", "call:f{a:[1,2]"])
def test_a_bracket_is_missing_only_when_the_model_has_ended_the_call(written):
    assert read(written) != []
    assert read(written, closed=False) == []


arguments_of_any_kind = st.dictionaries(bare_keys, nested, max_size=4)


@given(arguments=arguments_of_any_kind)
def test_what_the_strict_reading_reads_has_the_same_meaning_in_the_loose_one(arguments):
    written = call_text(f"call:tool{render(arguments)}")
    assert [call for call, _ in read_calls(written, closed=True)] == [ToolCall("tool", arguments)]
    # Without the strict reading before it: never another meaning.
    loose = [found.call for found in _Search(written, True, {}).calls()]
    assert loose in ([], [ToolCall("tool", arguments)])


@given(data=st.data(), calls=st.lists(arguments_of_any_kind, min_size=1, max_size=2))
def test_no_mutation_raises_or_makes_more_calls_than_the_text_names(data, calls):
    text = "".join(f"call:t{render(arguments)}" for arguments in calls)
    tokens = [t for part in text.split(STRING_DELIMITER) for t in (*part, STRING_DELIMITER)][:-1]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(tokens)))
        if data.draw(st.booleans()):
            del tokens[place : place + 1]
        else:
            tokens.insert(place, data.draw(st.sampled_from([STRING_DELIMITER, *"{}[]():,='\" x1"])))
    spelled = "".join(tokens)
    assert len(read(spelled)) <= max(1, spelled.count("call"))  # one that has lost its `call:` is one


@given(st.text(alphabet="cal:f{}[]()\"',=<|>0-.eEtrunNT \n\\`"))
def test_wild_text_is_never_an_error(text):
    read(text)
    read(f"call:f{{a:{text}}}")
    read(f"call:f({text})", closed=False)
    read(f'call:f{{a:{text}<|"|>}}')


@pytest.mark.parametrize(
    "written",
    [
        "call:f{" + "a:x," * 50_000,
        "call:f{a:[" + "x," * 50_000 + '<|"|>]}',
        "call:f{a:" + "{b:" * 50_000,
        "call:f{a:" + "1" * 100_000 + "x}",
        "call:f{a:" + "x " * 100_000 + ":}",
        "```" + " " * 200_000 + "x```",
        "call:f{" + ",".join(f'a{n}:x, y<|"|>' for n in range(5_000)) + "}",
        "[" * 100_000,
        "{" * 100_000,
        "call:f{a:'" + "\\'" * 100_000,
    ],
)
def test_no_text_takes_long(written):
    begun = time.process_time()
    read(written, tools=[WEATHER])
    assert time.process_time() - begun < 3


words = st.text(alphabet="ab1 ,:{}[]()'\"=\n", max_size=8).map(str.lstrip)


@given(data=st.data(), arguments=st.dictionaries(bare_keys, words | st.integers() | st.lists(words), min_size=1))
def test_a_call_with_one_slip_is_read_as_it_was_meant_or_not_at_all(data, arguments):
    written = f"call:tool{render(arguments)}"
    pieces = written.split(STRING_DELIMITER)
    slips = [written + "}", written[:-1], written[:-1] + ",}", written.replace("{", "(", 1)[:-1] + ")"]
    if len(pieces) > 1:
        opening = data.draw(st.sampled_from(range(0, len(pieces) - 1, 2)))
        slips.append(
            STRING_DELIMITER.join(pieces[: opening + 1])
            + STRING_DELIMITER.join(["", *pieces[opening + 1 :]]).removeprefix(STRING_DELIMITER)
        )
    for slip in slips:
        assert read(slip) in ([], [ToolCall("tool", arguments)])
