"""Thoughts, answers and tool calls are told apart however the text is cut into pieces."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from gemma4_mlx.generation.channels import MARKERS, ChannelParser, Chunk
from gemma4_mlx.generation.tool_calls import ToolCall

PARIS = '<|tool_call>call:weather{city:<|"|>Paris<|"|>}<tool_call|>'


def parse(pieces: list[str]) -> list[Chunk]:
    """All chunks, neighbours of one kind joined; a tool call is never joined."""
    parser = ChannelParser()
    chunks = [chunk for piece in pieces for chunk in parser.feed(piece)] + parser.finish()
    assert all(chunk.text for chunk in chunks)
    joined: list[Chunk] = []
    for chunk in chunks:
        if joined and joined[-1].kind == chunk.kind != "tool_call":
            joined[-1] = Chunk(joined[-1].text + chunk.text, chunk.kind)
        else:
            joined.append(chunk)
    return joined


def both_ways(text: str) -> list[tuple[str, str]]:
    """(kind, text) of every chunk; the same whether the text comes at once or letter by letter."""
    whole = parse([text])
    assert parse(list(text)) == whole
    return [(chunk.kind, chunk.text) for chunk in whole]


fragments = st.sampled_from(
    [*MARKERS, "thought", "thought\n", "\n", " ", "a", "Hello", "<", "|", "<|", "call:f{}", "call:f{a:1}", "{", '"']
)


@given(fragments=st.lists(fragments, max_size=12), data=st.data())
@example(fragments=["<|channel>", "thought", "<|channel>", "<channel|>"], data=None)
def test_any_cutting_into_pieces_gives_the_same_chunks(fragments, data):
    text = "".join(fragments)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text))))) if data else []
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parse(pieces) == parse([text]) == parse(list(text))


@given(fragments=st.lists(fragments, max_size=12))
def test_no_marker_leaks_into_an_answer_or_a_thought(fragments):
    assert not [c for c in parse(fragments) if c.kind != "tool_call" and any(marker in c.text for marker in MARKERS)]


@given(words=st.lists(st.text(alphabet="abc <>|{}\n", min_size=1), min_size=1))
def test_text_without_markers_is_the_answer_unchanged(words):
    text = "".join(words)
    assert "".join(c.text for c in parse(words)) == text
    assert {c.kind for c in parse(words)} == {"answer"}


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
    (chunk,) = parse(list(PARIS))
    assert chunk == Chunk('call:weather{city:"Paris"}', "tool_call", ToolCall("weather", {"city": "Paris"}))


def test_text_round_tool_calls_is_answer():
    assert both_ways(f"Let me see. {PARIS}\n{PARIS}\nDone") == [
        ("answer", "Let me see. "),
        ("tool_call", 'call:weather{city:"Paris"}'),
        ("tool_call", 'call:weather{city:"Paris"}'),
        ("answer", "Done"),
    ]


def test_a_call_that_lacks_only_its_end_marker_is_a_call():
    assert [c.tool_call for c in parse([PARIS.removesuffix("<tool_call|>")])] == [
        ToolCall("weather", {"city": "Paris"})
    ]
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
