"""Answers of a server: they come and go between steps, and each is what its prompt gets alone."""

from __future__ import annotations

import pytest

import gemma4_mlx as g4
from gemma4_mlx.generation import loop
from gemma4_mlx.generation.answers import Request
from gemma4_mlx.generation.many_answers import ManyAnswers

QUESTIONS = ["How do I chat?", "What is MLX?", "Does my data leave this Mac?", "Who are you? " * 30]
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "", "parameters": CITY}},
    {"type": "function", "function": {"name": "weather_now", "description": ""}},
]


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo", dtype="float32")


def finish(many: ManyAnswers) -> None:
    while not many.are_over:
        many.step()


def greedy(**settings) -> Request:
    return Request(**{"max_tokens": 20, "temperature": 0.0, **settings})


def test_eight_at_once_get_the_tokens_that_each_gets_alone(demo):
    many = ManyAnswers(*demo, at_once=8, cache_bytes=0)
    answers = [many.begin(question, greedy()) for question in QUESTIONS * 2]
    finish(many)
    alone = [g4.generate(*demo, question, max_tokens=20, temperature=0.0) for question in QUESTIONS] * 2
    assert [answer.result().tokens for answer in answers] == [answer.tokens for answer in alone]
    assert [answer.result().finish_reason for answer in answers] == [answer.finish_reason for answer in alone]


def test_no_more_than_so_many_are_in_work_and_the_chunks_add_up(demo):
    many = ManyAnswers(*demo, at_once=2, cache_bytes=0)
    answers = [many.begin(question, greedy()) for question in QUESTIONS]
    texts = dict.fromkeys(answers, "")
    while not many.are_over:
        for answer in many.step():
            texts[answer] += "".join(chunk.text for chunk in answer.take_chunks())
        assert len(many._rows) + len(many._reading) <= 2
    assert [texts[answer] for answer in answers] == [answer.result().text for answer in answers]


def test_an_answer_that_is_not_wanted_any_more_leaves_within_a_step_whatever_it_was_doing(demo):
    many = ManyAnswers(*demo, at_once=2, cache_bytes=0)
    writing, reading, waiting = (many.begin(text, greedy()) for text in ("Hello!", "Hello! " * 700, "Who are you?"))
    many.step()
    many.step()
    assert many._rows == [writing]
    assert list(many._reading) == [reading]
    for answer in (writing, reading, waiting):
        answer.stop()
    assert set(many.step()) == {writing, reading, waiting}
    assert many.are_over
    assert writing.result().finish_reason == "stopped"


def test_answers_go_on_while_a_long_prompt_is_read(demo, monkeypatch):
    monkeypatch.setattr(loop, "PREFILL_TOKENS", 128)
    many = ManyAnswers(*demo, at_once=2, cache_bytes=0)
    short = many.begin("How do I chat?", greedy(max_tokens=6))
    many.step()
    long = many.begin("Hello! " * 400, greedy(max_tokens=1))
    assert long.prompt_tokens > 6 * 128
    while not short.is_over:
        many.step()
    assert not long.is_over
    finish(many)
    assert long.result().tokens


def test_a_prompt_that_begins_as_one_before_reads_only_the_rest(demo):
    many = ManyAnswers(*demo, at_once=2, cache_bytes=10**9)
    system = {"role": "system", "content": "Answer briefly. " * 40}
    first = many.begin([system, {"role": "user", "content": "How do I chat?"}], greedy())
    finish(many)
    said = {"role": "assistant", "content": first.result().text}
    turns = [system, {"role": "user", "content": "How do I chat?"}, said, {"role": "user", "content": "What is MLX?"}]
    second = many.begin(turns, greedy())
    other = many.begin([system, {"role": "user", "content": "Hello!"}], greedy())
    finish(many)
    assert first.result().stats.cached_tokens == 0
    assert second.result().stats.cached_tokens >= first.prompt_tokens - 8
    assert other.result().stats.cached_tokens > 100
    assert second.result().tokens == g4.generate(*demo, turns, max_tokens=20, temperature=0.0).tokens


def test_a_conversation_of_many_turns_reads_only_what_is_new(demo):
    many = ManyAnswers(*demo, at_once=3, cache_bytes=10**9)
    turns = [{"role": "system", "content": "Answer briefly. " * 40}]
    for number in range(6):
        turns.append({"role": "user", "content": QUESTIONS[number % 3]})
        answer = many.begin(turns, greedy(max_tokens=60))
        others = [many.begin(QUESTIONS[3], greedy(max_tokens=5 + number)) for _ in range(2)]
        finish(many)
        result = answer.result()
        assert result.finish_reason == "stop"
        if number:
            new = result.stats.prompt_tokens - result.stats.cached_tokens
            assert new <= len(demo[1].tokenizer.encode(QUESTIONS[number % 3])) + 14
        alone = g4.generate(*demo, turns, max_tokens=60, temperature=0.0)
        assert result.text == alone.text
        assert all(len(other.result().tokens) == 5 + number for other in others)
        turns.append({"role": "assistant", "content": result.text})


def test_prompts_beyond_the_memory_for_them_are_forgotten_the_least_used_first(demo):
    texts = [f"{number} {'Hello! ' * 100}" for number in (1, 2, 3)]
    many = ManyAnswers(*demo, at_once=1, cache_bytes=10**9)
    many.begin(texts[0], greedy(max_tokens=1))
    finish(many)
    one = many.conversations.nbytes
    many = ManyAnswers(*demo, at_once=1, cache_bytes=int(2.5 * one))
    reused = []
    for text in (*texts[:2], texts[0], texts[2], texts[0], texts[1]):
        answer = many.begin(text, greedy(max_tokens=1))
        finish(many)
        reused.append(answer.result().stats.cached_tokens > 50)
    assert reused == [False, False, True, False, True, False]
    assert many.conversations.nbytes <= 2.5 * one


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("names", [("weather",), ("weather", "weather_now")])
def test_a_call_that_must_come_comes_and_follows_its_schema(demo, names, thinking):
    many = ManyAnswers(*demo, at_once=4, cache_bytes=0)
    settings = {"tools": TOOLS, "must_call": names, "several_calls": False, "thinking": thinking}
    answers = [many.begin("Hello!", Request(max_tokens=250, seed=seed, **settings)) for seed in range(4)]
    finish(many)
    for answer in answers:
        result = answer.result()
        assert answer.error is None
        if result.finish_reason == "length":
            assert thinking  # for ever
            continue
        assert result.finish_reason == "tool_call"
        assert result.text == ""
        [call] = result.tool_calls
        assert call.name in names
        assert call.arguments in ([{"city": "Rome"}, {"city": "Oslo"}] if call.name == "weather" else [{}])


def test_a_schema_that_cannot_be_enforced_is_refused_by_the_tool_s_name(demo):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}
    with pytest.raises(ValueError, match=r"no call of the tool f can be required.*not cannot be enforced"):
        ManyAnswers(*demo, 1, 0).begin("Hello!", Request(tools=[tool], must_call=["f"]))


def test_what_fails_in_one_answer_leaves_the_others_alone(demo):
    many = ManyAnswers(*demo, at_once=2, cache_bytes=0)
    good = many.begin("How do I chat?", greedy())
    schema = {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "minItems": 2}
    bad = many.begin("Numbers", greedy(schema=schema))
    many.step()
    many.step()
    bad._choose._choose = _raises
    finish(many)
    assert "no further" in str(bad.error)
    assert good.result().tokens == g4.generate(*demo, "How do I chat?", max_tokens=20, temperature=0.0).tokens


def _raises(logits):
    raise ValueError("no further")
