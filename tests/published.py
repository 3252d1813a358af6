"""A checkpoint as people download it, small enough for tests: what chat, tools, thinking and servers run on.

As published: config.json's spelling and its sizes that matter to a prompt, 262,144 ids with the control tokens at their
real ones, Hugging Face's tensor names, bfloat16, and the makers' chat templates where `../shared/real` is there (else
ours). Not as published: 64 wide, four layers, a vocabulary of some hundred words, and weights that follow a script.

The script makes whole conversations possible that a random model never has. It says "Hello there."; with tools
declared it calls `half` for 8, and after a result it says "It is 4."; with thinking on it thinks first. It is three
rules in one layer: attention, the same for all positions, tells whether tools are declared and whether thinking is on;
the gated MLP takes each token to the next one, or, if such a flag stands, to another.

Not a test itself.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import Gemma4Config, Gemma4ForConditionalGeneration

from command_line import scratch
from published_templates import BUILT_IN, TEMPLATES
from tiny_tokenizer import PROCESSOR_CONFIG, train_merges

PUBLISHED_CONFIG = Path(__file__).parent / "configs" / "e2b.json"

# What Gemma 4's tokenizer_config.json calls its control tokens, and their ids.
CONTROL_IDS = {
    "<pad>": 0,
    "<eos>": 1,
    "<bos>": 2,
    "<unk>": 3,
    "<mask>": 4,
    "<|tool>": 46,
    "<tool|>": 47,
    "<|tool_call>": 48,
    "<tool_call|>": 49,
    "<|tool_response>": 50,
    "<tool_response|>": 51,
    '<|"|>': 52,
    "<|think|>": 98,
    "<|channel>": 100,
    "<channel|>": 101,
    "<|turn>": 105,
    "<turn|>": 106,
    "<|image>": 255999,
    "<|audio>": 256000,
    "<|image|>": 258880,
    "<|audio|>": 258881,
    "<image|>": 258882,
    "<audio|>": 258883,
    "<|video|>": 258884,
}
NAMES = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "sot_token": "<|turn>",
    "eot_token": "<turn|>",
    "soc_token": "<|channel>",
    "eoc_token": "<channel|>",
    "think_token": "<|think|>",
    "std_token": "<|tool>",
    "etd_token": "<tool|>",
    "stc_token": "<|tool_call>",
    "etc_token": "<tool_call|>",
    "str_token": "<|tool_response>",
    "etr_token": "<tool_response|>",
    "escape_token": '<|"|>',
}
GENERATION_CONFIG = {
    "bos_token_id": 2,
    "do_sample": True,
    "eos_token_id": [1, 106, 50],
    "pad_token_id": 0,
    "temperature": 1.0,
    "top_k": 64,
    "top_p": 0.95,
}
_FIRST_BYTE, _FIRST_PIECE = 238, 494

# What follows each token.
_ALWAYS = [
    ("model\n", "Hello"),
    ("Hello", "▁there."),
    ("▁there.", "<turn|>"),
    ("<channel|>", "Hello"),  # the large sizes' templates open the answer with an empty thought
    ("<|tool_call>", "call:half{number:8}"),
    ("call:half{number:8}", "<tool_call|>"),
    ("<tool_call|>", "<|tool_response>"),
    ("<tool_response|>", "It"),
    ("<image|>", "It"),  # a picture behind a result
    ("It", "▁is"),
    ("▁is", "▁4."),
    ("▁4.", "<turn|>"),
    ("<|channel>", "thought"),
    ("thought", "\n"),
    ("\n", "Hm."),
    ("Hm.", "<channel|>"),
    ("thought\n", "Good."),  # a thought that the prompt opens, after a result
    ("Good.", "<channel|>"),
]
_WITH_TOOLS = [("model\n", "<|tool_call>"), ("<channel|>", "<|tool_call>"), ("Hm.", "<|tool_call>")]
_WITH_THINKING = [("model\n", "<|channel>"), ("<channel|>", "It")]
_FLAGS = ("<|tool>", "<|think|>")
_WORDS = ("Hello", "▁there.", "call:half{number:8}", "It", "▁is", "▁4.", "Hm.", "Good.")

_HIDDEN, _LAYER = 64, 1  # the script is in the first full-attention layer


@cache
def published(template: str = BUILT_IN) -> Path:
    """The folder of a checkpoint with one of `published_templates.TEMPLATES`; not to be changed."""
    folder = scratch() / f"published-{template.replace(' ', '-')}"
    if template == BUILT_IN:
        _write_model(folder)
        _write_tokenizer(folder)
    else:
        shutil.copytree(published(), folder, copy_function=lambda source, copy: Path(copy).hardlink_to(source))
        (folder / "chat_template.jinja").unlink()  # or the other's would change with it
    (folder / "chat_template.jinja").write_text(TEMPLATES[template], encoding="utf-8")
    return folder


def _write_tokenizer(folder: Path) -> None:
    vocabulary = _vocabulary()
    tokenizer = Tokenizer(BPE(vocabulary, _merges(), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    named = [name for name in CONTROL_IDS if name != "<mask>"]  # which the published file has as an ordinary token
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in named])
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in (
        ("tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer", "padding_side": "left", **NAMES}),
        ("processor_config.json", PROCESSOR_CONFIG),
        ("generation_config.json", GENERATION_CONFIG),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@cache
def _merges() -> list[tuple[str, str]]:
    merges = []
    for word in ("model\n", "thought\n"):  # one token each, so that the last token of a prompt tells them apart
        so_far = word[0]
        for letter in word[1:]:
            merges.append((so_far, letter))
            so_far += letter
    return list(dict.fromkeys([*merges, *train_merges(120)]))


@cache
def _vocabulary() -> dict[str, int]:
    vocabulary = dict(CONTROL_IDS) | {f"<0x{byte:02X}>": _FIRST_BYTE + byte for byte in range(256)}
    pieces = [
        "▁",
        "\n",
        *(chr(code) for code in range(0x21, 0x7F)),
        *(left + right for left, right in _merges()),
        *_WORDS,
    ]
    for number, piece in enumerate(dict.fromkeys(pieces)):
        vocabulary[piece] = _FIRST_PIECE + number
    # llguidance knows as many ids as there are entries, from 0 on: no gaps where the words are.
    gaps = set(range(_FIRST_PIECE)) - set(vocabulary.values())
    return vocabulary | {f"<unused{id_}>": id_ for id_ in gaps}


def _config() -> dict[str, Any]:
    """The published config.json, smaller."""
    config: dict[str, Any] = json.loads(PUBLISHED_CONFIG.read_text(encoding="utf-8"))
    layers = ["sliding_attention", "full_attention"] * 2
    config["text_config"] |= {
        "hidden_size": _HIDDEN,
        "intermediate_size": _HIDDEN,
        "num_attention_heads": 2,
        "head_dim": 32,
        "global_head_dim": 32,
        "hidden_size_per_layer_input": 8,
        "layer_types": layers,
        "num_hidden_layers": len(layers),
        "num_kv_shared_layers": 2,
    }
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config["vision_config"] |= {**small, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 16}
    config["audio_config"] |= {**small, "output_proj_dims": 32, "subsampling_conv_channels": [16, 8]}
    return config


def _write_model(folder: Path) -> None:
    torch.manual_seed(0)
    model = Gemma4ForConditionalGeneration(Gemma4Config(**_config())).to(torch.bfloat16)
    with torch.no_grad():
        _write_script(model)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(_config(), indent=1), encoding="utf-8")


def _write_script(model: Gemma4ForConditionalGeneration) -> None:
    """Weights that say what the script says, whatever the other weights are."""
    ids = _vocabulary()
    states = list(dict.fromkeys([*(token for pair in _ALWAYS for token in pair), *_FLAGS]))
    place = {token: number for number, token in enumerate(states)}
    flags = {token: _HIDDEN - 1 - number for number, token in enumerate(_FLAGS)}
    assert len(states) <= min(flags.values())
    language = model.model.language_model
    for name, tensor in language.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "q_proj.weight", "per_layer_projection.weight")):
            tensor.zero_()
        elif name.endswith("norm.weight"):
            tensor.fill_(1.0)
        elif "embed_tokens" in name:
            tensor.zero_()
    for token, number in place.items():
        language.embed_tokens.weight[ids[token], number] = 4.0

    layer = language.layers[_LAYER]
    for channel, (token, flag) in enumerate(flags.items()):
        layer.self_attn.v_proj.weight[channel].zero_()
        layer.self_attn.v_proj.weight[channel, place[token]] = 1.0
        layer.self_attn.o_proj.weight[flag, channel] = 100.0
    layer.self_attn.v_proj.weight[len(flags) :].zero_()
    # The next token must outweigh the last one, which stays in the residual stream.
    layer.post_feedforward_layernorm.weight.fill_(64.0)
    gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
    gate.zero_()
    up.zero_()
    rules = [(of, of, to, 1.0) for of, to in _ALWAYS]
    rules += [(of, "<|tool>", to, 100.0) for of, to in _WITH_TOOLS]
    rules += [(of, "<|think|>", to, 10_000.0) for of, to in _WITH_THINKING]
    for neuron, (of, and_of, to, weight) in enumerate(rules):
        gate[neuron, place[of]] = 1.0
        up[neuron, place[of] if of == and_of else flags[and_of]] = 1.0
        down[place[to], neuron] = weight
