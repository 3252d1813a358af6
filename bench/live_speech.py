"""Live speech: what is left to do when somebody stops speaking, and what an endless stream costs.

    python bench/live_speech.py [--rounds 3] [--minutes 10]

First: the time from the end of an utterance to the first token of its final, for utterances of 2 to 18 s, beside the
time to encode and read the whole utterance at once and write the same token. Second: the time and memory the encoder
takes for the last seconds of a long sound beside those for the first. Random weights, E2B's depth, narrower; the
narrower, the more of a step is attention, which grows with the utterance, and the less is weights, which do not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from random_checkpoint import E2B_LAYERS

from gemma4_mlx.config import Config
from gemma4_mlx.log_mel import SAMPLE_RATE, log_mel, soft_token_count
from gemma4_mlx.model import Gemma4, ModelInputs
from gemma4_mlx.speech.decoding import Decoder
from gemma4_mlx.speech.prefill import ClipInProgress, SpeechPrompt

PROMPT = list(range(100, 180))  # as long as the transcription prompt
AFTER = list(range(200, 210))
BLOCK = 1_600  # what a microphone delivers in 0.1 s
STOP = frozenset({-1})


def random_model(width: int) -> Gemma4:
    """E2B's depth, both decoder and audio tower, at another width."""
    text: dict[str, Any] = {
        "model_type": "gemma4_text",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 35,
        "layer_types": E2B_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "global_head_dim": 128,
        "vocab_size": 4096,
        "vocab_size_per_layer_input": 4096,
        "hidden_size_per_layer_input": 64,
        "final_logit_softcapping": 30.0,
        "num_kv_shared_layers": 20,
        "use_double_wide_mlp": True,
    }
    audio = {
        "model_type": "gemma4_audio",
        "hidden_size": width,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "output_proj_dims": width,
        "subsampling_conv_channels": [128, 8],
    }
    tokens = {f"{name}_token_id": 10 + i for i, name in enumerate(("image", "video", "audio", "boi", "eoi", "boa"))}
    model = Gemma4(
        Config.from_dict(
            {"model_type": "gemma4", "text_config": text, "audio_config": audio, "eoa_token_index": 16, **tokens}
        )
    )
    mx.random.seed(0)
    model.update(tree_map(lambda a: mx.random.normal(a.shape) * 0.05 if a.ndim > 1 else a, model.parameters()))
    mx.eval(model.parameters())
    return model


def inputs(model: Gemma4, samples: np.ndarray) -> ModelInputs:
    audio = [model.config.audio_token_id] * soft_token_count(len(samples))
    return ModelInputs(mx.array([[*PROMPT, *audio, *AFTER]]), sounds=(mx.array(log_mel(samples)),))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def after_speech(model: Gemma4, rounds: int) -> None:
    def processor(messages: Any, thinking: bool) -> ModelInputs:
        return inputs(model, messages[0]["content"][1]["audio"])

    prompt = SpeechPrompt(model, processor, "English", None)  # type: ignore[arg-type]
    decoder = Decoder(model, prompt.after, STOP)
    sound = np.random.default_rng(0).normal(size=18 * SAMPLE_RATE).astype(np.float32) * 0.1
    print("utterance   to the first token of the final   everything at once   ratio")
    for length in (2, 6, 10, 14, 18):
        samples = sound[: length * SAMPLE_RATE]

        def final(samples: np.ndarray = samples) -> float:
            clip = ClipInProgress(prompt)
            for at in range(0, len(samples), BLOCK):
                clip.feed(samples[at : at + BLOCK])
            return seconds(lambda: decoder.decode(clip.end(len(samples)), max_tokens=1))

        def at_once(samples: np.ndarray = samples) -> float:
            return seconds(lambda: mx.eval(model(inputs(model, samples), last_only=True)))

        ours, theirs = zip(*((final(), at_once()) for _ in range(rounds + 1)), strict=True)
        live, whole = statistics.median(ours[1:]), statistics.median(theirs[1:])
        print(f"{length:6} s   {live * 1e3:26.0f} ms   {whole * 1e3:15.0f} ms   {live / whole:5.2f}")


def endless(model: Gemma4, minutes: float) -> None:
    stream = model.audio_stream()
    block = np.random.default_rng(1).normal(size=SAMPLE_RATE).astype(np.float32) * 0.1
    stream.feed(block)
    mx.clear_cache()
    times, memory = [], []
    for _ in range(round(minutes * 60)):
        times.append(seconds(lambda: mx.eval(stream.feed(block))))
        memory.append(mx.get_active_memory())
    n = max(1, len(times) // 10)
    first, last = statistics.median(times[:n]), statistics.median(times[-n:])
    print(
        f"{minutes:g} minutes through the encoder: {first * 1e3:.1f} ms for each of the first seconds, "
        f"{last * 1e3:.1f} ms for each of the last ({last / first:.2f} ×); "
        f"memory {memory[n] / 1e6:.2f} MB early, {memory[-1] / 1e6:.2f} MB at the end"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--width", type=int, default=256)
    arguments = parser.parse_args()
    after_speech(random_model(arguments.width), arguments.rounds)
    endless(random_model(64), arguments.minutes)


if __name__ == "__main__":
    main()
