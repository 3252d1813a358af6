"""A conversation's cache: what is new is read, nothing else, and the tokens are those of a fresh prefill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import gemma4_mlx as g4
from ctrl_c import CtrlC, memory_ends_at_step
from gemma4_mlx.generation import ConversationCache, generate, generate_tokens, stream_generate
from gemma4_mlx.generation import loop as loop_module
from gemma4_mlx.model import Gemma4
from gemma4_mlx.model.sliding_cache import SlidingCache
from gemma4_mlx.model.vision import VisionTower
from generation_checkpoints import lively, prompt_of

VARIANTS = ("e2b", "moe", "dense")


@pytest.fixture
def pieces(monkeypatch) -> list[int]:
    """How many tokens each call of a model reads, steps left out."""
    lengths: list[int] = []
    call = Gemma4.__call__

    def counting(self, inputs, *args, **options):
        lengths.append((inputs.input_ids if isinstance(inputs, g4.ModelInputs) else inputs).shape[1])
        return call(self, inputs, *args, **options)

    monkeypatch.setattr(Gemma4, "__call__", counting)
    return lengths


def fresh(model: Gemma4, prompt: Any, max_tokens: int = 12) -> list[int]:
    return list(generate_tokens(model, prompt, max_tokens=max_tokens))


def cached(cache: ConversationCache, prompt: Any, max_tokens: int = 12) -> list[int]:
    return list(generate_tokens(cache.model, prompt, max_tokens=max_tokens, cache=cache))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_second_turn_reads_only_what_is_new(variant, pieces):
    model = lively(variant).model
    cache = ConversationCache(model)
    prompt = prompt_of(100)
    answer = cached(cache, prompt)
    assert (sum(pieces), cache.reused, cache.tokens) == (100, 0, 111)
    pieces.clear()
    more = [*prompt, *answer, *prompt_of(9, seed=1)]
    second = cached(cache, more)
    assert (pieces, cache.reused) == ([10], 111)  # the answer's last token had not been read
    assert second == fresh(model, more)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("back", [1, 5, 23, 24, 30])
def test_a_turn_that_parts_from_the_last_one_near_its_end_is_read_from_there(variant, back, pieces):
    """An answer trimmed, stopped or tokenized in another way; long enough for the rings to have wrapped since."""
    model = lively(variant).model
    cache = ConversationCache(model)
    prompt = prompt_of(100)
    answer = cached(cache, prompt, max_tokens=70)
    kept = [*prompt, *answer][: 169 - back]
    other = (kept[-1] + 1 if kept[-1] < 511 else 30, *prompt_of(8, seed=1))
    pieces.clear()
    assert cached(cache, [*kept[:-1], *other]) == fresh(model, [*kept[:-1], *other])
    if back < 12:
        assert cache.reused == len(kept) - 1
    else:  # within a long answer: from the end of its prompt
        assert cache.reused >= 100


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("length", [1, 2, 24, 100])
def test_an_answer_is_written_anew_after_reading_one_token(variant, length, pieces):
    model = lively(variant).model
    cache = ConversationCache(model)
    prompt = prompt_of(length)
    first = cached(cache, prompt, max_tokens=40)
    for _ in range(2):
        pieces.clear()
        assert cached(cache, prompt, max_tokens=40) == first
        assert (pieces, cache.reused) == ([1], length - 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_thought_left_out_of_the_next_prompt_is_forgotten(variant):
    model = lively(variant).model
    cache = ConversationCache(model)
    prompt = prompt_of(100)
    written = cached(cache, prompt, max_tokens=90)
    more = [*prompt, *written[80:], *prompt_of(9, seed=1)]
    assert cached(cache, more) == fresh(model, more)
    assert cache.reused == 100


@pytest.mark.parametrize("variant", VARIANTS)
def test_undone_and_edited_turns_are_read_from_where_they_begin(variant):
    model = lively(variant).model
    cache = ConversationCache(model)
    conversation = prompt_of(60)
    begins = []
    for turn in range(5):
        if turn:
            begins.append(len(conversation))
        conversation = [*conversation, *prompt_of(30, seed=turn)]
        conversation += cached(cache, conversation, max_tokens=40)
    for begin in reversed(begins):  # the last turn undone, then the one before it, …
        edited = [*conversation[:begin], *prompt_of(30, seed=10 + begin)]
        assert cached(cache, edited) == fresh(model, edited)
        assert cache.reused >= begin - 41  # at worst the answer before it is read again


def test_another_beginning_is_another_conversation(pieces):
    model = lively("e2b").model
    cache = ConversationCache(model)
    cached(cache, prompt_of(100))
    other = prompt_of(100, seed=1)
    assert cached(cache, other) == fresh(model, other)
    assert cache.reused == 0
    assert cached(cache, other[:1]) == fresh(model, other[:1])
    assert cache.reused == 0


def state(cache: list[Any]) -> Iterator[np.ndarray]:
    """What later tokens can see of what a cache holds, layer by layer."""
    for layer_cache in cache:
        if isinstance(layer_cache, SlidingCache):
            start = max(0, layer_cache.offset - layer_cache.window + 1)
            yield from map(np.array, layer_cache.tokens(start, layer_cache.offset))
        else:
            yield from (np.array(buffer[..., : layer_cache.offset, :]) for buffer in layer_cache.buffers)


@pytest.mark.parametrize(("length", "kept"), [(100, (1, 9, 21)), (100, (49, 59)), (9, (2, 14, 21))])
@pytest.mark.parametrize("kv_bits", [None, 8])
@pytest.mark.parametrize("variant", VARIANTS)
def test_going_back_restores_every_layer_bit_for_bit(variant, kv_bits, length, kept):
    """To where another cache stands that read and wrote the same, but never went further."""
    model, prompt = lively(variant).model, prompt_of(length)
    written = 22 if max(kept) < 22 else 61
    for count in kept:
        cache, twin = (ConversationCache(model, kv_bits=kv_bits) for _ in range(2))
        answer = cached(cache, prompt, max_tokens=written)
        stopped = generate_tokens(model, prompt, max_tokens=61, cache=twin)
        assert list(islice(stopped, count)) == answer[:count]
        stopped.close()
        further = g4.ModelInputs(mx.array([[*prompt, *answer[:count], (answer[count] + 1) % 512]]))
        went_back, stayed = cache.begin(further), twin.begin(further)
        assert (cache.reused, twin.reused) == (length + count, length + count)
        assert all(map(np.array_equal, state(went_back.cache), state(stayed.cache)))


@pytest.mark.parametrize("kv_bits", [8, 4])
def test_packed_keys_and_values_stay_packed(kv_bits):
    model, prompt = lively("dense").model, prompt_of(90)
    packed, plain = ConversationCache(model, kv_bits=kv_bits), ConversationCache(model)
    first = cached(packed, prompt)
    assert first == list(generate_tokens(model, prompt, max_tokens=12, cache=model.make_cache(kv_bits)))
    assert cached(packed, prompt) == first
    cached(plain, prompt)
    assert packed.nbytes < 0.8 * plain.nbytes


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (96, 144, 3), dtype=np.uint8))


def sound(seed: int, seconds: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)


def said(role: str, text: str, *media: Any) -> dict[str, Any]:
    kinds = ["audio" if isinstance(medium, np.ndarray) else "image" for medium in media]
    parts = [{"type": kind, kind: medium} for kind, medium in zip(kinds, media, strict=True)]
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_picture_is_seen_once_and_another_of_the_same_size_is_another_one(variant, monkeypatch):
    model, processor = lively(variant).model, lively(variant).processor
    seen = []
    tower = VisionTower.__call__
    monkeypatch.setattr(VisionTower, "__call__", lambda self, image: seen.append(image) or tower(self, image))
    cache = ConversationCache(model)

    def answer(messages) -> g4.generation.Generation:
        seen.clear()
        return generate(model, processor, messages, temperature=0, max_tokens=12, cache=cache, image_tokens=70)

    first = [said("user", "What is in the picture?", picture(0))]
    answers = [answer(first)]
    assert (len(seen), answers[0].stats.cached_tokens) == (1, 0)
    second = [*first, said("assistant", answers[0].text), said("user", "And here?", picture(1))]
    answers.append(answer(second))
    assert (len(seen), answers[1].stats.cached_tokens > 60) == (1, True)
    for changed in (picture(2), picture(0).rotate(90, expand=True)):
        other = [said("user", "What is in the picture?", changed), *second[1:]]
        in_place_of_the_first = answer(other)
        assert (len(seen), in_place_of_the_first.stats.cached_tokens < 10) == (1, True)
        assert in_place_of_the_first.tokens == answer(other).tokens == fresh(model, processor(other, image_tokens=70))
    assert answer(second).tokens == answers[1].tokens == fresh(model, processor(second, image_tokens=70))


def test_sound_is_heard_once_and_another_of_the_same_length_is_another_one():
    model, processor = lively("e2b").model, lively("e2b").processor
    cache = ConversationCache(model)
    first = [said("user", "What is said?", sound(0, 2.0))]
    answer = generate(model, processor, first, temperature=0, max_tokens=12, cache=cache)
    again = [*first, said("assistant", answer.text), said("user", "Really?")]
    out = generate(model, processor, again, temperature=0, max_tokens=12, cache=cache)
    assert out.stats.cached_tokens > 50
    assert out.tokens == fresh(model, processor(again))
    again[0] = said("user", "What is said?", sound(1, 2.0))
    out = generate(model, processor, again, temperature=0, max_tokens=12, cache=cache)
    assert out.stats.cached_tokens < 10
    assert out.tokens == fresh(model, processor(again))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_prompt_is_never_cut_within_a_picture(variant):
    """Not even if it ends with one, where its last token has to be read again."""
    model, processor = lively(variant).model, lively(variant).processor
    inputs = processor([said("user", "", picture(0))], image_tokens=70)
    end = int(np.flatnonzero(np.array(inputs.input_ids)[0] == model.config.image_token_id)[-1]) + 1
    prompt = g4.ModelInputs(inputs.input_ids[:, :end], inputs.images)
    cache = ConversationCache(model)
    assert cached(cache, prompt) == cached(cache, prompt) == fresh(model, prompt)
    assert cache.reused < 10


def test_soft_tokens_without_a_picture_are_an_error_and_change_nothing():
    model, processor = lively("e2b").model, lively("e2b").processor
    cache = ConversationCache(model)
    cached(cache, prompt_of(30))
    inputs = processor([said("user", "", picture(0), picture(1))], image_tokens=70)
    with pytest.raises(ValueError, match="no picture or sound to fill them"):
        cached(cache, g4.ModelInputs(inputs.input_ids, inputs.images[:1]))
    assert cache.tokens == 41


def continues_exactly(cache: ConversationCache, prompt: list[int], tokens: list[int], uninterrupted: list[int]) -> bool:
    """Whether the conversation goes on from what has been handed out as if nothing had happened."""
    assert tokens == uninterrupted[: len(tokens)]
    assert cache.tokens <= len(prompt) + len(tokens)
    held = cache.tokens
    further = cached(cache, [*prompt, *uninterrupted[: len(tokens) + 1]], max_tokens=3)
    assert cache.reused == held
    return further == uninterrupted[len(tokens) + 1 : len(tokens) + 4]


@pytest.mark.parametrize("taken", [1, 2, 50])
def test_an_answer_that_is_closed_leaves_what_was_handed_out(taken):
    model, prompt = lively("e2b").model, prompt_of(100)
    uninterrupted = fresh(model, prompt, max_tokens=60)
    cache = ConversationCache(model)
    stream = generate_tokens(model, prompt, max_tokens=60, cache=cache)
    tokens = list(islice(stream, taken))
    stream.close()
    assert cache.tokens == 100 + taken
    assert continues_exactly(cache, prompt, tokens, uninterrupted)


def test_ctrl_c_anywhere_leaves_a_cache_that_continues_exactly(monkeypatch):
    monkeypatch.setattr(loop_module, "PREFILL_TOKENS", 16)
    where = ("generation/loop.py", "generation/decode.py", "generation/conversation_cache.py", "contextlib.py")
    model, before, total = lively("dense").model, prompt_of(60), 4
    held = ConversationCache(model)
    prompt = [*before, *cached(held, before, max_tokens=30)[:20], *prompt_of(40, seed=1)]
    uninterrupted = fresh(model, prompt, max_tokens=total + 4)

    def in_the_middle_of_a_conversation() -> ConversationCache:
        cache = ConversationCache(model)
        cached(cache, before, max_tokens=30)
        return cache

    cache = in_the_middle_of_a_conversation()
    with CtrlC(-1, where) as counter:
        cached(cache, prompt, max_tokens=total)
    held_after = set()
    for line in np.linspace(1, counter.lines, 40, dtype=int).tolist():
        cache, tokens = in_the_middle_of_a_conversation(), []
        with suppress(KeyboardInterrupt), CtrlC(line, where):
            for token in generate_tokens(model, prompt, max_tokens=total, cache=cache):
                tokens.append(token)
        held_after.add(cache.tokens)
        if cache.tokens == 89:  # before it had begun
            assert cached(cache, prompt, max_tokens=total) == uninterrupted[:total]
        else:
            assert continues_exactly(cache, prompt, tokens, uninterrupted)
    # Before it went back, after it, within the prompt, and while writing.
    assert held_after == {89, 80, 92, 104, 120, 121, 122, 123}


def test_an_error_in_the_middle_leaves_a_cache_that_continues_exactly(monkeypatch):
    model, prompt = lively("e2b").model, prompt_of(40)
    uninterrupted = fresh(model, prompt)
    cache, tokens = ConversationCache(model), []
    with monkeypatch.context() as patch:
        memory_ends_at_step(3, patch)
        with pytest.raises(MemoryError):
            tokens.extend(generate_tokens(model, prompt, max_tokens=10, cache=cache))
    assert len(tokens) == 2
    assert continues_exactly(cache, prompt, tokens, uninterrupted)


def test_a_later_prompt_ends_an_answer_still_being_written():
    model, prompt = lively("e2b").model, prompt_of(40)
    cache = ConversationCache(model)
    first = generate_tokens(model, prompt, cache=cache)
    tokens = list(islice(first, 5))
    never_begun = generate_tokens(model, prompt_of(40, seed=2), cache=cache)
    more = [*prompt, *tokens, *prompt_of(7, seed=1)]
    second = generate_tokens(model, more, max_tokens=8, cache=cache)
    begun = list(islice(second, 3))
    with pytest.raises(RuntimeError, match="cannot be continued"):
        next(first)
    assert [*begun, *second] == fresh(model, more, max_tokens=8)
    assert next(never_begun) == fresh(model, prompt_of(40, seed=2), max_tokens=1)[0]


def test_what_is_refused_at_the_call_leaves_the_cache_as_it_was():
    model = lively("e2b").model
    cache = ConversationCache(model)
    cached(cache, prompt_of(40))
    with pytest.raises(g4.ContextLengthError):
        cached(cache, prompt_of(model.config.text.max_position_embeddings + 1))
    with pytest.raises(ValueError, match="belongs to another model"):
        generate_tokens(lively("dense").model, prompt_of(40), cache=cache)
    with pytest.raises(ValueError, match="max_tokens must be"):
        generate_tokens(model, prompt_of(40), max_tokens=2.5, cache=cache)
    assert (cache.tokens, cache.reused) == (51, 0)


@pytest.mark.parametrize("options", [{"kv_bits": 3}, {"mark_bytes": -1}])
def test_a_setting_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match="must be"):
        ConversationCache(lively("e2b").model, **options)


def test_the_context_is_filled_to_its_last_place_and_not_further():
    model = lively("e2b").model
    context = model.config.text.max_position_embeddings
    cache, prompt = ConversationCache(model), prompt_of(context - 3)
    answer = cached(cache, prompt, max_tokens=50)
    assert len(answer) == 3
    assert cached(cache, [*prompt, *answer]) == []
    assert (cache.tokens, cache.reused) == (context, context - 1)
    assert cached(cache, prompt, max_tokens=50) == answer


def test_marks_stay_within_their_limit_and_the_newest_are_kept():
    model, limit = lively("dense").model, 400_000
    bounded, unbounded = ConversationCache(model, mark_bytes=limit), ConversationCache(model)
    conversation: list[int] = []
    for turn in range(12):
        conversation = [*conversation, *prompt_of(40, seed=turn)]
        answer = cached(bounded, conversation, max_tokens=40)
        assert answer == cached(unbounded, conversation, max_tokens=40)
        conversation += answer
    in_use = sum(layer_cache.nbytes for layer_cache in bounded._held.cache)
    assert bounded.nbytes - in_use < limit + 100_000  # kept of the answer
    assert unbounded.nbytes - in_use > 2 * limit
    edited = [*conversation[:-80], *prompt_of(20, seed=20)]
    assert cached(bounded, edited) == fresh(model, edited)
    assert bounded.reused >= len(conversation) - 120
    edited = [*conversation[:100], *prompt_of(20, seed=20)]
    assert cached(bounded, edited) == cached(unbounded, edited) == fresh(model, edited)
    assert bounded.reused == 0 < unbounded.reused


def test_what_was_forgotten_takes_no_memory():
    model = lively("e2b").model
    cache = ConversationCache(model)
    assert (cache.tokens, cache.nbytes) == (0, 0)
    answer = cached(cache, prompt_of(100))
    assert cache.nbytes > 100_000
    cache.clear()
    assert (cache.tokens, cache.nbytes) == (0, 0)
    assert cached(cache, prompt_of(100)) == answer


def test_stats_tell_what_was_read_and_what_was_not():
    model, processor = lively("e2b").model, lively("e2b").processor
    cache = ConversationCache(model)
    messages = [said("user", "the house and the river " * 20)]
    first = generate(model, processor, messages, temperature=0, max_tokens=8, cache=cache)
    assert (first.stats.prompt_tokens, first.stats.cached_tokens) == (processor(messages).input_ids.shape[1], 0)
    messages += [said("assistant", first.text), said("user", "Why?")]
    stream = stream_generate(model, processor, messages, temperature=0, max_tokens=8, cache=cache)
    assert stream.result().stats.cached_tokens == 0
    next(stream)
    stats = stream.result().stats
    assert first.stats.prompt_tokens <= stats.cached_tokens < stats.prompt_tokens
    read = stats.prompt_tokens - stats.cached_tokens
    assert 0 < read / stats.prompt_tps <= stats.ttft_s
    assert generate(model, processor, messages, temperature=0, max_tokens=8).stats.cached_tokens == 0


def test_a_constrained_answer_goes_on_from_the_cache():
    model, processor = lively("e2b").model, lively("e2b").processor
    cache = ConversationCache(model)
    schema = {"enum": ["house", "tree", "river"]}
    messages = [said("user", "the house and the river " * 10)]
    first = generate(model, processor, messages, temperature=0, schema=schema, cache=cache)
    assert first.tokens == generate(model, processor, messages, temperature=0, schema=schema).tokens
    messages += [said("assistant", first.text), said("user", "Why?")]
    second = generate(model, processor, messages, temperature=0, schema=schema, cache=cache)
    assert second.tokens == generate(model, processor, messages, temperature=0, schema=schema).tokens
    assert second.stats.cached_tokens > 100


def asked_about(picture: Image.Image, *before: str) -> list[dict[str, Any]]:
    """A question about a picture, behind other turns."""
    turns = [{"role": role, "content": text} for text in before for role in ("user", "assistant")]
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]
    return [*turns, {"role": "user", "content": content}]


def test_a_picture_is_encoded_once_wherever_it_stands(monkeypatch):
    model, processor = lively("e2b").model, lively("e2b").processor
    red, blue = (Image.new("RGB", (96, 96), colour) for colour in ("red", "blue"))
    prompts = [asked_about(red), asked_about(red, "Hello"), asked_about(blue), asked_about(red, "Hi", "there")]
    expected = [generate(model, processor, prompt, max_tokens=6, temperature=0).tokens for prompt in prompts]
    encoded = []
    encode = VisionTower.__call__
    monkeypatch.setattr(VisionTower, "__call__", lambda self, image: encoded.append(image) or encode(self, image))
    cache = ConversationCache(model)
    answers = [generate(model, processor, p, max_tokens=6, temperature=0, cache=cache).tokens for p in prompts]
    assert answers == expected
    assert len(encoded) == 2
    cache.clear()
    generate(model, processor, prompts[0], max_tokens=1, cache=cache)
    assert len(encoded) == 3


def test_of_kept_soft_tokens_the_longest_unused_go_first(monkeypatch):
    model, processor = lively("e2b").model, lively("e2b").processor
    cache = ConversationCache(model)
    pictures = [Image.new("RGB", (96, 96), (shade, 0, 0)) for shade in (0, 80, 160)]
    for picture in (*pictures[:2], pictures[0]):
        generate(model, processor, asked_about(picture), max_tokens=1, cache=cache)
    first, second = cache._soft_tokens
    size = cache._soft_tokens[first].nbytes
    monkeypatch.setattr("gemma4_mlx.generation.conversation_cache._SOFT_TOKEN_BYTES", 2 * size)
    generate(model, processor, asked_about(pictures[2]), max_tokens=1, cache=cache)
    assert first not in cache._soft_tokens
    assert second in cache._soft_tokens
    assert len(cache._soft_tokens) == 2
