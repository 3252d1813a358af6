"""The built-in model does its work, on inputs it has never met: through Python, the command line, and quantized.

The limits are those its model card promises, loosened by what so few inputs can tell: the whole table is made by
`python -m tools.demo_model.evaluate`.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from gemma4_mlx.app.microphone import MicrophoneError, devices
from transformers import AutoTokenizer, Gemma4ForConditionalGeneration
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

import gemma4_mlx as g4
from command_line import only_line, run, scratch
from demo_inputs import (
    RECORDINGS,
    demo_pictures,
    picture_message,
    recipe_pictures,
    speech_message,
    word_errors,
    wordless_sounds,
)
from gemma4_mlx.checkpoint.builtin import FOLDER, list_faults
from processing_reference import ReferenceProcessor
from tools.demo_model import checksums, export
from tools.demo_model.other_questions import HELD_OUT
from tools.demo_model.questions import DECLINE, TOPICS
from tools.demo_model.words import LANGUAGES

# Every fourth topic: a quarter of the time, and all kinds of them.
SOME_TOPICS = TOPICS[::4]
SPOKEN_WORDS = sum(len(recording.digits) for recording in RECORDINGS)


@cache
def demo():
    return g4.load("demo")


@cache
def quantized(bits: int) -> Path:
    """The built-in model as `gemma4-mlx convert` makes it."""
    return g4.convert("demo", scratch() / f"demo-{bits}bit", bits=bits)


def answer(loaded, messages) -> str:
    return g4.generate(*loaded, messages, max_tokens=64, temperature=0.0).text.strip()


def heard_by(loaded, language: str | None = "English") -> dict[Path, str]:
    return {r.path: g4.transcribe(*loaded, r.path, language).text for r in RECORDINGS}


def errors(heard: dict[Path, str]) -> int:
    return sum(word_errors(heard[recording.path], recording.transcript) for recording in RECORDINGS)


# Speech


@pytest.mark.parametrize("language", ["English", None])
def test_digits_by_voices_it_never_heard_have_at_most_one_wrong_word_in_eight(language):
    heard = heard_by(demo(), language)
    assert errors(heard) <= 0.12 * SPOKEN_WORDS, heard


def test_a_translation_has_hardly_more_errors_than_the_transcript():
    wrong = 0
    for recording in RECORDINGS:
        for language in LANGUAGES:
            result = g4.transcribe(*demo(), recording.path, "English", translate_to=language)
            wrong += word_errors(result.translation, recording.translation(language))
    assert wrong <= 0.15 * len(LANGUAGES) * SPOKEN_WORDS
    # Three points, and one word in each language for so small a sample.
    assert wrong <= len(LANGUAGES) * (errors(heard_by(demo())) + 0.03 * SPOKEN_WORDS + 1)


@pytest.mark.parametrize("kind", wordless_sounds())
def test_sound_without_words_has_no_words(kind):
    sound = wordless_sounds()[kind]
    assert answer(demo(), speech_message(sound)) == ""
    assert g4.transcribe(*demo(), sound, "English").segments == ()


# Pictures


def test_pairs_of_shapes_it_never_saw_together_are_named_in_three_sizes():
    wrong = {
        said: seen for image, said in recipe_pictures(12, 1) if (seen := answer(demo(), picture_message(image))) != said
    }
    assert len(wrong) <= 2, wrong


def test_pictures_of_another_hand_are_named_too():
    wrong = {
        said: seen for image, said in demo_pictures(6, 2) if (seen := answer(demo(), picture_message(image))) != said
    }
    assert len(wrong) <= 1, wrong


# Chat


def test_questions_as_it_learnt_them_are_answered():
    wrong = [topic.asked[0] for topic in SOME_TOPICS if answer(demo(), topic.asked[0]) != topic.answer]
    assert len(wrong) <= 1, wrong


def test_questions_in_other_words_are_answered_four_times_in_five():
    wrong = [topic.reworded for topic in SOME_TOPICS if answer(demo(), topic.reworded) != topic.answer]
    assert len(wrong) <= 0.2 * len(SOME_TOPICS), wrong


def test_of_anything_else_it_says_that_it_is_a_small_demonstration_model():
    asked = HELD_OUT[::2]
    wrong = {question: said for question in asked if (said := answer(demo(), question)) != DECLINE}
    assert len(wrong) <= 0.2 * len(asked), wrong


def test_three_questions_one_after_another_are_answered():
    wrong = {}
    for start in range(0, 12, 3):
        messages = []
        for topic in SOME_TOPICS[start : start + 3]:
            messages.append({"role": "user", "content": topic.asked[0]})
            said = answer(demo(), messages)
            messages.append({"role": "assistant", "content": said})
            wrong |= {topic.asked[0]: said} if said != topic.answer else {}
    assert len(wrong) <= 2, wrong


# The same through the command line


def test_transcribe_writes_what_python_does_and_translates_it():
    files = [recording.path for recording in RECORDINGS]
    finished = run("transcribe", *files, "-m", "demo", "--language", "en", "--translate-to", "fr", "--format", "json")
    assert finished.returncode == 0
    results = [json.loads(line) for line in finished.stdout.splitlines()]
    for result, recording in zip(results, RECORDINGS, strict=True):
        ours = g4.transcribe(*demo(), recording.path, "English", translate_to="French")
        assert (result["text"], result["translation"]) == (ours.text, ours.translation)
    assert errors({Path(result["file"]): result["text"] for result in results}) <= 0.12 * SPOKEN_WORDS


def test_ask_names_what_is_in_a_picture_file(tmp_path):
    wrong = []
    for number, (image, said) in enumerate(recipe_pictures(3, 3)):
        path = tmp_path / f"{number}.png"
        image.save(path)
        finished = run("ask", "What is in this picture?", "-i", path, "-m", "demo")
        assert (finished.returncode, finished.stdout.strip()) == (0, answer(demo(), picture_message(image)))
        wrong += [said] if finished.stdout.strip() != said else []
    assert len(wrong) <= 1, wrong


def test_chat_answers_in_turn():
    finished = run("chat", "-m", "demo", "--temperature", "0", stdin="How do I chat?\nWhat is MLX?\n")
    assert finished.returncode == 0
    answers = [
        next(t.answer for t in TOPICS if t.asked[0] == question) for question in ("How do I chat?", "What is MLX?")
    ]
    assert finished.stdout.split("\n") == [*answers, ""]


def test_demo_sees_hears_translates_and_answers_in_plain_text():
    finished = run("demo")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "\x1b" not in finished.stdout
    lines = [line.strip() for line in finished.stdout.splitlines()]
    assert "call 4 2 7 1 ✓" in lines
    assert "French: appelle quatre deux sept un" in lines
    assert "Spanish: llama cuatro dos siete uno" in lines
    assert "Italian: chiama quattro due sette uno" in lines
    assert "No. Everything runs on this Mac; nothing is sent anywhere." in lines
    assert sum(re.match(r"gemma4-mlx chat --model [e\d]", line) is not None for line in lines) == 1
    assert sum(line.endswith("s)") and line.startswith("(") for line in lines) == 4


def test_without_a_microphone_the_demo_says_so_and_goes_on():
    try:
        if devices():
            pytest.skip("there is a microphone here")
    except MicrophoneError:
        pass
    finished = run("demo", "--mic")
    assert finished.returncode == 0
    assert only_line(finished.stderr).startswith("note: ")
    assert "Listens to you" not in finished.stdout
    assert "Answers a question" in finished.stdout


# Quantized


def mistakes(loaded) -> tuple[int, int, int]:
    """Wrong words of the recordings, wrong pictures, wrong answers."""
    named = [answer(loaded, picture_message(image)) == said for image, said in recipe_pictures(6, 4)]
    answered = [answer(loaded, topic.asked[0]) == topic.answer for topic in SOME_TOPICS]
    return errors(heard_by(loaded)), named.count(False), answered.count(False)


@cache
def mistakes_of_demo() -> tuple[int, int, int]:
    return mistakes(demo())


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_it_hears_sees_and_answers_hardly_worse(bits):
    more = [ours - whole for ours, whole in zip(mistakes(g4.load(quantized(bits))), mistakes_of_demo(), strict=True)]
    assert max(more) <= 1, more


def test_its_decoder_is_trained_for_4_bits_and_loses_nothing_in_them():
    whole = dict(demo()[0].named_modules())
    packed = {
        name: module
        for name, module in g4.load(quantized(4))[0].named_modules()
        if isinstance(module, nn.QuantizedLinear) and module.bits == 4
    }
    assert len(packed) > 30
    for name, module in packed.items():
        weight = mx.dequantize(module.weight, module.scales, module.biases, module.group_size, module.bits)
        assert mx.array_equal(weight, whole[name].weight), name


@pytest.mark.parametrize("bits", [8, 4])
def test_the_command_line_takes_it_quantized(bits):
    recording = RECORDINGS[0]
    finished = run("transcribe", recording.path, "-m", quantized(bits), "--language", "en")
    assert finished.returncode == 0
    assert word_errors(finished.stdout, recording.transcript) <= 1
    assert run("ask", "How do I chat?", "-m", quantized(bits)).stdout.startswith("Type gemma4-mlx chat")


# transformers


@cache
def reference():
    """transformers' model and processor of the same folder."""
    processor = ReferenceProcessor(
        Gemma4AudioFeatureExtractor(), Gemma4ImageProcessorPil(), AutoTokenizer.from_pretrained(FOLDER), None
    )
    processor.chat_template = processor.tokenizer.chat_template
    return Gemma4ForConditionalGeneration.from_pretrained(FOLDER, dtype="float32").eval(), processor


def unseen_messages():
    yield from (speech_message(recording.path, None) for recording in RECORDINGS[::4])
    yield from (speech_message(recording.path, "Spanish") for recording in RECORDINGS[1::4])
    yield from (picture_message(image) for image, _ in recipe_pictures(3, 5))
    yield from ([{"role": "user", "content": topic.reworded}] for topic in TOPICS[::20])
    yield from (speech_message(sound) for sound in wordless_sounds().values())


def test_transformers_gives_the_same_tokens():
    model, processor = reference()
    loaded = g4.load("demo", dtype="float32")
    for messages in unseen_messages():
        ours = g4.generate(*loaded, messages, max_tokens=64, temperature=0.0)
        inputs = processor.apply_chat_template(
            sampled(messages), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        theirs = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        assert ours.tokens == theirs[0, inputs["input_ids"].shape[1] :].tolist()


def sampled(messages):
    """The messages with sounds as samples: transformers decodes files by another library."""
    from gemma4_mlx.processing.audio import load_audio

    return [
        message
        if isinstance(message["content"], str)
        else {
            **message,
            "content": [
                {**part, "audio": load_audio(part["audio"])} if part["type"] == "audio" else part
                for part in message["content"]
            ],
        }
        for message in messages
    ]


def test_a_model_trained_anew_is_whole_where_the_old_one_was(tmp_path):
    made, folder = tmp_path / "made", tmp_path / "folder"
    for place, weights in ((folder, b"old"), (made, b"new")):
        place.mkdir()
        (place / "config.json").write_text("{}")
        (place / "model.safetensors").write_bytes(weights)
        checksums.write(place)
    export.put(made, folder)
    assert list_faults(folder) == []
    assert (folder / "model.safetensors").read_bytes() == b"new"
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in made.iterdir())
