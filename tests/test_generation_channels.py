"""Thoughts, answers and tool calls are told apart by control tokens, however the text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from call_texts import events
from gemma4_mlx.generation.channels import MARKERS, ChannelParser, Chunk
from gemma4_mlx.generation.tool_calls import ToolCall

PARIS = '<|tool_call>call:weather{city:<|"|>Paris<|"|>}<tool_call|>'


def parse(spelled: str, cut=lambda text: [text]) -> list[Chunk]:
    """All chunks, neighbours of one kind joined; a tool call is never joined. Markers stand for control tokens."""
    parser = ChannelParser()
    chunks: list[Chunk] = []
    for number, event in enumerate(events(spelled)):
        if number % 2:
            chunks += parser.control(event)
        else:
            chunks += [chunk for piece in cut(event) for chunk in parser.text(piece)]
    chunks += parser.finish()
    assert all(chunk.text for chunk in chunks)
    return joined(chunks)


def joined(chunks: list[Chunk]) -> list[Chunk]:
    whole: list[Chunk] = []
    for chunk in chunks:
        if whole and whole[-1].kind == chunk.kind != "tool_call":
            whole[-1] = Chunk(whole[-1].text + chunk.text, chunk.kind)
        else:
            whole.append(chunk)
    return whole


def both_ways(text: str) -> list[tuple[str, str]]:
    """(kind, text) of every chunk; the same whether the text comes at once or letter by letter."""
    whole = parse(text)
    assert parse(text, list) == whole
    return [(chunk.kind, chunk.text) for chunk in whole]


fragments = st.sampled_from(
    [*MARKERS, "thought", "thought\n", "\n", " ", "a", "Hello", "<", "|", "<|", "call:f{}", "call:f{a:1}", "{", '"']
)


@given(fragments=st.lists(fragments, max_size=12), data=st.data())
@example(fragments=["<|channel>", "thought", "<|channel>", "<channel|>"], data=None)
def test_any_cutting_into_pieces_gives_the_same_chunks(fragments, data):
    def cut(text: str) -> list[str]:
        cuts = sorted(data.draw(st.sets(st.integers(0, len(text))))) if data else []
        return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    spelled = "".join(fragments)
    assert parse(spelled, cut) == parse(spelled) == parse(spelled, list)


@given(fragments=st.lists(fragments, max_size=12))
def test_no_marker_leaks_into_an_answer_or_a_thought(fragments):
    chunks = parse("".join(fragments))
    assert not [c for c in chunks if c.kind != "tool_call" and any(marker in c.text for marker in MARKERS)]


@given(words=st.lists(fragments | st.text(alphabet="abc <>|{}\n", min_size=1), min_size=1))
def test_text_that_spells_markers_is_the_answer_unchanged(words):
    parser = ChannelParser()
    chunks = [chunk for word in words for chunk in parser.text(word)] + parser.finish()
    assert "".join(c.text for c in chunks) == "".join(words)
    assert {c.kind for c in chunks} == {"answer"}


def test_a_thought_that_quotes_the_notation_calls_nothing_and_does_not_end():
    parser = ChannelParser()
    quoted = f"The page says {PARIS} and <channel|> so"
    chunks = parser.control("<|channel>") + parser.text("thought\n" + quoted) + parser.control("<channel|>")
    assert joined(chunks) == [Chunk(quoted, "thought")]


def test_a_string_in_a_call_ends_at_the_control_token_not_at_letters_that_spell_it():
    parser = ChannelParser()
    chunks = parser.control("<|tool_call>") + parser.text("call:f{a:") + parser.control('<|"|>')
    chunks += parser.text('see <|"|>,b:<|"|> and <tool_call|>') + parser.control('<|"|>')
    chunks += parser.text("}") + parser.control("<tool_call|>")
    assert [c.tool_call for c in chunks] == [ToolCall("f", {"a": 'see <|"|>,b:<|"|> and <tool_call|>'})]


def test_a_thought_comes_before_its_answer():
    text = "<|channel>thought\nThe user greets.\n<channel|>\nHello!\n"
    assert both_ways(text) == [("thought", "The user greets."), ("answer", "Hello!\n")]


def test_an_answer_without_a_thought_keeps_its_white_space():
    assert both_ways("  indented\n") == [("answer", "  indented\n")]


def test_an_empty_thought_is_dropped():
    assert both_ways("<|channel>thought\n<channel|>Hello") == [("answer", "Hello")]
    assert both_ways("<|channel>thought<channel|>Hello") == [("answer", "Hello")]


def test_a_thought_that_never_closes_stays_a_thought():
    assert both_ways("<|channel>thought\nI think that") == [("thought", "I think that")]


def test_the_start_of_a_marker_at_the_very_end_is_text():
    assert both_ways("a <|chan") == [("answer", "a <|chan")]
    assert both_ways("<|channel>thought\na <cha") == [("thought", "a <cha")]


def test_a_header_cut_off_in_its_name_is_no_answer():
    assert both_ways("Hi<|channel>thou") == [("answer", "Hi")]


def test_a_channel_of_another_name_is_answer():
    assert both_ways("<|channel>thoughtful words<channel|>!") == [("answer", "thoughtful words!")]
    assert both_ways("<|channel>final\nYes") == [("answer", "final\nYes")]


def test_two_thoughts_are_two_paragraphs():
    text = "<|channel>thought\nA<channel|><|channel>thought\nB<|channel>thought\n\n<|channel>thought\nC<channel|>D"
    assert both_ways(text) == [("thought", "A\n\nB\n\nC"), ("answer", "D")]


def test_white_space_within_a_thought_is_kept():
    assert both_ways("<|channel>thought\n\n a\n\n b \n<channel|>") == [("thought", "a\n\n b")]


def test_a_tool_call_is_parsed():
    (chunk,) = parse(PARIS, list)
    assert chunk == Chunk('call:weather{city:"Paris"}', "tool_call", ToolCall("weather", {"city": "Paris"}))


def test_text_round_tool_calls_is_answer():
    assert both_ways(f"Let me see. {PARIS}\n{PARIS}\nDone") == [
        ("answer", "Let me see. "),
        ("tool_call", 'call:weather{city:"Paris"}'),
        ("tool_call", 'call:weather{city:"Paris"}'),
        ("answer", "Done"),
    ]


def test_a_call_that_lacks_only_its_end_marker_is_a_call():
    assert [c.tool_call for c in parse(PARIS.removesuffix("<tool_call|>"))] == [ToolCall("weather", {"city": "Paris"})]
    assert both_ways("<|tool_call>call:f{}<|tool_call>call:g{}") == [
        ("tool_call", "call:f{}"),
        ("tool_call", "call:g{}"),
    ]


def test_a_malformed_or_unfinished_call_is_answer_text():
    assert both_ways('<|tool_call>call:f{a:<|"|>b}<tool_call|> so') == [("answer", 'call:f{a:"b} so')]
    assert both_ways("<|tool_call>call:f{a:1") == [("answer", "call:f{a:1")]


def test_a_call_within_a_thought_ends_the_thought():
    assert both_ways(f"<|channel>thought\nI need it. {PARIS}Sunny") == [
        ("thought", "I need it."),
        ("tool_call", 'call:weather{city:"Paris"}'),
        ("answer", "Sunny"),
    ]


def test_markers_out_of_place_vanish():
    assert both_ways('a<channel|>b<tool_call|>c<|"|>d') == [("answer", 'abc"d')]


def test_several_calls_in_one_block_are_several_calls_and_no_letter_is_lost():
    chunks = parse("<|tool_call>call:f{a:1}, call:g{b:2}\n<tool_call|>Done")
    assert [(c.kind, c.text) for c in chunks] == [
        ("tool_call", "call:f{a:1}, "),
        ("tool_call", "call:g{b:2}\n"),
        ("answer", "Done"),
    ]
    assert [c.tool_call for c in chunks[:2]] == [ToolCall("f", {"a": 1}), ToolCall("g", {"b": 2})]


@pytest.mark.parametrize("thought", ["", "thought", "thought\n", "thought\n \n"])
def test_an_empty_thought_within_a_call_is_dropped(thought):
    call = [("tool_call", "call:f{a:1}")]
    empty = f"<|channel>{thought}<channel|>"
    assert both_ways(f"<|tool_call>{empty}call:f{{a:1}}<tool_call|>") == call
    assert both_ways(f"<|tool_call>call:f{{{empty}a:1}}<tool_call|>") == call
    assert both_ways(f"<|tool_call>call:f{{a:1}}{empty}<tool_call|>Hi") == [*call, ("answer", "Hi")]


def test_a_thought_within_a_call_is_a_thought():
    chunks = both_ways("<|tool_call>call:f{<|channel>thought\nWhich?<channel|>a:1}<tool_call|>Done")
    assert chunks == [("thought", "Which?"), ("tool_call", "call:f{a:1}"), ("answer", "Done")]


def test_a_thought_after_a_whole_call_without_its_end_is_not_a_part_of_it():
    chunks = both_ways("<|tool_call>call:f{a:1}<|channel>thought\nWell<channel|>Done")
    assert chunks == [("tool_call", "call:f{a:1}"), ("thought", "Well"), ("answer", "Done")]


def test_a_call_that_cannot_be_read_is_answer_text_and_noted():
    parser = ChannelParser()
    chunks = parser.control("<|tool_call>") + parser.text("call:f{a:b:c}") + parser.control("<tool_call|>")
    assert joined(chunks) == [Chunk("call:f{a:b:c}", "answer")]
    assert parser.unread_calls == ["call:f{a:b:c}"]
    assert parser.control("<|tool_call>") + parser.control("<tool_call|>") + parser.finish() == []
    assert parser.unread_calls == ["call:f{a:b:c}"]


@pytest.mark.parametrize(
    ("opened", "written", "chunks"),
    [
        ("thought\n", "Hm.\n<channel|>\nYes", [("thought", "Hm."), ("answer", "Yes")]),
        ("thought", "\nHm.<channel|>Yes", [("thought", "Hm."), ("answer", "Yes")]),
        ("", "thought\nHm.<channel|>Yes", [("thought", "Hm."), ("answer", "Yes")]),
        ("thought\n", "<channel|>Yes", [("answer", "Yes")]),
        ("thought\n", "Hm.", [("thought", "Hm.")]),
        ("thought\nSo far ", "so good<channel|>Yes", [("thought", "so good"), ("answer", "Yes")]),
        ("thought\nSo far", " so good<channel|>Yes", [("thought", " so good"), ("answer", "Yes")]),
        ("final\n", "Yes", [("answer", "Yes")]),
        ("thought\n", f"I need it.{PARIS}", [("thought", "I need it."), ("tool_call", 'call:weather{city:"Paris"}')]),
    ],
)
def test_an_answer_goes_on_with_the_thought_that_the_prompt_opened(opened, written, chunks):
    parser = ChannelParser()
    parser.resume(opened)
    found: list[Chunk] = []
    for number, event in enumerate(events(written)):
        found += parser.control(event) if number % 2 else parser.text(event)
    found += parser.finish()
    assert [(c.kind, c.text) for c in joined(found)] == chunks
