"""``python -m tools.demo_model.agreement FOLDER``: do transformers and gemma4-mlx write the same tokens?

Both in float32 and greedy, on held-out inputs: digit strings, translations, pictures of two shapes, questions, silence
and noise. Prints how many answers are the same token for token, of each kind; exit code 1 if any differs.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import torch

from . import evaluate, held_out, other_questions, pictures, prompts, questions, words
from .evaluate import Messages
from .ours import Ours

SEED = 77  # none of the inputs of the model card


def inputs(count: int) -> dict[str, list[Messages]]:
    """``count`` held-out inputs by kind: three in ten digits, as many translations, one in five a picture."""
    rng = random.Random(SEED)
    each = max(1, count * 3 // 10 // 4)
    heard = [samples for group in held_out.groups(2 * each, SEED).values() for _, samples in group]
    rng.shuffle(heard)
    digits = [evaluate.say(prompts.transcribe(), samples) for samples in heard[: 4 * each]]
    languages = [words.LANGUAGES[i % 3] for i in range(4 * each)]
    translations = [
        evaluate.say(prompts.translate(language), samples)
        for language, samples in zip(languages, heard[4 * each :], strict=True)
    ]
    shown = [pictures.draw(pictures.random_things(rng, 2, True), evaluate.SIZES[i % 3], rng) for i in range(count // 5)]
    silence = [evaluate.say(prompts.transcribe(), c.samples) for c in evaluate.wordless(max(1, count // 20), SEED)]
    asked = [topic.reworded for topic in questions.TOPICS] + list(other_questions.HELD_OUT)
    rest = count - 8 * each - len(shown) - len(silence)
    return {
        "digits": digits,
        "translations": translations,
        "pictures": [evaluate.show(picture) for picture in shown],
        "questions": [evaluate.ask(question) for question in rng.sample(asked, rest)],
        "silence and noise": silence,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200, help="inputs in all (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    theirs, ours = evaluate.Judge(arguments.folder), Ours(arguments.folder, dtype="float32")
    same = total = 0
    for kind, conversations in inputs(arguments.count).items():
        # One at a time: in a batch, padding moves the last digits of every sum.
        pairs = list(zip(theirs.tokens(conversations, batch=1), ours.tokens(conversations), strict=True))
        agreeing = sum(a == b for a, b in pairs)
        print(f"{agreeing:4} of {len(pairs):3} the same, {sum(len(a) for a, _ in pairs)} tokens: {kind}", flush=True)
        for a, b in pairs:
            if a != b:
                print("  transformers:", theirs.tokenizer.decode(a), "\n  gemma4-mlx:  ", theirs.tokenizer.decode(b))
        same, total = same + agreeing, total + len(pairs)
    print(f"{same} of {total} answers are the same token for token")
    return 0 if same == total else 1


if __name__ == "__main__":
    sys.exit(main())
