"""The demonstration model's tokenizer: Gemma's way of cutting text, with entries for what this model reads and says.

Byte-fallback BPE without pre-tokenization, spaces as ▁. Words that are heard or translated are whole entries without
their space, so that a transcript is one entry per word whatever stands before it; the words of the prompts and of the
questions are entries with their space; what is left of the budget goes to pieces of the answers.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from . import prompts, questions, words

SPECIAL_TOKENS = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>",
    "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|image>",
    "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<audio|>", "<|video|>",
)  # fmt: skip
SPECIAL_IDS = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
VOCAB_SIZE = 960
SPOKEN_SIZE = 560  # of which: entries shared by the words of transcripts and translations
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def spoken_pieces() -> list[str]:
    """Words of transcripts and translations, without a space before them."""
    pieces: set[str] = set(words.COMMANDS)
    for row in words.COMMANDS.values():
        pieces.update(word for phrase in row for word in phrase.replace("'", " ").split())
    for n in range(1000):
        for language in ("French", "Spanish"):
            pieces.update(words.spell(n, language).replace("-", " ").split())
    pieces.update(words._ITALIAN + words._ITALIAN_TENS + ["cento", "tré"] + [w[:-1] for w in words._ITALIAN_TENS])
    pieces.update(word for pair in (prompts.COLOURS, prompts.SHAPES) for word in pair)
    return sorted(piece for piece in pieces if len(piece) > 1)


def build() -> Tokenizer:
    """The tokenizer, the same every time."""
    vocabulary = dict(SPECIAL_IDS)
    texts = prompts.texts()
    texts += [t.answer for t in questions.TOPICS for _ in range(4)] + [questions.DECLINE] * 8
    texts += [asked for t in questions.TOPICS for asked in t.asked]
    spoken = spoken_pieces()
    characters = sorted({c for text in (*texts, *spoken) for c in text if ord(c) > 0x7E})
    for piece in (*(f"<0x{byte:02X}>" for byte in range(256)), "▁", "\n", *map(chr, range(0x21, 0x7F)), *characters):
        vocabulary[piece] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    seen = set(vocabulary)

    def merge(counts: Counter[tuple[str, ...]], until: int, forbidden: frozenset[str] = frozenset()) -> None:
        while len(vocabulary) < until:
            pairs: Counter[tuple[str, str]] = Counter()
            for symbols, times in counts.items():
                for pair in itertools.pairwise(symbols):
                    # Digits stay single, and a word that is heard stays apart from its space.
                    if pair[0] + pair[1] in seen or any(c.isdigit() for c in "".join(pair)):
                        continue
                    if pair[0] == "▁" and pair[1] in forbidden:
                        continue
                    pairs[pair] += times
            if not pairs:
                return
            best = min(pairs, key=lambda pair: (-pairs[pair], pair))
            if pairs[best] < 2 and until == VOCAB_SIZE:
                return
            merges.append(best)
            seen.add("".join(best))
            vocabulary["".join(best)] = len(vocabulary)
            changed = Counter()
            for symbols, times in counts.items():
                changed[_merged(symbols, best)] += times
            counts = changed

    merge(Counter({tuple(word): 1 for word in spoken}), SPOKEN_SIZE)
    # What pictures and transcripts are made of becomes one entry a word, shortest first: few pieces on the way.
    for word in sorted({*words.COMMANDS, *prompts.COLOURS, *prompts.SHAPES}, key=lambda w: (len(w), w)):
        symbols = _apply(tuple(word), merges)
        while len(symbols) > 1:
            pair = (symbols[0], symbols[1])
            if pair[0] + pair[1] not in seen:
                vocabulary[pair[0] + pair[1]] = len(vocabulary)
                seen.add(pair[0] + pair[1])
            merges.append(pair)
            symbols = _apply(tuple(word), merges)
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        for word in ("▁" + text.replace(" ", " ▁").replace("\n", " \n ")).split(" "):
            if word not in ("", "\n", "▁"):
                counts[_apply(tuple(word), merges)] += 1
    merge(counts, VOCAB_SIZE, frozenset(spoken))
    if len(vocabulary) > VOCAB_SIZE:
        raise ValueError(f"{len(vocabulary)} entries do not fit a vocabulary of {VOCAB_SIZE}")

    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def _merged(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return tuple(out)


def _apply(symbols: tuple[str, ...], merges: list[tuple[str, str]]) -> tuple[str, ...]:
    """BPE as the tokenizer does it: the earliest merge first."""
    ranks: dict[tuple[str, str], int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault(pair, rank)
    while len(symbols) > 1:
        best = min(itertools.pairwise(symbols), key=lambda pair: ranks.get(pair, len(ranks) + len(merges)))
        if best not in ranks:
            break
        symbols = _merged(symbols, best)
    return symbols


TOKENIZER_CONFIG = {
    "tokenizer_class": "GemmaTokenizer",
    "processor_class": "Gemma4Processor",
    "padding_side": "left",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 8192,
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "extra_special_tokens": ["<|video|>"],
}
PROCESSOR_CONFIG = {
    "processor_class": "Gemma4Processor",
    "image_seq_length": 280,
    "audio_seq_length": 750,
    "audio_ms_per_token": 40,
    "image_processor": {
        "image_processor_type": "Gemma4ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "resample": 3,
        "patch_size": 16,
        "pooling_kernel_size": 3,
        "max_soft_tokens": 280,
    },
    "video_processor": {
        "video_processor_type": "Gemma4VideoProcessor",
        "num_frames": 32,
        "max_soft_tokens": 70,
        "patch_size": 16,
        "pooling_kernel_size": 3,
    },
    "feature_extractor": {
        "feature_extractor_type": "Gemma4AudioFeatureExtractor",
        "feature_size": 128,
        "sampling_rate": 16000,
        "frame_length_ms": 20.0,
        "hop_length_ms": 10.0,
        "min_frequency": 0.0,
        "max_frequency": 8000.0,
        "mel_floor": 0.001,
    },
}
GENERATION_CONFIG = {
    "bos_token_id": SPECIAL_IDS["<bos>"],
    "eos_token_id": [SPECIAL_IDS["<eos>"], SPECIAL_IDS["<turn|>"], SPECIAL_IDS["<|tool_response>"]],
    "pad_token_id": SPECIAL_IDS["<pad>"],
    "do_sample": False,
}


def write(folder: Path) -> None:
    """tokenizer.json, tokenizer_config.json, chat_template.jinja, processor_config.json, generation_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    build().save(str(folder / "tokenizer.json"), pretty=False)
    shutil.copyfile(TEMPLATE, folder / "chat_template.jinja")
    for name, settings in (
        ("tokenizer_config.json", TOKENIZER_CONFIG),
        ("processor_config.json", PROCESSOR_CONFIG),
        ("generation_config.json", GENERATION_CONFIG),
    ):
        (folder / name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
