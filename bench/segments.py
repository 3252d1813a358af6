"""A recording of many segments: how much sooner it is written down when several of them share a decode.

    python bench/segments.py [--rounds 3] [--width 128]

Each way of writing is measured in turn in every round; ratios are to one segment a decode, medians of the rounds'. The
built-in model transcribes spoken digits: all of `transcribe`, most of which is finding and reading the speech, and the
writing alone. A random model of E2B's depth, narrower, writes answers of the lengths that speech has. On a processor,
the wider a model, the more it is bound by arithmetic, of which several segments need as much as one by one; a GPU
waits for the weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from live_speech import AFTER, PROMPT, STOP, random_model

import gemma4_mlx as g4
from gemma4_mlx.log_mel import SAMPLE_RATE
from gemma4_mlx.model import Gemma4
from gemma4_mlx.model.cache import Caches
from gemma4_mlx.processing.audio import load_audio
from gemma4_mlx.speech import segmenter
from gemma4_mlx.speech.clip_transcriber import ClipTranscriber
from gemma4_mlx.speech.decoding import Decoder

TOGETHER = (1, 2, 4, 8)
RECORDINGS = Path(__file__).parents[1] / "tests" / "demo_recordings"
TOKENS_PER_SECOND = 4  # of speech
PAUSE = np.zeros(round(2.5 * SAMPLE_RATE), np.float32)  # ends a segment

Clip = tuple[Caches, float]  # read, and how long it is in seconds


def spoken(times: int) -> np.ndarray:
    """All recordings, repeated, with pauses between."""
    voices = [load_audio(path) for path in sorted(RECORDINGS.glob("*.flac"))]
    return np.concatenate([part for voice in voices * times for part in (voice, PAUSE)])


def compare(title: str, rounds: int, work: Callable[[int], object]) -> None:
    """Print the seconds of `work(n)` for each n, and what they are of `work(1)`."""
    seconds: dict[int, list[float]] = {together: [] for together in TOGETHER}
    for _ in range(rounds + 1):  # the first builds the graphs
        for together in TOGETHER:
            start = time.perf_counter()
            work(together)
            seconds[together].append(time.perf_counter() - start)
    print(title)
    for together, theirs in seconds.items():
        ratio = statistics.median(n / one for n, one in list(zip(theirs, seconds[1], strict=True))[1:])
        print(f"{together:3} a decode   {statistics.median(theirs[1:]):7.2f} s   {ratio:.2f}")


def parts(clips: Sequence[Clip], together: int) -> Iterator[Sequence[Clip]]:
    return (clips[at : at + together] for at in range(0, len(clips), together))


def built_in(rounds: int) -> None:
    model, processor = g4.load("demo")
    sound = spoken(times=2)

    def transcribe(together: int) -> None:
        # The package's own name `transcribe` is the function.
        sys.modules["gemma4_mlx.speech.transcribe"]._TOGETHER = together
        g4.transcribe(model, processor, sound, "English")

    transcriber = ClipTranscriber(model, processor, "English", None)
    clips: list[Clip] = []
    for clip in segmenter.cut([sound]):
        in_progress = transcriber.new_clip()
        in_progress.feed(clip.samples)
        clips.append((in_progress.end(len(clip.samples)), len(clip.samples) / SAMPLE_RATE))

    length = f"{len(sound) / SAMPLE_RATE:.0f} s of {len(clips)} segments"
    compare(f"built-in model, {length}, transcribe", rounds, transcribe)
    compare(
        f"built-in model, {length}, writing alone",
        rounds,
        lambda together: [list(transcriber.answer_all(part)) for part in parts(clips, together)],
    )


def e2b_deep(model: Gemma4, rounds: int) -> None:
    clips: list[Clip] = []
    for seconds in (6.0, 11.0, 4.0, 20.0, 9.0, 15.0, 7.0, 18.0):
        cache = model.make_cache()
        sound = np.random.default_rng(len(clips)).integers(300, 4096, round(25 * seconds)).tolist()
        model(mx.array([[*PROMPT, *sound]]), cache=cache, last_only=True)
        cache.evaluate()
        clips.append((cache, seconds))

    decoder = Decoder(model, AFTER, STOP)

    def writing(together: int) -> None:
        for part in parts(clips, together):
            budgets = [round(TOKENS_PER_SECOND * seconds) for _, seconds in part]
            if together == 1:
                decoder.decode(part[0][0], budgets[0])
            else:
                decoder.decode_together([cache for cache, _ in part], budgets)

    compare(f"random model of E2B's depth, {len(clips)} segments of 4 to 20 s, writing alone", rounds, writing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    arguments = parser.parse_args()
    built_in(arguments.rounds)
    e2b_deep(random_model(arguments.width), arguments.rounds)


if __name__ == "__main__":
    main()
