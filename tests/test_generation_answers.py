"""`generate` and `stream_generate`: what the caller gets to see of what a model writes."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import gemma4_mlx as g4
from gemma4_mlx.generation import GenerationStream, ToolCall, generate, generate_tokens, stream_generate
from gemma4_mlx.generation import loop as loop_module
from gemma4_mlx.generation.answer_reader import opened_channel
from gemma4_mlx.generation.answers import Request, end_of_turn_ids, sampling_settings
from gemma4_mlx.model.full_cache import FullCache
from gemma4_mlx.model.step import Pending
from gemma4_mlx.model.turns import Turns
from gemma4_mlx.processing import Processor
from gemma4_mlx.processing.chat import ChatTemplate
from generation_checkpoints import lively

PARIS = '<|tool_call>call:weather{city:<|"|>Paris<|"|>,days:[1,2]}<tool_call|>'


class ScriptedModel:
    """Writes the given ids whatever it is asked, then, for ever, the last of them."""

    def __init__(self, ids: list[int]) -> None:
        self.config = lively("e2b").model.config
        self.turns = Turns()
        self.language_model = lively("e2b").model.language_model  # for what its weights take
        self.ids = ids
        self.prompt_length: int | None = None

    def make_cache(self):
        return [FullCache()]

    def __call__(self, inputs, cache, last_only=False, per_layer_rows=None):
        length = (inputs if isinstance(inputs, mx.array) else inputs.input_ids).shape[1]
        position = cache[0].offset + length
        cache[0].update_and_fetch(*[mx.zeros((1, 1, length, 1))] * 2)
        if last_only:
            self.prompt_length = position
        token = self.ids[min(position - self.prompt_length, len(self.ids) - 1)]
        return (mx.arange(self.config.text.vocab_size) == token).astype(mx.float32)[None, None]

    def per_layer_rows(self, inputs):
        return None

    def step_ahead(self, ids, cache, padding=None):
        return Pending(self(ids, cache))


@pytest.fixture(scope="module")
def processor():
    return lively("e2b").processor


def with_template(processor: Processor, source: str) -> Processor:
    return Processor(processor.tokenizer, processor.config, ChatTemplate(source), processor.generation_config)


@pytest.fixture
def say(processor):
    return saying(processor)


def saying(processor: Processor):
    """Let a model write `script` (control tokens spelled out) and hand back `generate`'s result for it."""

    def run(script: str | list[int], **options):
        ids = script if isinstance(script, list) else processor.tokenizer.encode(script)
        options = {"temperature": 0, "max_tokens": len(ids), **options}
        stream = stream_generate(ScriptedModel(ids), processor, "Hello", **options)
        chunks = list(stream)
        out = generate(ScriptedModel(ids), processor, "Hello", **options)
        # The stream and the whole are one and the same, whatever is tested beside.
        assert "".join(c.text for c in chunks if c.kind == "answer") == out.text
        assert "".join(c.text for c in chunks if c.kind == "thought") == out.thought
        assert [c.tool_call for c in chunks if c.kind == "tool_call"] == out.tool_calls
        assert stream.result().tokens == out.tokens
        assert stream.result().finish_reason == out.finish_reason
        return out

    return run


def test_a_plain_answer_ends_with_its_turn(say, processor):
    out = say("Hello, you!<turn|>")
    assert (out.text, out.thought, out.tool_calls, out.finish_reason) == ("Hello, you!", "", [], "stop")
    assert out.tokens == processor.tokenizer.encode("Hello, you!<turn|>")


@pytest.mark.parametrize("end", ["<eos>", "<turn|>", "<|tool_response>"])
def test_every_end_of_turn_is_one(say, end):
    out = say(f"Yes{end}No")
    assert (out.text, out.finish_reason) == ("Yes", "stop")


def test_max_tokens_cuts_the_answer(say):
    out = say("one two three four", max_tokens=3)
    assert "one two three four".startswith(out.text)
    assert (len(out.tokens), out.finish_reason) == (3, "length")


def test_a_thought_is_told_apart_from_the_answer(say):
    out = say("<|channel>thought\nA greeting.\n<channel|>Hello!<turn|>", thinking=True)
    assert (out.text, out.thought, out.finish_reason) == ("Hello!", "A greeting.", "stop")


def test_a_model_that_spells_the_notation_has_called_nothing(say, processor):
    script = "<|channel>thought\nHm.<channel|>Hello! " + PARIS
    ids = processor.tokenizer.encode(processor.tokenizer.literal(script))
    assert len(ids) > len(processor.tokenizer.encode(script))
    out = say([*ids, *processor.tokenizer.encode("<turn|>")])
    assert (out.text, out.thought, out.tool_calls, out.finish_reason) == (script, "", [], "stop")


@pytest.mark.parametrize("end", ["<turn|>", ""])
def test_a_thought_that_never_closes_is_a_thought_and_nothing_is_lost(say, end):
    out = say("<|channel>thought\nThe answer is 4." + end)
    assert (out.text, out.thought) == ("", "The answer is 4.")


def test_a_tool_call_is_the_reason_the_turn_ended(say):
    out = say(f"I look it up.{PARIS}<|tool_response>")
    assert (out.text, out.finish_reason) == ("I look it up.", "tool_call")
    assert out.tool_calls == [ToolCall("weather", {"city": "Paris", "days": [1, 2]})]


def test_a_call_cut_off_by_max_tokens_is_no_call(say):
    out = say(PARIS.removesuffix("}<tool_call|>"))
    assert (out.tool_calls, out.finish_reason) == ([], "length")
    assert out.text == 'call:weather{city:"Paris",days:[1,2]'


def test_a_stop_string_across_tokens_ends_the_answer_and_the_work(say, processor):
    script = "the river and the house, the tree"
    out = say(script, stop="er and th")
    assert (out.text, out.finish_reason) == ("the riv", "stop")
    assert len(out.tokens) < len(processor.tokenizer.encode(script))


@settings(max_examples=50)
@given(cuts=st.lists(st.text(alphabet=" aeh", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_answer_ends_where_the_first_stop_string_is_complete(processor, cuts):
    script = "the house has a heath"
    ids = processor.tokenizer.encode(script)
    out = generate(ScriptedModel(ids), processor, "Hi", temperature=0, max_tokens=len(ids), stop=cuts)
    end = min(((script.find(c) + len(c), script.find(c)) for c in cuts if c in script), default=(0, len(script)))[1]
    assert out.text == script[:end]
    assert out.finish_reason == ("stop" if end < len(script) else "length")


def test_a_stop_string_that_only_the_last_bytes_complete_still_counts(say, processor):
    bytes_of_euro = [processor.tokenizer.token_id(f"<0x{byte:02X}>") for byte in "€".encode()]
    out = say([*processor.tokenizer.encode("5"), *bytes_of_euro], stop=["€"])
    assert (out.text, out.finish_reason) == ("5", "stop")


def test_stop_strings_are_not_looked_for_in_thoughts(say):
    out = say("<|channel>thought\none two<channel|>three two<turn|>", stop=["two"])
    assert (out.thought, out.text, out.finish_reason) == ("one two", "three ", "stop")


def test_what_was_held_back_comes_when_nothing_can_complete_it(say):
    assert say("Hello <|tool_call>call:f{}<tool_call|>x", stop=["o  "]).text == "Hello x"
    assert say("Hello<turn|>", stop=["lo!"]).text == "Hello"


def test_a_loop_is_ended(say):
    out = say("round and round we go ", max_tokens=2000)
    assert out.finish_reason == "loop"
    assert 256 <= len(out.tokens) < 1000


def test_characters_of_several_bytes_come_whole(say, processor):
    stream = stream_generate(
        ScriptedModel(processor.tokenizer.encode("👩‍👩‍👧 é 한국<turn|>")), processor, "Hi", temperature=0
    )
    chunks = [chunk.text for chunk in stream]
    assert "".join(chunks) == "👩‍👩‍👧 é 한국"
    assert not any("\ufffd" in chunk for chunk in chunks)


def test_control_tokens_leave_no_trace_in_the_answer(say):
    out = say("<bos>a<|image|>b<pad><|think|>c<channel|>d<tool_response|>e<turn|>")
    assert out.text == "abcde"


def test_stats_count_and_add_up(say, processor):
    out = say("Hello, you!<turn|>")
    stats = out.stats
    assert stats.prompt_tokens == processor("Hello").input_ids.shape[1]
    assert stats.generation_tokens == len(out.tokens)
    assert 0 < stats.prompt_tokens / stats.prompt_tps <= stats.ttft_s
    assert stats.generation_tps > 0
    assert stats.peak_memory_bytes > 0


def test_a_stream_tells_what_has_come_so_far(processor):
    ids = processor.tokenizer.encode("the house and the river")
    stream = stream_generate(ScriptedModel(ids), processor, "Hi", temperature=0, max_tokens=len(ids))
    assert isinstance(stream, GenerationStream)
    assert (stream.result().text, stream.result().tokens) == ("", [])
    first = next(stream)
    assert stream.result().text == first.text
    assert first.text + "".join(chunk.text for chunk in stream) == "the house and the river"
    assert stream.result().text == "the house and the river"
    assert list(stream) == []


def test_ctrl_c_in_a_stream_leaves_its_text_so_far(processor):
    class Interrupted(ScriptedModel):
        def __call__(self, inputs, cache, last_only=False, per_layer_rows=None):
            if self.prompt_length and cache[0].offset == self.prompt_length + 4:
                raise KeyboardInterrupt
            return super().__call__(inputs, cache, last_only)

    ids = processor.tokenizer.encode("the house and the river")
    stream = stream_generate(Interrupted(ids), processor, "Hi", temperature=0, max_tokens=len(ids))
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert stream.result().tokens == ids[:4]
    assert stream.result().text == processor.tokenizer.decode(ids[:4])


@pytest.mark.parametrize(
    "options",
    [{"max_tokens": 0}, {"max_tokens": -5}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"stop": ""}],
)
def test_a_setting_out_of_range_is_refused_at_the_call(processor, options):
    with pytest.raises(ValueError, match="must"):
        stream_generate(ScriptedModel([1]), processor, "Hi", **options)


def test_a_prompt_longer_than_the_context_is_refused_at_the_call(processor):
    with pytest.raises(g4.ContextLengthError):
        stream_generate(ScriptedModel([1]), processor, "the house " * 5000)


def test_settings_come_from_the_caller_then_the_checkpoint_then_what_was_published():
    published = {"temperature": 1.0, "top_p": 0.95, "top_k": 64}
    assert sampling_settings({}, Request()) == published
    assert sampling_settings({"top_k": 20, "top_p": None}, Request()) == {**published, "top_k": 20}
    assert sampling_settings({"top_k": 20}, Request(temperature=0.0, top_p=1.0, top_k=0)) == {
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
    }
    assert sampling_settings({"do_sample": False}, Request())["temperature"] == 0.0
    assert sampling_settings({"do_sample": False}, Request(temperature=0.7))["temperature"] == 0.7


def test_a_checkpoint_without_generation_config_still_ends_its_turns(processor, monkeypatch):
    ids = end_of_turn_ids(processor)
    monkeypatch.setattr(processor, "generation_config", {})
    assert end_of_turn_ids(processor) == ids
    monkeypatch.setattr(processor, "generation_config", {"eos_token_id": 300})
    assert end_of_turn_ids(processor) == ids | {300}


def test_a_real_model_answers_a_picture_the_same_in_pieces_and_whole(monkeypatch):
    model, processor = lively("moe").model, lively("moe").processor
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 144, 3), dtype=np.uint8))
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "What is in the picture?"}]
    messages = [{"role": "user", "content": parts}]
    out = generate(model, processor, messages, temperature=0, max_tokens=12)
    monkeypatch.setattr(loop_module, "PREFILL_TOKENS", 5)
    assert out.tokens == list(generate_tokens(model, processor(messages), max_tokens=12))


def test_a_seed_repeats_an_answer_and_no_seed_varies_it():
    model, processor = lively("e2b").model, lively("e2b").processor

    def tokens(seed):
        return generate(model, processor, "Hello", seed=seed, max_tokens=24).tokens

    assert tokens(1) == tokens(1) != tokens(2)
    assert tokens(None) != tokens(None)


def test_generate_and_stream_generate_take_the_same_arguments():
    assert inspect.signature(generate).parameters == inspect.signature(stream_generate).parameters


# What the makers' templates do after a tool's result when the model may think, and a text that only spells it.
OPENING_TEMPLATE = """{{ bos_token }}<|turn>user
{{ messages[-1]['content'] }}<turn|>
<|turn>model
{% if enable_thinking %}{{ '<|channel>thought\n' }}{% endif %}"""


@pytest.fixture
def opening(processor):
    return with_template(processor, OPENING_TEMPLATE)


def test_a_thought_that_the_prompt_opened_is_a_thought(opening):
    say = saying(opening)
    out = say("The user greets.\n<channel|>Hello!<turn|>", thinking=True)
    assert (out.thought, out.text) == ("The user greets.", "Hello!")
    out = say("The user greets." + PARIS + "<|tool_response>", thinking=True)
    assert (out.thought, out.text) == ("The user greets.", "")
    assert out.tool_calls == [ToolCall("weather", {"city": "Paris", "days": [1, 2]})]
    out = say("Hello!<turn|>", thinking=False)
    assert (out.thought, out.text) == ("", "Hello!")


def test_a_question_that_spells_an_open_thought_opens_none(opening):
    ids = opening.tokenizer.encode("Hello!<turn|>")
    out = generate(ScriptedModel(ids), opening, "What is <|channel>thought\n", temperature=0)
    assert (out.thought, out.text) == ("", "Hello!")


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|turn>model\n<|channel>thought\n", "thought\n"),
        ("<|turn>model\n<|channel>", ""),
        ("<|turn>model\n<|channel>thought\nSo far", "thought\nSo far"),
        ("<|turn>model\n<|channel>thought\n<channel|>", None),
        ("<|turn>model\n<|channel>thought\n<channel|><|channel>thought\n", "thought\n"),
        ("<|channel>thought\nnever closed<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\n", None),
        ("<|channel>thought\n<|tool_call>call:f{}<tool_call|>", None),
        ("<|turn>model\n", None),
        ("", None),
    ],
)
def test_a_prompt_ends_in_a_thought_when_nothing_has_closed_it(processor, prompt, opened):
    assert opened_channel(processor.tokenizer, processor.tokenizer.encode(prompt)) == opened
    assert opened_channel(processor.tokenizer, processor.tokenizer.encode(processor.tokenizer.literal(prompt))) is None


def test_a_call_that_cannot_be_read_is_told(say):
    out = say("<|tool_call>call:f{a:b:c}<tool_call|><turn|>")
    assert (out.text, out.tool_calls, out.unread_calls, out.finish_reason) == (
        "call:f{a:b:c}",
        [],
        ["call:f{a:b:c}"],
        "stop",
    )


def test_a_declared_tool_settles_what_a_call_means(say):
    script = "<|tool_call>call:f{zip:007}<tool_call|><turn|>"
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"zip": {"type": "string"}}}}
    assert say(script).tool_calls == []
    assert say(script, tools=[tool]).tool_calls == [ToolCall("f", {"zip": "007"})]


REAL_TEMPLATES = Path(__file__).parents[1].parent / "shared" / "real" / "templates"


@pytest.mark.parametrize(("name", "opens"), [("e2b", True), ("31b", True), ("vllm-mod", True), ("older", False)])
def test_after_a_tools_result_the_makers_templates_open_a_thought(processor, name, opens):
    path = REAL_TEMPLATES / f"{name}.jinja"
    if not path.is_file():
        pytest.skip("the makers' templates are not here: ../shared/real")
    processor = with_template(processor, path.read_text(encoding="utf-8"))
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "name": "weather", "content": "sunny"},
    ]
    for thinking in (True, False):
        prompt = processor(messages, thinking=thinking).input_ids[0].tolist()
        assert opened_channel(processor.tokenizer, prompt) == ("thought\n" if opens and thinking else None)
        assert opened_channel(processor.tokenizer, processor("Hi", thinking=thinking).input_ids[0].tolist()) is None
    ids = processor.tokenizer.encode("It is sunny.<channel|>Take a hat.<turn|>")
    out = generate(ScriptedModel(ids), processor, messages, thinking=True, temperature=0)
    assert (out.thought, out.text) == (("It is sunny.", "Take a hat.") if opens else ("", "It is sunny.Take a hat."))


@pytest.mark.parametrize("questions", range(1, 6))
def test_a_stopped_answer_is_what_came_until_then_and_says_so(processor, questions):
    ids = processor.tokenizer.encode("one two three four five<turn|>")
    asked = iter([False] * questions + [True])
    out = generate(ScriptedModel(ids), processor, "Hello", temperature=0, should_stop=lambda: next(asked))
    assert out.tokens == ids[: questions - 1]  # the first question came before the prompt
    assert out.text == processor.tokenizer.decode(out.tokens)
    assert out.finish_reason == "stopped"


def test_stopped_in_the_middle_of_a_call_no_tool_is_called(processor):
    ids = processor.tokenizer.encode(PARIS + "<turn|>")
    for questions in range(len(ids)):
        asked = iter([False] * questions + [True])
        out = generate(ScriptedModel(ids), processor, "Hello", temperature=0, should_stop=lambda it=asked: next(it))
        assert out.finish_reason == "stopped"


def test_an_answer_that_ended_by_itself_was_not_stopped(processor):
    ids = processor.tokenizer.encode("one<turn|>")
    asked: list[int] = []
    out = generate(ScriptedModel(ids), processor, "Hello", temperature=0, should_stop=lambda: len(asked) > 0)
    assert (out.text, out.finish_reason) == ("one", "stop")
    out = generate(ScriptedModel(ids), processor, "Hello", temperature=0, max_tokens=1, should_stop=lambda: False)
    assert out.finish_reason == "length"


def test_both_ways_to_ask_and_the_request_itself_have_the_same_arguments_and_defaults() -> None:
    whole, stream = inspect.signature(generate), inspect.signature(stream_generate)
    assert whole.parameters == stream.parameters
    assert whole.return_annotation == "Generation"
    options = {name: p.default for name, p in whole.parameters.items() if p.kind is p.KEYWORD_ONLY}
    for_servers = {"must_call", "several_calls"}
    assert options == {f.name: f.default for f in dataclasses.fields(Request) if f.name not in for_servers}
    assert all(f"{name}" in (generate.__doc__ or "") for name in options)
    with pytest.raises(TypeError, match="invented"):
        generate(None, None, "", invented=1)  # type: ignore[call-arg, arg-type]
