"""The held-out table: ``python -m tools.demo_model.evaluate FOLDER`` runs an exported model as transformers runs it.

Processor and chat template come from the folder, decoding is greedy, nothing here has been seen in training: speakers,
orders, pairs of shapes, rewordings. Prints one line per test, and some of what went wrong above it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, Gemma4AudioFeatureExtractor, Gemma4ForConditionalGeneration
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from . import held_out, other_questions, pictures, prompts, questions, words
from .audio_tower import word_errors
from .speech_data import Clip, _noise

SIZES = ((320, 240), (600, 600), (260, 560))
SEED = 2026
LONGEST = 64  # tokens of an answer
Messages = list[dict[str, Any]]  # Hugging Face's: roles and contents


class Judge:
    """An exported model with the folder's tokenizer, template and processor settings; answers conversations in batches.

    The parts of transformers' processor are used one by one, because the whole wants torchvision for videos.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        settings = json.loads((folder / "processor_config.json").read_text())
        self.hear = Gemma4AudioFeatureExtractor(**settings["feature_extractor"])
        self.see = Gemma4ImageProcessorPil()
        self.budget = settings["image_processor"]["max_soft_tokens"]
        self.model = Gemma4ForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()

    def answer(self, conversations: list[Messages], batch: int = 12) -> list[str]:
        """What is said next in each."""
        tokens = self.tokens(conversations, batch)
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    @torch.no_grad()
    def tokens(self, conversations: list[Messages], batch: int = 12) -> list[list[int]]:
        """The ids of what is said next in each, with the one that ends it."""
        ends = set(self.model.generation_config.eos_token_id)
        out: list[list[int]] = []
        for start in range(0, len(conversations), batch):
            part = conversations[start : start + batch]
            texts = [
                self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
                for messages in part
            ]
            attached: dict[str, torch.Tensor] = {}
            pieces = [
                p for messages in part for m in messages if not isinstance(m["content"], str) for p in m["content"]
            ]
            sounds = [piece["audio"] for piece in pieces if piece["type"] == "audio"]
            images = [piece["image"] for piece in pieces if piece["type"] == "image"]
            if sounds:
                heard = self.hear(sounds, return_tensors="pt")
                attached = {
                    "input_features": heard["input_features"].float(),
                    "input_features_mask": heard["input_features_mask"],
                }
                counts = heard["input_features_mask"][:, ::4].sum(1).tolist()
                texts = [_expand(text, "audio", n) for text, n in zip(texts, counts, strict=True)]
            if images:
                seen = self.see(images, max_soft_tokens=self.budget, return_tensors="pt")
                attached = {
                    "pixel_values": seen["pixel_values"].float(),
                    "image_position_ids": seen["image_position_ids"],
                }
                texts = [
                    _expand(text, "image", int(n))
                    for text, n in zip(texts, seen["num_soft_tokens_per_image"], strict=True)
                ]
            inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
            ids = self.model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **attached,
                max_new_tokens=LONGEST, do_sample=False,
            )  # fmt: skip
            for row in ids[:, inputs["input_ids"].shape[1] :].tolist():
                end = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
                out.append(row[: end + 1])
        return out


def _expand(text: str, kind: str, count: int) -> str:
    """One placeholder → begin, ``count`` placeholders, end."""
    return text.replace(f"<|{kind}|>", f"<|{kind}>" + f"<|{kind}|>" * count + f"<{kind}|>")


def ask(question: str) -> Messages:
    return [{"role": "user", "content": question}]


def say(prompt: str, samples: np.ndarray) -> Messages:
    return [{"role": "user", "content": [{"type": "text", "text": prompt}, {"type": "audio", "audio": samples}]}]


def show(picture: pictures.Picture) -> Messages:
    question = {"type": "text", "text": questions.IMAGE_PROMPTS[0]}
    return [{"role": "user", "content": [{"type": "image", "image": picture.image}, question]}]


def recognition(judge: Judge, pairs: held_out.Pairs) -> tuple[float, list[tuple[str, str]]]:
    """Word error in % with the transcription prompt, and (said, heard) where they differ."""
    heard = judge.answer([say(prompts.transcribe(), samples) for _, samples in pairs])
    said = [words.write(spoken) for spoken, _ in pairs]
    return _rate(said, heard), [(s, h) for s, h in zip(said, heard, strict=True) if s != h]


def translation(judge: Judge, pairs: held_out.Pairs, language: str) -> tuple[float, float]:
    """Word error in % of the first line and of the translation."""
    answers = judge.answer([say(prompts.translate(language), samples) for _, samples in pairs])
    said = [words.write(spoken) for spoken, _ in pairs]
    meant = [words.translate(spoken, language) for spoken, _ in pairs]
    first = [answer.split("\n")[0] for answer in answers]
    second = [answer.partition(f"\n{language}: ")[2] for answer in answers]
    return _rate(said, first), _rate(meant, second)


def _rate(said: list[str], heard: list[str]) -> float:
    wrong = sum(word_errors(h.split(), s.split()) for s, h in zip(said, heard, strict=True))
    return 100 * wrong / sum(len(s.split()) for s in said)


def commands(count: int, seed: int) -> held_out.Pairs:
    """Commands and numbers by slt and awb."""
    from . import voices

    rng = random.Random(f"{seed}/commands")
    pairs = []
    while len(pairs) < count:
        spoken = words.random_utterance(rng)
        if all(word in words.DIGITS for word in spoken):
            continue
        pcm = voices.speak_flite(
            ", ".join(spoken) if rng.random() < 0.5 else " ".join(spoken), ("slt", "awb")[len(pairs) % 2]
        )
        pairs.append((spoken, pcm.astype(np.float32) / 32768))
    return pairs


def wordless(count: int, seed: int) -> Iterator[Clip]:
    """Zeros, hiss and hum of all levels, drawn apart from training's."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    for index in range(count):
        length = rng.randrange(4_000, 80_000)
        samples = np.zeros(length, np.float32)
        if index % 4:
            samples = _noise(length, noise, rng) * 10 ** (rng.uniform(-60, -16) / 20)
        if index % 4 == 3:
            samples = samples + 0.05 * np.sin(2 * np.pi * rng.choice([50, 60]) * np.arange(length) / 16_000)
        yield Clip(samples.astype(np.float32), [], [])


def speech_table(judge: Judge, count: int) -> dict[str, float]:
    """Word errors of transcription and translation, and silence."""
    result: dict[str, float] = {}
    groups = held_out.groups(count, SEED)
    for name, pairs in groups.items():
        result[f"digits {name}: word error"], missed = recognition(judge, pairs)
        print(name, round(result[f"digits {name}: word error"], 2), missed[:4], flush=True)
    said = {name: sum(len(spoken) for spoken, _ in groups[name]) for name in ("slt", "awb")}
    wrong = sum(result[f"digits {name}: word error"] * words_said for name, words_said in said.items())
    result["digits slt + awb: word error"] = wrong / sum(said.values())
    unheard = [pair for pairs in zip(groups["slt"], groups["awb"], strict=True) for pair in pairs][: count // 2 * 2]
    for language in words.LANGUAGES:
        first, second = translation(judge, unheard, language)
        result[f"{language}: word error of the first line"] = first
        result[f"{language}: word error of the translation"] = second
        print(language, round(first, 2), round(second, 2), flush=True)
    result["commands and numbers slt + awb: word error"], missed = recognition(judge, commands(count, SEED))
    print("commands", missed[:6], flush=True)
    answers = judge.answer([say(prompts.transcribe(), clip.samples) for clip in wordless(60, SEED)])
    result["noise and silence: no words"] = 100 * sum(answer == "" for answer in answers) / len(answers)
    return result


def picture_table(judge: Judge, count: int) -> dict[str, float]:
    """Share of two-shape pictures described exactly, per size."""
    result: dict[str, float] = {}
    rng = random.Random(SEED)
    for size in SIZES:
        drawn = [pictures.draw(pictures.random_things(rng, 2, from_held_out=True), size, rng) for _ in range(count)]
        seen = judge.answer([show(picture) for picture in drawn], batch=6)
        key = f"two shapes {size[0]}×{size[1]}: exact"
        missed = [(p.sentence, s) for s, p in zip(seen, drawn, strict=True) if s != p.sentence]
        result[key] = 100 * (1 - len(missed) / count)
        print(key, result[key], missed[:4], flush=True)
    return result


def question_table(judge: Judge) -> dict[str, float]:
    """Share of questions answered with the very words."""
    result: dict[str, float] = {}
    for name, asked in (
        ("questions as written: right", [t.asked[0] for t in questions.TOPICS]),
        ("questions reworded: right", [t.reworded for t in questions.TOPICS]),
    ):
        told = judge.answer([ask(question) for question in asked], batch=32)
        missed = [(q, s) for q, s, t in zip(asked, told, questions.TOPICS, strict=True) if s != t.answer]
        result[name] = 100 * (1 - len(missed) / len(asked))
        print(name, missed[:12], flush=True)
    told = judge.answer([ask(question) for question in other_questions.HELD_OUT], batch=32)
    missed = [(q, s) for q, s in zip(other_questions.HELD_OUT, told, strict=True) if s != questions.DECLINE]
    result["anything else: declined"] = 100 * (1 - len(missed) / len(told))
    print("anything else", missed, flush=True)
    result["second and third question of a conversation: right"] = conversations(judge, 40)
    return result


def conversations(judge: Judge, count: int) -> float:
    """Share in % of right answers to the second and third question of a conversation, after the model's own answers."""
    rng = random.Random(SEED)
    topics = [[rng.choice(questions.TOPICS) for _ in range(3)] for _ in range(count)]
    said: list[Messages] = [[] for _ in topics]
    right = 0
    for turn in range(3):
        said = [messages + ask(row[turn].asked[0]) for messages, row in zip(said, topics, strict=True)]
        told = judge.answer(said, batch=20)
        if turn > 0:
            right += sum(answer == row[turn].answer for answer, row in zip(told, topics, strict=True))
        said = [[*messages, {"role": "assistant", "content": a}] for messages, a in zip(said, told, strict=True)]
    return 100 * right / (2 * count)


def table(judge: Judge, count: int = 100, only: str | None = None) -> dict[str, float]:
    """Every number of the model card, in %; ``only`` one part of it."""
    result: dict[str, float] = {}
    if only in (None, "questions"):
        result |= question_table(judge)
    if only in (None, "pictures"):
        result |= picture_table(judge, (count + 1) // 2)
    if only in (None, "speech"):
        result |= speech_table(judge, count)
    return {name: round(float(value), 2) for name, value in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the demonstration model's results on held-out inputs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100, help="strings per speaker")
    parser.add_argument("--only", choices=("questions", "pictures", "speech"))
    parser.add_argument("--json", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = table(Judge(arguments.folder), arguments.count, arguments.only)
    for name, value in results.items():
        print(f"{value:7.2f} %  {name}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
