"""Many prompts at once, and given answers scored: the same as one by one."""

from __future__ import annotations

import pickle

import mlx.core as mx
import numpy as np
import pytest

import gemma4_mlx as g4
from command_line import picture
from gemma4_mlx.generation.should_stop import StopAsked
from gemma4_mlx.speech import Transcription, TranscriptionError

QUESTIONS = [
    "How do I chat?",
    "What is MLX?",
    "Does my data leave this Mac?",
    "Hello!",
    "Who are you? " * 30,
]


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo", dtype="float32")


def prompts() -> list:
    look = [{"type": "image", "image": str(picture())}, {"type": "text", "text": "What is in this picture?"}]
    sound = (0.1 * np.sin(np.arange(16_000) / 20)).astype(np.float32)
    hear = [{"type": "text", "text": "What is said?"}, {"type": "audio", "audio": sound}]
    chats = [[{"role": "user", "content": look}], [{"role": "user", "content": hear}]]
    return [*QUESTIONS, *chats] * 5  # more than are answered at a time


def test_each_answer_is_the_one_its_prompt_gets_alone(demo):
    done = []
    together = g4.batch_generate(
        *demo, prompts(), max_tokens=24, temperature=0, on_done=lambda place, answer: done.append((place, answer))
    )
    alone = [g4.generate(*demo, prompt, max_tokens=24, temperature=0) for prompt in prompts()[:7]] * 5
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
    assert [answer.finish_reason for answer in together] == [answer.finish_reason for answer in alone]
    assert sorted(place for place, _ in done) == list(range(35))
    assert all(together[place].text == answer.text for place, answer in done)


def test_with_a_seed_drawn_answers_are_those_of_each_alone(demo):
    together = g4.batch_generate(*demo, QUESTIONS, max_tokens=12, temperature=1.0, seed=np.int64(3), stop=" the")
    alone = [g4.generate(*demo, q, max_tokens=12, temperature=1.0, seed=3, stop=" the") for q in QUESTIONS]
    assert [(answer.text, answer.finish_reason) for answer in together] == [
        (answer.text, answer.finish_reason) for answer in alone
    ]


def test_no_prompts_give_no_answers_and_a_wrong_one_is_refused_before_any_is_answered(demo):
    assert g4.batch_generate(*demo, []) == []
    answered = []
    with pytest.raises(g4.InputError):
        g4.batch_generate(*demo, ["Hello!", [{"role": "nobody"}]], on_done=lambda *_: answered.append(1))
    assert answered == []
    with pytest.raises(ValueError, match="max_tokens"):
        g4.batch_generate(*demo, ["Hello!"], max_tokens=0)


@pytest.mark.parametrize("steps", [0, 1, 5, 40])
def test_stopped_at_any_step_every_prompt_has_what_has_come_so_far(demo, steps):
    left = iter(range(steps))
    answers = g4.batch_generate(*demo, prompts(), temperature=0, should_stop=lambda: next(left, None) is None)
    whole = [g4.generate(*demo, prompt, temperature=0) for prompt in prompts()[:7]] * 5
    assert len(answers) == 35
    assert any(answer.finish_reason == "stopped" for answer in answers)
    for answer, right in zip(answers, whole, strict=True):
        assert right.tokens[: len(answer.tokens)] == answer.tokens
        assert answer.finish_reason in ("stopped", right.finish_reason)


def test_a_yes_is_not_asked_for_again():
    answers = iter([False, True])
    asked = StopAsked(lambda: next(answers))
    assert [asked(), asked(), asked()] == [False, True, True]


def test_the_answer_it_gives_is_the_likeliest_of_several_and_numbers_are_those_of_reading_each_whole(demo):
    model, processor = demo
    right = g4.generate(*demo, QUESTIONS[2], temperature=0).text
    choices = [right, right + " Or so.", "call 4 2 7 1", "No."]
    scores = g4.score(*demo, QUESTIONS[2], choices)
    assert max(scores) == scores[0]
    assert all(value < 0 for value in scores)
    prompt = processor(QUESTIONS[2]).input_ids
    for choice, value in zip(choices, scores, strict=True):
        ids = processor.tokenizer.encode(choice)
        logits = model(mx.concatenate([prompt, mx.array([ids])], axis=1))[0, prompt.shape[1] - 1 :]
        likely = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        ends = sorted(g4.generation.answers.end_of_turn_ids(processor))
        whole = likely[np.arange(len(ids)), ids].sum() + np.log(np.exp(likely[-1, ends]).sum())
        assert value == pytest.approx(float(whole), abs=1e-3)


@pytest.mark.parametrize("choices", [[], "yes", [""], [1]])
def test_what_is_no_choice_is_refused(demo, choices):
    with pytest.raises(ValueError, match="choice"):
        g4.score(*demo, "Hello!", choices)


def test_a_prompt_is_counted_and_one_too_long_tells_both_numbers(demo):
    model, processor = demo
    assert model.context_length == 8192
    assert processor.count_tokens("Hello!") == processor("Hello!").input_ids.shape[1]
    with pytest.raises(g4.ContextLengthError) as refused:
        processor.count_tokens("Hello! " * 8192)
    assert (refused.value.limit, refused.value.tokens > 8192) == (8192, True)
    assert "shorten it" in str(refused.value)


@pytest.mark.parametrize(
    "error",
    [
        g4.ContextLengthError("too long", 9, 8),
        TranscriptionError("damaged", Transcription("a", (), None, 1.0, None)),
        g4.CheckpointError("gone"),
    ],
)
def test_errors_come_whole_out_of_another_process(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert vars(again) == vars(error)


def test_a_stream_in_a_with_statement_ends_with_it_and_keeps_what_came(demo):
    with g4.stream_generate(*demo, QUESTIONS[0], temperature=0) as stream:
        first = next(stream)
    assert next(stream, None) is None
    assert str(stream.result()) == first.text
    stream.close()


def test_what_a_person_prints_is_one_line(demo):
    model, processor = demo
    assert repr(model) == "Gemma4(6 layers, 128 wide: text, pictures, sound)"
    assert repr(processor) == "Processor(960 tokens)"
    assert repr(g4.ConversationCache(model)) == "ConversationCache(0 tokens, 0.0 MB)"


def test_everything_a_caller_handles_is_a_public_name():
    assert set(g4.__all__) == set(dir(g4))
    assert all(getattr(g4, name) is not None for name in g4.__all__)
    assert {"Generation", "Chunk", "ToolCall", "Segment", "Transcription", "TranscriptionError"} <= set(dir(g4))
