"""A 512-entry tokenizer in Gemma's style, with the files that sit beside it in a checkpoint.

Byte-fallback BPE, spaces written as ▁, control tokens as added special tokens: small enough to be written in
milliseconds, close enough that transformers' and this package's processors both take it for Gemma's.
It says nothing about real text: it is for tests and small random checkpoints.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

VOCAB_SIZE = 512

SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<|turn>",
    "<turn|>",
    "<|channel>",
    "<channel|>",
    "<|think|>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
    "<|image>",
    "<|image|>",
    "<image|>",
    "<|audio>",
    "<|audio|>",
    "<audio|>",
    "<|video|>",
)
SPECIAL_IDS: dict[str, int] = {token: index for index, token in enumerate(SPECIAL_TOKENS)}

TRAINING_TEXT = """
A small model reads a picture, hears a voice and answers in words. The user asks what is in the picture, and the model
says that there is a house, a tree and a river. Then the user asks for the weather in another town, the model calls a
tool, the tool returns a number, and the model writes the answer. Transcribe the following speech segment in its
original language. Only output the transcription, with no newlines. When transcribing numbers, write the digits.
thought user model system text image audio video name description parameters properties type string number
"""

CHAT_TEMPLATE = Path(__file__).parent / "tiny" / "chat_template.jinja"


def write_tokenizer(folder: Path | str) -> None:
    """Write the tokenizer, its chat template and the processor and generation settings into `folder`.

    The files are tokenizer.json, tokenizer_config.json, chat_template.jinja, processor_config.json and
    generation_config.json; the same bytes every time.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer().save(str(folder / "tokenizer.json"))
    shutil.copyfile(CHAT_TEMPLATE, folder / "chat_template.jinja")
    for name, settings in (
        ("tokenizer_config.json", TOKENIZER_CONFIG),
        ("processor_config.json", PROCESSOR_CONFIG),
        ("generation_config.json", GENERATION_CONFIG),
    ):
        (folder / name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def build_tokenizer() -> Tokenizer:
    """The tokenizer itself: control tokens, 256 bytes, characters, then merged pieces."""
    vocabulary = dict(SPECIAL_IDS)
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += ["▁", "\n", *(chr(code) for code in range(0x21, 0x7F))]
    for piece in pieces:
        vocabulary[piece] = len(vocabulary)
    merges = train_merges(VOCAB_SIZE - len(vocabulary))
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)

    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def train_merges(count: int) -> list[tuple[str, str]]:
    """The `count` most useful merges of `TRAINING_TEXT`; equal counts go by spelling, so the result never varies.

    A pair that would spell a piece which exists already is passed over: every entry must have an id of its own.
    """
    words = Counter(tuple("▁" + word) for word in TRAINING_TEXT.split())
    merges: list[tuple[str, str]] = []
    made: set[str] = set()
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                if "".join(pair) not in made:
                    pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        made.add("".join(best))
        words = Counter({merged(word, best): times for word, times in words.items()})
    return merges


def merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`word` with every occurrence of `pair`, from the left, joined into one piece."""
    pieces: list[str] = []
    for piece in word:
        if pieces and (pieces[-1], piece) == pair:
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return tuple(pieces)


TOKENIZER_CONFIG = {
    "tokenizer_class": "GemmaTokenizer",
    "processor_class": "Gemma4Processor",
    "padding_side": "left",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 131072,
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
    "do_sample": True,
    "temperature": 1.0,
    "top_p": 0.95,
    "top_k": 64,
}
