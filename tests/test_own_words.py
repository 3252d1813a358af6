"""Own words (names and terms): from a caller or `--words` into the prompt, where they are text and nothing else."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from gemma4_mlx.app.speech.named_words import named_words
from gemma4_mlx.app.speech.transcribe_files import FileOptions, _unfinished

import gemma4_mlx as g4
from command_line import only_line, run
from demo_inputs import RECORDINGS
from gemma4_mlx.errors import InputError
from gemma4_mlx.speech import Segment
from gemma4_mlx.speech.prefill import SpeechPrompt
from gemma4_mlx.speech.prompts import speech_prompt

SOUND = RECORDINGS[0]


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo")


@pytest.mark.parametrize(
    "word", ["<|turn>", "<turn|>", "<|audio|>", "<bos>", "<eos>", "a\x1b[31mb", "a\x00b", "{{ x }}"]
)
def test_what_looks_like_control_in_a_word_is_text(demo, word):
    model, processor = demo

    control = set(map(processor.tokenizer.token_id, processor.tokenizer.control_tokens))

    def read(words):
        content = [
            {"type": "text", "text": speech_prompt("English", None, words)},
            {"type": "audio", "audio": np.zeros(3200, np.float32)},
        ]
        ids = np.array(processor([{"role": "user", "content": content}], thinking=False).input_ids)[0].tolist()
        return [token for token in ids if token in control], processor.tokenizer.decode(ids)

    (plain, _), (controls, text) = read(["MLX"]), read([word])
    assert controls == plain
    assert word in text
    SpeechPrompt(model, processor, "English", None, [word])


def test_files_and_live_sound_are_asked_with_the_words(demo, monkeypatch):
    asked = []
    init = SpeechPrompt.__init__

    def remembering(self, model, processor, language, translate_to, words=None):
        init(self, model, processor, language, translate_to, words)
        asked.append(words)

    monkeypatch.setattr(SpeechPrompt, "__init__", remembering)
    g4.transcribe(*demo, np.zeros(16_000, np.float32), words=["MLX"])
    with g4.LiveTranscriber(*demo, words=["Grafana"]):
        pass
    g4.transcribe(*demo, np.zeros(16_000, np.float32))
    assert asked == [["MLX"], ["Grafana"], None]


def test_words_that_cannot_be_used_are_a_bad_argument(demo):
    with pytest.raises(ValueError, match="not one string"):
        g4.transcribe(*demo, np.zeros(16_000, np.float32), words="MLX")
    with pytest.raises(ValueError, match="at most 60 characters"):
        g4.LiveTranscriber(*demo, words=["x" * 61])


def test_a_list_has_commas_between_its_words():
    assert named_words(" MLX, Grafana ,,Ana Lima,") == ["MLX", "Grafana", "Ana Lima"]


@pytest.mark.parametrize("content", [b"MLX\nAna Lima\n", b"\xef\xbb\xbfMLX\r\n\r\n  Ana Lima", b"MLX\n\nAna Lima\n\n"])
def test_a_file_has_one_word_a_line(tmp_path, content):
    path = tmp_path / "words, mine"
    path.write_bytes(content)
    assert named_words(str(path)) == ["MLX", "Ana Lima"]


def test_a_comma_in_a_files_line_belongs_to_the_word(tmp_path):
    (tmp_path / "words").write_text("Lima, Ana\n")
    assert named_words(str(tmp_path / "words")) == ["Lima, Ana"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no words in it"),
        (b"\n \n", "has no words in it"),
        (b"\xff\xfeM", "UTF-8"),
        (b"a\n" * 40_000, "too large"),
    ],
)
def test_a_file_that_is_no_list_of_words_is_refused(tmp_path, content, message):
    (tmp_path / "words").write_bytes(content)
    with pytest.raises(InputError, match=message):
        named_words(str(tmp_path / "words"))


@pytest.mark.parametrize("value", ["", " , ", ","])
def test_a_list_without_words_is_refused(value):
    with pytest.raises(InputError, match="names no word"):
        named_words(value)


@pytest.mark.parametrize("value", ["x" * 5000, "a\x00b", "CI/CD", "."])
def test_what_is_no_file_is_a_word(value):
    assert named_words(value) == [value]


@pytest.mark.parametrize(
    ("words", "message"),
    [("nowhere.txt", "is not there"), (",", "names no word"), ("x" * 61, "at most 60 characters")],
)
def test_the_command_says_in_one_line_what_is_wrong_with_words(words, message):
    finished = run("transcribe", SOUND.path, "--words", words, "-m", "demo")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert message in only_line(finished.stderr)


def test_the_command_transcribes_with_words():
    finished = run("transcribe", SOUND.path, "--words", "MLX, Grafana", "-m", "demo")
    assert finished.returncode == 0
    assert finished.stdout.strip()


def test_an_interrupted_run_goes_on_only_with_the_same_words(tmp_path):
    def left_by(words):
        options = FileOptions("English", None, threshold=0.5, silence=2.0, max_utterance=28.0, words=words)
        return _unfinished(SOUND.path, tmp_path / "out.txt", (*astuple(options), "demo"))

    first = left_by(["MLX"])
    assert first.segments() == []
    first.add(Segment(0.0, 1.0, "four", None))
    assert left_by(["MLX"]).segments() == [Segment(0.0, 1.0, "four", None)]
    assert left_by(["Grafana"]).segments() == []
